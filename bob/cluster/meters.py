"""Prometheus metrics of finished units, which each Ray node serves and Grafana shows.

ray_bob_done_total          images, shots, steps, epochs; by step, as `bob status` names the steps, and what is counted
ray_bob_rejected_total      rejected rows, by step
ray_bob_seconds_total       seconds of workers, by step and lap; the rate is the number of busy workers
ray_bob_unit_seconds        histogram of the seconds of a unit, by step
"""

import functools
from typing import NamedTuple

from ray.util.metrics import Counter, Histogram

from bob.core.step_table import PLANNED
from bob.core.types import Receipt, Unit

__all__ = ["count"]

_BOUNDS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0]
"""Bounds of the histogram's buckets, in seconds."""


class _Meters(NamedTuple):
    done: Counter
    rejected: Counter
    seconds: Counter
    unit: Histogram


def count(unit: Unit, receipt: Receipt) -> None:
    """Counts a unit that this process has finished; Ray's agent on the node collects the counts every few seconds."""
    if not receipt.times:  # a lost process had committed the unit before
        return
    meters, step = _meters(), unit.planned
    meters.done.inc(receipt.size, {"step": step, "what": PLANNED[step].counts})
    if receipt.rejected:
        meters.rejected.inc(receipt.rejected, {"step": step})
    for lap, seconds in receipt.times.items():
        if seconds:  # Ray rejects zeros
            meters.seconds.inc(seconds, {"step": step, "lap": lap})
    meters.unit.observe(receipt.seconds, {"step": step})


@functools.cache
def _meters() -> _Meters:
    return _Meters(
        done=Counter("bob_done", "What is done, in the step's own unit.", tag_keys=("step", "what")),
        rejected=Counter("bob_rejected", "Rows that could not be done.", tag_keys=("step",)),
        seconds=Counter("bob_seconds", "Seconds of workers.", tag_keys=("step", "lap")),
        unit=Histogram("bob_unit_seconds", "Seconds of a unit.", boundaries=_BOUNDS, tag_keys=("step",)),
    )
