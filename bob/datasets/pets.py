"""Oxford-IIIT Pets: 37 breeds (12 cats, 25 dogs), 3,680 images to train on and 3,669 to test.

The paper says 39 and lists 35; the data set has 37. DataDream calls them pets, Diff-Mix and Diff-II animals.
"""

from bob.datasets import Source
from bob.datasets._files import Files, Pool
from bob.datasets._official import rows

__all__ = ["dataset"]

_LISTS = ("annotations/trainval.txt", "annotations/test.txt")


def _read(argument: str) -> Files:
    """Breeds by their official numbers; a name is the part before the last underscore, capitalised."""
    root = dataset.root(argument)
    lists = [rows(root / file, columns=4) for file in _LISTS]
    breeds = {int(number): stem.rpartition("_")[0] for part in lists for stem, number, _, _ in part}
    order = sorted(breeds)
    sides: list[dict[int, list[str]]] = [{number: [] for number in order} for _ in lists]
    for side, part in zip(sides, lists, strict=True):
        for stem, number, _, _ in part:
            side[int(number)].append(f"images/{stem}.jpg")
    names = tuple(" ".join(word.capitalize() for word in breeds[number].split("_")) for number in order)
    pools = tuple(Pool(train=tuple(sides[0][number]), test=tuple(sides[1][number])) for number in order)
    return Files(name="pets", descriptor="pet", superclass="animal", class_names=names, root=root, pools=pools)


dataset = Source(
    title="Pets",
    folder="oxford-iiit-pet",
    wants=(*_LISTS, "images"),
    origin=(
        "https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
        "https://thor.robots.ox.ac.uk/~vgg/data/pets/annotations.tar.gz",
    ),
    licence="CC BY-SA 4.0; the pictures are their photographers'",
    read=_read,
)
