"""The model card's section of measurements: each value, its bar, and whether the value meets the bar."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Measurement", "card"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A measurement: one line of the model card."""

    part: str
    what: str
    value: float
    unit: str = "%"
    bar: float | None = None
    """Bound that the value must reach, or with `at_most` must not exceed; None: for information."""
    at_most: bool = False

    @property
    def good(self) -> bool:
        """Whether the value meets the bar; NaN never does."""
        if self.bar is None:
            return True
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def card(how: str, measured: Sequence[Measurement]) -> str:
    """Returns the section in Markdown: `how` the values were measured, then a table of the measurements."""
    lines = ["## Measured", "", how, "", "| part | what | measured | bar |", "|---|---|---:|---:|"]
    for m in measured:
        sign = "at most" if m.at_most else "at least"
        bar = "" if m.bar is None else f"{sign} {m.bar:g} {m.unit}".strip() + ("" if m.good else ", **missed**")
        lines.append(f"| {m.part} | {m.what} | {f'{m.value:.1f} {m.unit}' if m.unit else f'{m.value:g}'} | {bar} |")
    return "\n".join(lines) + "\n"
