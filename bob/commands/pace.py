"""How fast finished units went and where their time went, from their manifests."""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Pace", "of"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Of some units of one step."""

    rate: float | None
    """What one worker does in a second, loading included; None where none can be told."""
    workers: tuple[float, ...]
    """The same of each process by itself, the slowest first."""
    times: Mapping[str, float]
    """Lap of `timing.Stopwatch` -> its part of all seconds, in [0, 1]; the largest first."""
    occupancy: float | None
    """Of batches: images / (batches x size of a batch), in (0, 1]; None where none are drawn."""

    def words(self, unit: str) -> str:
        """In one line, what a rate does not say; empty if there is nothing.

        Args:
            unit: what the rates count: images, epochs ...
        """
        parts = [f"{part:.0%}".replace("%", " %") + f" {lap}" for lap, part in self.times.items() if part >= 0.005]
        said = [", ".join(parts)] * bool(parts)
        if self.occupancy is not None:
            said.append(f"batches {100 * self.occupancy:.0f} % full")
        if len(self.workers) > 1:
            slowest, *_, fastest = self.workers
            said.append(f"{len(self.workers)} workers, {slowest:.3g} to {fastest:.3g} {unit}/s each")
        return "; ".join(said)


def of(units: Sequence[tuple[int, Mapping[str, Any]]]) -> Pace:
    """The pace of units, in whatever order they come.

    Args:
        units: size and manifest of each; those of earlier versions say less.
    """
    sizes, spent = collections.defaultdict[Any, list[int]](list), collections.defaultdict[Any, list[float]](list)
    laps = collections.defaultdict[str, list[float]](list)
    for size, manifest in units:
        worker = manifest.get("host"), manifest.get("process")
        sizes[worker].append(size)
        spent[worker].append(manifest["seconds"])
        for lap, seconds in manifest.get("times", {}).items():
            laps[lap].append(seconds)
    seconds = {worker: math.fsum(some) for worker, some in spent.items()}
    whole, drawn = math.fsum(seconds.values()), [(size, m["occupancy"]) for size, m in units if "occupancy" in m]
    times = {lap: math.fsum(some) for lap, some in laps.items()}
    timed = math.fsum(times.values())
    return Pace(
        rate=sum(size for size, _ in units) / whole if whole else None,
        workers=tuple(sorted(sum(sizes[worker]) / took for worker, took in seconds.items() if took)),
        times={lap: times[lap] / timed for lap in sorted(times, key=lambda lap: (-times[lap], lap)) if timed},
        occupancy=sum(size for size, _ in drawn) / math.fsum(size / full for size, full in drawn) if drawn else None,
    )
