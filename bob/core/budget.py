"""How many images of each class: what is drawn, how often a real one enters an epoch, who counts as many or few."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Budget", "budget", "groups"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the training set of one data set and setting is filled up with."""

    drawn: tuple[int, ...]
    """Images to draw of each class, by class id."""
    copies: int
    """How often each real image enters an epoch beside drawn ones."""
    alone: int
    """The same where nothing is drawn, so that all methods take about equally many steps (methods.md 4.4)."""


def budget(counts: Sequence[int], *, per_class: int, long_tail: bool) -> Budget:
    """Fills every class up to twice `per_class` images, real ones counted as often as they enter.

    Few-shot: `per_class` are drawn of each class, and the real ones are copied until they are about as many
    (paper sec. 4.1). Long tail: the real ones are copied c times and 200 - c * n drawn of a class that has
    n (sec. 4.3), where 200 is 2 * per_class and c the most with which no class outgrows it: 6 for CUB-LT, whose
    largest class has 29, and 5 for Flower-LT, whose largest has 39, as the paper has it.

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
    """The class ids of the many-, medium- and few-shot classes of a long tail (Table 2).

    Args:
        counts: training images of each class, by class id.
        medium: the fewest and the most of a medium-shot class, both inclusive (methods.md 3.7).
    """
    low, high = medium
    return {
        "many": tuple(k for k, count in enumerate(counts) if count > high),
        "medium": tuple(k for k, count in enumerate(counts) if low <= count <= high),
        "few": tuple(k for k, count in enumerate(counts) if count < low),
    }
