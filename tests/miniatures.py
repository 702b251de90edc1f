"""Miniatures of the published data sets in their official file formats, oddities included."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from bob.datasets.flower_lt import NAMES

TRAIN, TEST = 18, 4
"""Pictures of each class on either side."""

AIRCRAFT = ("707-320", "F-16A/B", "Boeing 717", "F/A-18")
CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012")
CUB = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Chuck_will_Widow", "004.Artic_Tern")
PETS = ("Abyssinian", "american_pit_bull_terrier", "Egyptian_Mau")

ODD: tuple[tuple[str, str], ...] = (("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("P", "PNG"), ("RGB", "JPEG"))
"""Mode and format in which pictures are saved in turn, all of them named .jpg."""


def _pictures() -> Iterator[Callable[[Path], None]]:
    """Savers of pictures, of which each shows its own number: ten bits, black or white, in blocks of a JPEG's size."""
    for n in itertools.count():
        mode, kind = ODD[n % len(ODD)]
        bits = np.array([n >> k & 1 for k in range(10)], np.uint8).reshape(2, 5)
        picture = Image.fromarray(np.kron(bits * 255, np.ones((8, 8), np.uint8))).convert("RGB").convert(mode)

        def save(file: Path, picture: Image.Image = picture, kind: str = kind) -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file, kind)

        yield save


def aircraft(root: Path) -> Path:
    """`fgvc-aircraft-2013b`: ids and names cut at the first blank, names with blanks and slashes."""
    data, save = root / "fgvc-aircraft-2013b" / "data", _pictures()
    lists: dict[str, list[str]] = {side: [] for side in ("train", "val", "trainval", "test")}
    number = itertools.count(34309)
    for name, k in itertools.product(AIRCRAFT, range(TRAIN + TEST)):
        line = f"{next(number):07d} {name}"
        next(save)(data / "images" / f"{line[:7]}.jpg")
        for side in ("trainval", ("train", "val")[k % 2]) if k < TRAIN else ("test",):
            lists[side].append(line)
    (data / "variants.txt").write_text("".join(f"{name}\n" for name in AIRCRAFT))
    (data / "families.txt").write_text("Boeing 707\nF-16\nBoeing 717\nF/A-18\n")
    for side, lines in lists.items():
        (data / f"images_variant_{side}.txt").write_text("".join(f"{line}\n" for line in sorted(lines)))
        (data / f"images_{side}.txt").write_text("".join(f"{line[:7]}\n" for line in sorted(lines)))
    return data.parent


def cars(root: Path) -> Path:
    """`stanford_cars`: MATLAB files with labels from 1, the test labels beside the devkit and not in it."""
    folder, save = root / "stanford_cars", _pictures()
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array([CARS], dtype=object)})
    for side, count, file in (
        ("train", TRAIN, "devkit/cars_train_annos.mat"),
        ("test", TEST, "cars_test_annos_withlabels.mat"),
    ):
        rows = []
        for n, (_, label) in enumerate(itertools.product(range(count), range(1, len(CARS) + 1)), start=1):
            rows.append((1, 2, 6, 5, label, f"{n:05d}.jpg"))
            next(save)(folder / f"cars_{side}" / rows[-1][-1])
        fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        annotations = np.array([rows], dtype=[(name, object) for name in fields])
        savemat(folder / file, {"annotations": annotations.reshape(1, -1)})
    unlabelled = np.array([[(1, 2, 6, 5, "00001.jpg")]], dtype=[(n, object) for n in "abcd"] + [("fname", object)])
    savemat(folder / "devkit/cars_test_annos.mat", {"annotations": unlabelled})
    return folder


def cub(root: Path) -> Path:
    """`CUB_200_2011`: numbered names, images in class folders, sides mixed in one list."""
    folder, save = root / "CUB_200_2011", _pictures()
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    numbers = itertools.count(1)
    for (label, name), k in itertools.product(enumerate(CUB, start=1), range(TRAIN + TEST)):
        n, path = next(numbers), f"{name}/{name[4:]}_{k:04d}_79{k}.jpg"
        next(save)(folder / "images" / path)
        lists["images"].append(f"{n} {path}")
        lists["image_class_labels"].append(f"{n} {label}")
        lists["train_test_split"].append(f"{n} {int(k < TRAIN)}")
    lists["classes"] = [f"{label} {name}" for label, name in enumerate(CUB, start=1)]
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def pets(root: Path) -> Path:
    """`oxford-iiit-pet`: breeds named by what stands before the last underscore, stray files among the pictures."""
    folder, save = root / "oxford-iiit-pet", _pictures()
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for (label, name), k in itertools.product(enumerate(PETS, start=1), range(TRAIN + TEST)):
        next(save)(folder / "images" / f"{name}_{k + 1}.jpg")
        species = 1 if name[0].isupper() else 2
        lists["trainval" if k < TRAIN else "test"].append(f"{name}_{k + 1} {label} {species} {label}")
    for stray in ("Abyssinian_100.mat", "Abyssinian_101.mat"):
        (folder / "images" / stray).write_bytes(b"MATLAB 5.0 MAT-file")
    (folder / "annotations").mkdir()
    for side, lines in lists.items():
        (folder / "annotations" / f"{side}.txt").write_text("".join(f"{line}\n" for line in lines))
    header = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n"
    both = "".join(f"{line}\n" for lines in lists.values() for line in lines)
    (folder / "annotations/list.txt").write_text(header + both)
    return folder


def flowers(root: Path) -> Path:
    """`flowers-102`: labels from 1 in the order of the pictures' numbers, and a split that is not used."""
    folder, save, rng = root / "flowers-102", _pictures(), np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(1, len(NAMES) + 1), 4))
    for number in range(1, len(labels) + 1):
        next(save)(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)})
    sides = np.array_split(rng.permutation(len(labels)) + 1, 3)
    savemat(folder / "setid.mat", dict(zip(("trnid", "valid", "tstid"), (s[None] for s in sides), strict=True)))
    return folder


MINIATURES: dict[str, Callable[[Path], Path]] = {
    "aircraft": aircraft,
    "cars": cars,
    "cub": cub,
    "cub_lt": cub,
    "flower_lt": flowers,
    "pets": pets,
}
"""Data set -> makes its folder below the given one, and returns it."""
