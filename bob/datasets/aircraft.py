"""FGVC-Aircraft: 100 variants, 6,667 images to train on and 3,333 to test."""

from bob.datasets import Source
from bob.datasets._files import Files, Pool
from bob.datasets._official import as_published, rows

__all__ = ["dataset"]


def _read(argument: str) -> Files:
    """Variants in the official order, their names as published, slashes included."""
    root = dataset.root(argument)
    names = tuple(name for (name,) in rows(root / "data/variants.txt", columns=1))
    sides: dict[str, dict[str, list[str]]] = {name: {"trainval": [], "test": []} for name in names}
    with as_published(root):
        for side in ("trainval", "test"):
            for number, name in rows(root / f"data/images_variant_{side}.txt", columns=2):
                sides[name][side].append(f"data/images/{number}.jpg")
    pools = tuple(Pool(train=tuple(sides[name]["trainval"]), test=tuple(sides[name]["test"])) for name in names)
    return Files(name="aircraft", descriptor="aircraft", class_names=names, root=root, pools=pools)


dataset = Source(
    title="Aircraft",
    folder="fgvc-aircraft-2013b",
    wants=("data/variants.txt", "data/images_variant_trainval.txt", "data/images_variant_test.txt", "data/images"),
    origin=("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
    licence="non-commercial research only; the pictures are their photographers'",
    read=_read,
)
