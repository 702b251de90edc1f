"""Numbers of images: to draw of each class, copies of each real image, and the groups of a long tail."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Budget", "budget", "groups"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Drawn images and copies of real images of a training set."""

    drawn: tuple[int, ...]
    """Number of images to draw of each class, by class id."""
    copies: int
    """How often each real image enters an epoch with drawn images."""
    alone: int
    """How often where nothing is drawn, so that all methods take about equally many steps."""


def budget(counts: Sequence[int], *, per_class: int, long_tail: bool) -> Budget:
    """Returns the budget that fills every class up to twice `per_class` images, copies counted.

    Few-shot: `per_class` images are drawn of each class, and the real ones are copied until they are about as many
    (paper sec. 4.1). Long tail: the real images are copied c times, and 200 - c * n are drawn of a class of n
    (sec. 4.3), where 200 is 2 * per_class and c the greatest with which no class exceeds it: as in the paper 6 for
    CUB-LT, whose largest class has 29, and 5 for Flower-LT, whose largest has 39.

    Args:
        counts: real training images of each class, by class id.
        per_class: `DrawSettings.per_class`.
        long_tail: whether the counts differ on purpose.
    """
    total, most = 2 * per_class, max(counts)
    if not long_tail:
        drawn = (per_class,) * len(counts)
        return Budget(drawn=drawn, copies=max(1, per_class // most), alone=max(1, total // most))
    copies = max(1, total // most)
    return Budget(
        drawn=tuple(max(0, total - copies * count) for count in counts),
        copies=copies,
        alone=max(1, total * len(counts) // sum(counts)),
    )


def groups(counts: Sequence[int], *, medium: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Returns the class ids of the many-, medium- and few-shot classes of a long tail (Table 2).

    Args:
        counts: training images of each class, by class id.
        medium: fewest and most training images of a medium-shot class, both inclusive.
    """
    low, high = medium
    return {
        "many": tuple(k for k, count in enumerate(counts) if count > high),
        "medium": tuple(k for k, count in enumerate(counts) if low <= count <= high),
        "few": tuple(k for k, count in enumerate(counts) if count < low),
    }
