"""Runs -> the graph of work units -> results: deduplicated, skipping what exists.

`walk` is the way through the steps, `execute` does them, `outcomes` and `bob plan` only look; `splits` begins a run.
"""

from bob.pipeline.execute import Executor, Report, check, execute, measure, outcome
from bob.pipeline.splits import split
from bob.pipeline.walk import UPTO

__all__ = ["UPTO", "Executor", "Report", "check", "execute", "measure", "outcome", "split"]
