"""Reader of CUB-200-2011's text files, shared by `cub` and `cub_lt`."""

from pathlib import Path

from bob.datasets._files import Pool
from bob.datasets._official import as_published, rows

__all__ = ["FOLDER", "LICENCE", "ORIGIN", "WANTS", "read"]

FOLDER = "CUB_200_2011"
WANTS = ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt", "images")
ORIGIN = ("https://data.caltech.edu/records/65de6-vp158 (CUB_200_2011.tgz)",)
LICENCE = "non-commercial research and education; the pictures are their photographers'"


def read(root: Path) -> tuple[tuple[str, ...], tuple[Pool, ...]]:
    """Class names and pictures, by class id.

    `001.Black_footed_Albatross` becomes `Black footed Albatross`; the official spelling stays otherwise.

    Raises:
        ValueError: if a file cannot be read, or the files contradict each other.
    """
    classes, images, labels, trained = (dict(rows(root / name, columns=2)) for name in WANTS[:4])
    sides: dict[str, dict[str, list[str]]] = {number: {"0": [], "1": []} for number in classes}
    with as_published(root):
        for number, path in images.items():
            sides[labels[number]][trained[number]].append(f"images/{path}")
    names = tuple(name.partition(".")[2].replace("_", " ").strip() for name in classes.values())
    return names, tuple(Pool(train=tuple(side["1"]), test=tuple(side["0"])) for side in sides.values())
