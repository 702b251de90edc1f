"""CUB-200-2011: 200 birds, 5,994 images to train on and 5,794 to test."""

from bob.datasets import Source, _cub
from bob.datasets._files import Files

__all__ = ["dataset"]


def _read(argument: str) -> Files:
    names, pools = _cub.read(root := dataset.root(argument))
    return Files(name="cub", descriptor="bird", class_names=names, val=10, root=root, pools=pools)


dataset = Source(
    title="CUB",
    folder=_cub.FOLDER,
    wants=_cub.WANTS,
    origin=_cub.ORIGIN,
    licence=_cub.LICENCE,
    read=_read,
)
