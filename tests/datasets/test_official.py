"""Published data sets, read from miniatures of their official layouts and compared with torchvision's loaders."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from bob import datasets
from bob.core import registry
from bob.core.budget import budget, groups
from bob.core.types import Shot
from bob.datasets import Source, _longtail
from bob.datasets.flower_lt import NAMES
from tests import miniatures
from tests.miniatures import MINIATURES, TEST, TRAIN

OFFICIAL = [name for name in registry.names("dataset") if isinstance(registry.load("dataset", name), Source)]
FEW = [name for name in OFFICIAL if not name.endswith("_lt")]


@pytest.fixture(scope="module", params=OFFICIAL)
def official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A data set's name and its miniature; not to be changed."""
    return request.param, MINIATURES[request.param](tmp_path_factory.mktemp(request.param))


def part(shots: tuple[Shot, ...], split: str) -> list[Shot]:
    return [shot for shot in shots if shot.split == split]


# -- where they lie -------------------------------------------------------------------------------


def test_is_found_by_its_folder_or_below_bob_data(official: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder = official
    factor = ":10" if name.endswith("_lt") else ""
    given = datasets.load(f"{name}{factor}:{folder}")
    monkeypatch.setenv("BOB_DATA", str(folder.parent))
    found = datasets.load(f"{name}{factor}")
    assert found.name == given.name == f"{name}{factor}"  # wherever it lies
    assert found.split(shots=1, val=1, seed=0) == given.split(shots=1, val=1, seed=0)
    assert found.address == given.address == f"{found.name}:{folder}"  # for a machine without BOB_DATA
    assert datasets.load(found.address) == given


def test_says_what_is_missing_and_where_it_comes_from(
    official: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = official
    source = registry.load("dataset", name)
    with pytest.raises(ValueError, match=r"BOB_DATA, which says where to look for it, is not set"):
        datasets.load(name)
    monkeypatch.setenv("BOB_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="which lacks them all") as refused:
        datasets.load(name)
    said = str(refused.value)
    assert all(words in said for words in (*source.wants, *source.origin, str(tmp_path / source.folder)))
    folder = MINIATURES[name](tmp_path)
    (folder / source.wants[0]).unlink()
    with pytest.raises(ValueError, match=f"which lacks {source.wants[0]}"):
        datasets.load(name)


@pytest.mark.parametrize(
    ("name", "file", "content", "reason"),
    [
        ("aircraft", "data/images_variant_test.txt", b"0034309 Concorde\n", r"do not agree about 'Concorde'"),
        ("aircraft", "data/images_variant_test.txt", b"0034309\n", "line 1 wants 2 columns, got '0034309'"),
        ("cub", "image_class_labels.txt", b"1 1\n", "do not agree about '2'"),
        ("cub", "train_test_split.txt", b"\xff", "is no UTF-8 text"),
        ("cars", "devkit/cars_meta.mat", b"<html>", "is no MATLAB file that holds 'class_names'"),
        ("flower_lt", "imagelabels.mat", b"", "is no MATLAB file that holds 'labels'"),
    ],
)
def test_what_is_not_as_published_is_named(name: str, file: str, content: bytes, reason: str, tmp_path: Path) -> None:
    folder = MINIATURES[name](tmp_path)
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        datasets.load(f"{name}:{folder}")


# -- what they hold -------------------------------------------------------------------------------


def test_class_names_are_the_official_ones(tmp_path: Path) -> None:
    folders = {name: MINIATURES[name](tmp_path / name) for name in OFFICIAL}
    loaded = {name: datasets.load(f"{name}:{folder}") for name, folder in folders.items()}
    assert loaded["aircraft"].class_names == miniatures.AIRCRAFT
    assert loaded["cars"].class_names == miniatures.CARS
    birds = ("Black footed Albatross", "Laysan Albatross", "Chuck will Widow", "Artic Tern")
    assert loaded["cub"].class_names == loaded["cub_lt"].class_names == birds
    assert loaded["pets"].class_names == ("Abyssinian", "American Pit Bull Terrier", "Egyptian Mau")
    assert loaded["flower_lt"].class_names == tuple(name.strip() for name in torchvision.datasets.Flowers102.classes)
    assert {name: of.descriptor for name, of in loaded.items()} == {
        "aircraft": "aircraft",
        "cars": "car",
        "cub": "bird",
        "cub_lt": "bird",
        "flower_lt": "flower",
        "pets": "pet",
    }
    assert {name: of.superclass for name, of in loaded.items() if of.superclass} == {"pets": "animal"}
    assert not datasets.load(f"pets:{folders['pets']}", "cat").superclass  # the user's word holds everywhere
    assert {name: of.val for name, of in loaded.items()} == {
        "aircraft": 16,
        "cars": 10,
        "cub": 10,
        "cub_lt": 5,
        "flower_lt": 5,
        "pets": 16,
    }
    assert all(name == name.strip() for of in loaded.values() for name in of.class_names)


def test_every_picture_opens_whatever_it_really_is(official: tuple[str, Path]) -> None:
    """Grey-scale and CMYK, GIF and PNG, all of them called .jpg; stray files are never looked at."""
    name, folder = official
    loaded = datasets.load(f"{name}:{folder}")
    for shot in loaded.split(shots=1, val=1, seed=0)[:40]:
        picture = loaded.open(shot)
        assert (picture.mode, picture.size) == ("RGB", (shot.width, shot.height))


def seen(pairs: Any) -> Counter[tuple[bytes, str]]:
    return Counter((np.asarray(picture.convert("RGB")).tobytes(), name) for picture, name in pairs)


TORCHVISION: dict[str, Callable[[Path, str], Any]] = {
    "aircraft": lambda root, side: torchvision.datasets.FGVCAircraft(str(root), split=side),
    "cars": lambda root, side: torchvision.datasets.StanfordCars(str(root), split=side.removesuffix("val")),
    "pets": lambda root, side: torchvision.datasets.OxfordIIITPet(str(root), split=side),
}


@pytest.mark.parametrize("side", ["trainval", "test"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_reads_the_same(name: str, side: str, tmp_path: Path) -> None:
    """Sample by sample: the same pixels under the same class name, on the same side."""
    folder = MINIATURES[name](tmp_path)
    theirs = TORCHVISION[name](tmp_path, side)
    loaded = datasets.load(f"{name}:{folder}")
    assert loaded.class_names == tuple(theirs.classes)
    shots = loaded.split(shots=TRAIN - 1, val=1, seed=0)
    ours = [shot for shot in shots if (shot.split == "test") == (side == "test")]
    assert len(ours) == len(theirs) == len(theirs.classes) * (TEST if side == "test" else TRAIN)
    expected = seen((theirs[k][0], theirs.classes[theirs[k][1]]) for k in range(len(theirs)))
    assert max(expected.values()) == 1  # no two pictures are alike
    assert seen((loaded.open(shot), shot.class_name) for shot in ours) == expected


def test_torchvision_reads_the_same_flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its splits together: Flower-LT halves each class anew."""
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_check_integrity", lambda self: True)  # of the real archives
    folder = MINIATURES["flower_lt"](tmp_path)
    theirs = [torchvision.datasets.Flowers102(str(tmp_path), split=side) for side in ("train", "val", "test")]
    loaded = datasets.load(f"flower_lt:1:{folder}")
    assert [name.strip() for name in theirs[0].classes] == list(loaded.class_names)
    shots = loaded.split(shots=0, val=1, seed=0)
    assert Counter(shot.split for shot in shots) == {"train": 204, "val": 102, "test": 102}
    expected = seen((of[k][0], of.classes[of[k][1]].strip()) for of in theirs for k in range(len(of)))
    assert seen((loaded.open(shot), shot.class_name) for shot in shots) == expected


# -- few shots ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEW)
def test_shots_and_validation_come_from_the_training_side(name: str, tmp_path: Path) -> None:
    loaded = datasets.load(f"{name}:{MINIATURES[name](tmp_path)}")
    five, ten = (loaded.split(shots=shots, val=6, seed=3) for shots in (5, 10))
    assert set(part(five, "train")) < set(part(ten, "train"))
    assert part(five, "val") == part(ten, "val")
    assert part(five, "test") == part(ten, "test")
    sizes = Counter((shot.class_id, shot.split) for shot in ten)
    assert sizes == {(c, s): n for c in range(len(loaded.class_names)) for s, n in SIZES.items()}
    paths = {split: {shot.path for shot in part(ten, split)} for split in ("train", "val", "test")}
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(paths.values(), 2))
    everything = loaded.split(shots=TRAIN - 1, val=1, seed=0)
    assert paths["test"] == {shot.path for shot in part(everything, "test")}  # the published test side, all of it


SIZES = {"train": 10, "val": 6, "test": TEST}


def test_the_order_of_the_official_lists_does_not_matter(tmp_path: Path) -> None:
    folder = MINIATURES["aircraft"](tmp_path)
    before = datasets.load(f"aircraft:{folder}").split(shots=5, val=6, seed=0)
    for side in ("trainval", "test"):
        file = folder / f"data/images_variant_{side}.txt"
        file.write_text("".join(f"{line}\n" for line in reversed(file.read_text().splitlines())))
    after = datasets.load(f"aircraft:{folder}").split(shots=5, val=6, seed=0)
    assert [shot for shot in after if shot.split != "test"] == [shot for shot in before if shot.split != "test"]
    assert set(after) == set(before)


# -- long tails -----------------------------------------------------------------------------------

CUB = [30] * 194 + [29] * 6
"""Training images of each class, of which only how many there are of each size matters."""
FLOWERS = [
    *(40, 60, 40, 56, 65, 45, 40, 85, 46, 45, 87, 87, 49, 48, 49, 41, 85, 82, 49, 56, 40, 59, 91, 42, 41, 41, 40),
    *(66, 78, 85, 52, 45, 46, 40, 43, 75, 108, 56, 41, 67, 127, 59, 130, 93, 40, 196, 67, 71, 49, 92, 258, 85, 93),
    *(61, 71, 109, 67, 114, 67, 109, 50, 55, 54, 52, 102, 61, 42, 54, 54, 62, 78, 96, 194, 171, 120, 107, 251, 137),
    *(41, 105, 166, 112, 131, 86, 63, 58, 63, 154, 184, 82, 76, 66, 46, 162, 128, 91, 66, 82, 63, 49, 58, 48),
]
"""All images of each class."""


def test_the_class_counts_are_the_official_ones() -> None:
    assert (len(CUB), sum(CUB)) == (200, 5994)
    assert (len(FLOWERS), sum(FLOWERS), min(FLOWERS), max(FLOWERS)) == (102, 8189, 40, 258)
    assert sum(n // 2 for n in FLOWERS) == 4070


@pytest.mark.parametrize(
    ("pool", "medium", "factor", "total", "sizes", "drawn", "copies"),
    [
        (CUB, (5, 20), 100, 1242, (16, 61, 123), 32548, 6),
        (CUB, (5, 20), 50, 1427, (19, 72, 109), 31438, 6),
        (CUB, (5, 20), 10, 2238, (31, 123, 46), 26572, 6),
        ([n // 2 for n in FLOWERS], (10, 30), 100, 847, (6, 25, 71), 16165, 5),
        ([n // 2 for n in FLOWERS], (10, 30), 50, 976, (7, 29, 66), 15520, 5),
        ([n // 2 for n in FLOWERS], (10, 30), 10, 1532, (11, 50, 41), 12740, 5),
    ],
)
def test_long_tails_have_the_papers_numbers(
    pool: list[int],
    medium: tuple[int, int],
    factor: int,
    total: int,
    sizes: tuple[int, ...],
    drawn: int,
    copies: int,
) -> None:
    counts = _longtail.counts(pool, factor)
    assert sum(counts) == total
    assert tuple(len(ids) for ids in groups(counts, medium=medium).values()) == sizes
    filled = budget(counts, per_class=100, long_tail=True)
    assert (sum(filled.drawn), filled.copies) == (drawn, copies)
    assert all(n + copies * count == 200 for n, count in zip(filled.drawn, counts, strict=True))


@pytest.mark.parametrize(("name", "medium"), [("cub_lt", (5, 20)), ("flower_lt", (10, 30)), ("skyworld_lt", (3, 9))])
def test_a_long_tail_says_its_groups(name: str, medium: tuple[int, int], tmp_path: Path) -> None:
    place = f":100:{MINIATURES[name](tmp_path)}" if name in MINIATURES else ""
    loaded = datasets.load(name + place)
    assert loaded.medium == medium
    assert loaded.name == f"{name}:100"
    assert datasets.title(loaded.name) == f"{TITLES[name]} IF 100"


TITLES = {"cub_lt": "CUB-LT", "flower_lt": "Flower-LT", "skyworld_lt": "Skyworld-LT"}


@pytest.mark.parametrize("name", TITLES)
def test_a_steeper_tail_is_part_of_a_flatter_one(name: str, tmp_path: Path) -> None:
    place = f":{MINIATURES[name](tmp_path)}" if name in MINIATURES else ""
    steep, flat = (datasets.load(f"{name}:{factor}{place}").split(shots=0, val=2, seed=0) for factor in (100, 1))
    assert set(part(steep, "train")) < set(part(flat, "train"))
    assert [part(steep, s) for s in ("val", "test")] == [part(flat, s) for s in ("val", "test")]


def test_long_tails_validate_on_the_test_side(tmp_path: Path) -> None:
    folder = MINIATURES["cub"](tmp_path)
    published = {shot.path for shot in part(datasets.load(f"cub:{folder}").split(shots=1, val=1, seed=0), "test")}
    loaded = datasets.load(f"cub_lt:10:{folder}")
    split = loaded.split(shots=0, val=3, seed=0)
    assert Counter((shot.class_id, shot.split) for shot in split if shot.split != "train") == {
        (c, s): n for c in range(4) for s, n in (("val", 3), ("test", 1))
    }
    assert {shot.path for shot in split if shot.split != "train"} == published
    counts = Counter(shot.class_id for shot in part(split, "train"))
    assert [counts[c] for c in range(4)] == [18, 5, 1, 1] == list(_longtail.counts([18] * 4, 10))


def test_flowers_are_halved_by_the_seed(tmp_path: Path) -> None:
    loaded = datasets.load(f"flower_lt:1:{MINIATURES['flower_lt'](tmp_path)}")
    one, other = (loaded.split(shots=0, val=1, seed=seed) for seed in (0, 1))
    assert Counter(shot.split for shot in one) == Counter(shot.split for shot in other)
    assert {shot.path for shot in part(one, "train")} != {shot.path for shot in part(other, "train")}
    assert len({shot.path for shot in one}) == len(one) == 4 * len(NAMES)


@pytest.mark.parametrize("argument", ["0", "10000000"])
@pytest.mark.parametrize("name", TITLES)
def test_an_imbalance_factor_below_1_is_refused(name: str, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{name} takes its imbalance factor, 1 or more, got {argument}"):
        datasets.load(f"{name}:{argument}")
