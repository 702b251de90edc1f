"""CUB-LT: CUB-200-2011 with a long tail; `cub_lt:100` has imbalance factor 100."""

from bob.datasets import Source, _cub, _longtail
from bob.datasets._files import Files

__all__ = ["dataset"]


def _read(argument: str) -> Files:
    factor, folder = _longtail.argument("cub_lt", argument)
    names, pools = _cub.read(root := dataset.root(folder))
    return Files(
        name=f"cub_lt:{factor}",
        descriptor="bird",
        class_names=names,
        val=_longtail.VAL,
        medium=(5, 20),
        root=root,
        pools=pools,
        tail=_longtail.counts([len(pool.train) for pool in pools], factor),
    )


dataset = Source(
    title="CUB-LT",
    folder=_cub.FOLDER,
    wants=_cub.WANTS,
    origin=_cub.ORIGIN,
    licence=_cub.LICENCE,
    read=_read,
)
