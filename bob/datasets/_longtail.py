"""Long-tail class sizes by Diff-Mix's formula, which reproduces the paper's numbers."""

from collections.abc import Sequence

__all__ = ["VAL", "argument", "counts"]

VAL = 5
"""Validation images per class, taken from the test side (paper sec. 4.3)."""

_FACTOR = 100


def counts(pool: Sequence[int], factor: int) -> tuple[int, ...]:
    """Training images of each class: max(int(mean * (1 / factor) ** (rank / (C - 2))), 1).

    The rank orders the C classes by falling size, ties by class id. The largest class gets the mean of
    the pool, not its own size; the exponent of the last is slightly above 1.

    Args:
        pool: available images of each class, by class id; the upper limit of its count.
        factor: imbalance factor, 1 or more: 100, 50 or 10 in the paper.

    Source: Diff-Mix, arXiv:2403.19600, as released; confirmed by the totals that the paper's Table 2 implies.
    """
    mean, last = sum(pool) / len(pool), max(1, len(pool) - 2)
    ranked = sorted(range(len(pool)), key=lambda k: -pool[k])  # stable
    ideal = {k: max(int(mean * (1 / factor) ** (rank / last)), 1) for rank, k in enumerate(ranked)}
    return tuple(min(ideal[k], pool[k]) for k in range(len(pool)))


def argument(kind: str, text: str) -> tuple[int, str]:
    """`100:/data/x` -> (100, "/data/x"); without a number the imbalance factor is 100.

    Raises:
        ValueError: if the factor is below 1 or above 10^6.
    """
    head, _, rest = text.partition(":")
    if not (head.isascii() and head.isdigit()):
        return _FACTOR, text
    if not 1 <= (factor := int(head)) <= 10**6:
        raise ValueError(f"{kind} takes its imbalance factor, 1 or more, got {head}: write {kind}:{_FACTOR}")
    return factor, rest
