"""Stand-ins for the paper's data sets, of the same sizes but without files, for cost estimates."""

from dataclasses import dataclass
from pathlib import Path

from bob.datasets import Dataset, _longtail
from bob.datasets._files import Files, Pool

__all__ = ["SIZES", "Size", "stand_in"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a published data set."""

    classes: int
    train: int
    """Images on the training side."""
    test: int
    val: int
    """Validation images per class (sec. 4.1, 4.3)."""
    medium: tuple[int, int] | None = None
    """See `Dataset.medium`."""


SIZES = {
    "aircraft": Size(classes=100, train=6_667, test=3_333, val=16),
    "cars": Size(classes=196, train=8_144, test=8_041, val=10),
    "cub": Size(classes=200, train=5_994, test=5_794, val=10),
    "pets": Size(classes=37, train=3_680, test=3_669, val=16),
    "cub_lt": Size(classes=200, train=5_994, test=5_794, val=5, medium=(5, 20)),
    "flower_lt": Size(classes=102, train=4_095, test=4_094, val=5, medium=(10, 30)),
}

_PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00"
    b"\x0cIDATx\x9cc```\x00\x00\x00\x04\x00\x01\xf6\x178U\x00\x00\x00\x00IEND\xaeB`\x82"
)


def stand_in(name: str) -> Dataset:
    """A data set with the classes and images of `name`, evenly spread; each picture is one black pixel.

    Raises:
        KeyError: if `SIZES` has no such data set.
    """
    kind, _, argument = name.partition(":")
    size = SIZES[kind]
    factor, _ = _longtail.argument(kind, argument)
    return Files(
        name=f"{kind}:{factor}" if size.medium else kind,
        descriptor="picture",
        class_names=tuple(f"class {k}" for k in range(size.classes)),
        val=size.val,
        medium=size.medium,
        root=Path("/nowhere"),
        pools=tuple(
            Pool(train=_paths("train", k, train), test=_paths("test", k, test))
            for k, (train, test) in enumerate(
                zip(_spread(size.train, size.classes), _spread(size.test, size.classes), strict=True)
            )
        ),
        tail=_longtail.counts(_spread(size.train, size.classes), factor) if size.medium else (),
        read=lambda path: _PIXEL,
    )


def _spread(images: int, classes: int) -> list[int]:
    return [images // classes + (k < images % classes) for k in range(classes)]


def _paths(side: str, class_id: int, count: int) -> tuple[str, ...]:
    return tuple(f"{side}/{class_id}/{k}" for k in range(count))
