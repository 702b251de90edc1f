"""Stanford Cars: 196 models, 8,144 images to train on and 8,041 to test."""

from bob.datasets import Source
from bob.datasets._files import Files, Pool
from bob.datasets._official import as_published, matlab

__all__ = ["dataset"]

_SIDES = {"cars_train": "devkit/cars_train_annos.mat", "cars_test": "cars_test_annos_withlabels.mat"}


def _read(argument: str) -> Files:
    """Models in the official order, the year last as published."""
    root = dataset.root(argument)
    names = tuple(str(name).strip() for name in matlab(root / "devkit/cars_meta.mat", "class_names").ravel())
    sides: dict[str, dict[int, list[str]]] = {side: {k: [] for k in range(1, len(names) + 1)} for side in _SIDES}
    with as_published(root):
        for side, file in _SIDES.items():
            for row in matlab(root / file, "annotations").ravel():
                sides[side][int(row["class"])].append(f"{side}/{row['fname']}")
    train, test = sides.values()
    pools = tuple(Pool(train=tuple(train[k]), test=tuple(test[k])) for k in train)
    return Files(name="cars", descriptor="car", class_names=names, val=10, root=root, pools=pools)


dataset = Source(
    title="Cars",
    folder="stanford_cars",
    wants=("devkit/cars_meta.mat", *_SIDES.values(), *_SIDES),
    origin=(
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html, whose archives (cars_train.tgz, cars_test.tgz,"
        " car_devkit.tgz, cars_test_annos_withlabels.mat) are offline: ask who has a copy",
    ),
    licence="none stated with the archives; the pictures are their photographers', so take it for research only",
    read=_read,
)
