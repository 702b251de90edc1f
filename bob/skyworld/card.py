"""The model card's section of measurements: each value, the bar it has to reach, and whether it does."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Measurement", "card"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One line of the card."""

    part: str
    what: str
    value: float
    unit: str = "%"
    bar: float | None = None
    """What the value must reach, or with `at_most` must not exceed; None: for information."""
    at_most: bool = False

    @property
    def good(self) -> bool:
        """Whether the bar is met; a value that is not finite never does."""
        if self.bar is None:
            return True
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def card(how: str, measured: Sequence[Measurement]) -> str:
    """The section, in Markdown: how it was measured, then a line each."""
    lines = ["## Measured", "", how, "", "| part | what | measured | bar |", "|---|---|---:|---:|"]
    for m in measured:
        sign = "at most" if m.at_most else "at least"
        bar = "" if m.bar is None else f"{sign} {m.bar:g} {m.unit}".strip() + ("" if m.good else ", **missed**")
        lines.append(f"| {m.part} | {m.what} | {f'{m.value:.1f} {m.unit}' if m.unit else f'{m.value:g}'} | {bar} |")
    return "\n".join(lines) + "\n"
