"""Rates and timing of finished units, from their manifests."""

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Pace", "summarise"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Rate and timing of some units of one step."""

    rate: float | None
    """Work of one worker in a second, loading included; None if no time was recorded."""
    workers: tuple[float, ...]
    """Rate of each process, the slowest first."""
    times: Mapping[str, float]
    """Lap of `timing.Stopwatch` -> its share of all seconds, in [0, 1]; the largest first."""
    occupancy: float | None
    """Images / (batches x batch size), in (0, 1]; None if no images were drawn."""

    def words(self, unit: str) -> str:
        """Returns laps, occupancy and the workers' range of rates in one line; empty if none is known.

        Args:
            unit: unit of the rates: images, epochs ...
        """
        laps = [f"{share:.0%}".replace("%", " %") + f" {lap}" for lap, share in self.times.items() if share >= 0.005]
        parts = [", ".join(laps)] * bool(laps)
        if self.occupancy is not None:
            parts.append(f"batches {100 * self.occupancy:.0f} % full")
        if len(self.workers) > 1:
            slowest, *_, fastest = self.workers
            parts.append(f"{len(self.workers)} workers, {slowest:.3g} to {fastest:.3g} {unit}/s each")
        return "; ".join(parts)


def summarise(units: Sequence[tuple[int, Mapping[str, Any]]]) -> Pace:
    """Returns the pace of units, whatever their order.

    Args:
        units: size and manifest of each unit; manifests of earlier versions lack some fields.
    """
    sizes, spent = collections.defaultdict[Any, list[int]](list), collections.defaultdict[Any, list[float]](list)
    laps = collections.defaultdict[str, list[float]](list)
    for size, manifest in units:
        worker = manifest.get("host"), manifest.get("process")
        sizes[worker].append(size)
        spent[worker].append(manifest["seconds"])
        for lap, seconds in manifest.get("times", {}).items():
            laps[lap].append(seconds)
    seconds = {worker: math.fsum(values) for worker, values in spent.items()}
    total, drawn = math.fsum(seconds.values()), [(size, m["occupancy"]) for size, m in units if "occupancy" in m]
    times = {lap: math.fsum(values) for lap, values in laps.items()}
    timed = math.fsum(times.values())
    return Pace(
        rate=sum(size for size, _ in units) / total if total else None,
        workers=tuple(sorted(sum(sizes[worker]) / took for worker, took in seconds.items() if took)),
        times={lap: times[lap] / timed for lap in sorted(times, key=lambda lap: (-times[lap], lap)) if timed},
        occupancy=sum(size for size, _ in drawn) / math.fsum(size / full for size, full in drawn) if drawn else None,
    )
