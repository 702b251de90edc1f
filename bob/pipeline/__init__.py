"""Runs -> the graph of work units -> results: deduplicated, skipping what exists.

`walk` lists the units of each step in order, `execute` does the missing ones, `outcomes` and `bob plan` only read;
`splits` gives a run its images.
"""

from bob.pipeline.execute import Executor, Report, check, execute, measure, outcome
from bob.pipeline.splits import split
from bob.pipeline.walk import UPTO

__all__ = ["UPTO", "Executor", "Report", "check", "execute", "measure", "outcome", "split"]
