"""`bob plan`: prints the estimated cost of an experiment as a table."""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from bob import store
from bob.commands import console, estimate, needs, rates, rehearsed
from bob.commands.estimate import Plan
from bob.core.memory import SPARE
from bob.core.step_table import PLANNED, STEPS
from bob.paper import experiments

__all__ = ["PlanCommand", "show"]


@dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """Estimates the cost of an experiment without running it: units to do and done, device-hours, time, storage, price,
    and memory of each step; refuses a step that does not fit on the device.

    bob plan table1 --cluster 8xH100 --price 3
    bob plan skyworld --out out                        this machine, at the rates measured in out
    """

    experiment: tyro.conf.Positional[str] = ""
    """Name of an experiment, as table1 or skyworld; empty: lists all experiments."""
    cluster: str = ""
    """Number and kind of devices, as in 8xH100: H100, H200, A100 (A100-40, A100-80), RTX4090, L40S, L4, A10G, V100, T4
    or cpu; empty: this machine's CPUs."""
    price: float = 0.0
    """Price of one device for an hour; 0: no price is shown."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""
    out: str = "out"
    """The --out of `bob run`, whose finished units are not counted as work; need not exist."""
    measured: str = ""
    """Store whose finished units, or rehearsals on such a device, give the rates; empty: `out` itself, for cpu."""

    def main(self, arguments: Sequence[str]) -> int:
        """Prints the plan, or the names of all experiments; returns the exit code."""
        if not self.experiment:
            for name, runs in experiments.EXPERIMENTS.items():
                words = (runs.__doc__ or "").partition("\n")[0]
                print(f"{name:20} {len(runs(self.seeds)):4} runs  {words}")
            return 0
        runs, artefacts = experiments.load(self.experiment, self.seeds), store.Store(self.out)
        cluster = estimate.Cluster.parse(self.cluster or f"{os.cpu_count()}xcpu")
        measured = {}
        if self.measured or (cluster.device == "cpu" and (artefacts.names("plans") or artefacts.names("rehearsal"))):
            measured = _measured(store.Store(self.measured) if self.measured else artefacts, cluster.device)
        classifies = experiments.OUTPUTS[self.experiment].ends == "classify"
        plan = estimate.make(runs, artefacts, cluster=cluster, rates=measured, classifies=classifies)
        show(plan, price=self.price)
        return 0


def _measured(artefacts: store.Store, device: str) -> dict[tuple[str, str], rates.Rate]:
    """Returns the rates of finished units, and of rehearsals on such a device where no unit is finished."""
    finished, rehearsals = rates.measured(artefacts), rehearsed.rates(artefacts, device)
    if others := rehearsed.others(artefacts, device):
        print(f"rehearsed on {', '.join(others)}, which is no {device}: these rates are not used")
    return {**rehearsals, **finished}


def show(plan: Plan, *, price: float = 0.0) -> None:
    """Prints units to do, time, and the source of each rate.

    Args:
        plan: the plan to print.
        price: price of one device-hour; 0: not printed.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("step", "model", "units", "done", "work in all", "a second", "hours left", ""):
        table.add_column(column, overflow="fold")
    sources = dict.fromkeys(_source(line.rate) for line in plan.lines if line.rate and line.todo)
    numbers = {source: f"({k})" for k, source in enumerate(sources, 1)}
    for line in plan.lines:
        name, unit = PLANNED[line.step].title, PLANNED[line.step].counts
        rate = f"{line.rate.per_second:,.3g}" if line.rate else "not known"
        hours = _hours(line.seconds) if line.rate or not line.todo else "not known"
        counts = f"{line.units:,}", f"{line.done:,}", f"{line.size:,} {unit}"
        table.add_row(name, line.model, *counts, rate, hours, numbers.get(_source(line.rate), "") if line.rate else "")
    _print(table)
    for source, number in numbers.items():
        print(f"{number} {source}")
    for step in dict.fromkeys(PLANNED[line.step].step for line in plan.lines):
        print(f"a second of {step}: {STEPS[step].effort}, on one {plan.cluster.device}")
    if plan.stand_ins:
        print(f"not on this machine, so counted as published: {', '.join(plan.stand_ins)}")
    if not plan.captioned:
        print("not all captions are made, so units that depend on them count as to do")
    _show_memory(plan)
    print(_total(plan, price))


def _source(rate: rates.Rate) -> str:
    return f"{rate.basis}: {rate.source}"


def _show_memory(plan: Plan) -> None:
    """Prints what each step needs of a GPU's memory; nothing on CPUs."""
    card = needs.card(plan.cluster.device)
    if card is None or not plan.needs:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("step", "model", "", "images at once", "memory", "of the GPU", "units a GPU"):
        table.add_column(column, overflow="fold")
    for need in plan.needs:
        images = f"{need.images:,}" if need.images == need.batch else f"{need.images:,} of {need.batch:,}"
        images += ", checkpointed" if need.checkpointing else ""
        taken = f"{need.bytes / 1e9:.1f} GB", f"{100 * need.bytes / card.bytes:.0f} %"
        title = "classifiers" if need.step == "classify" else PLANNED[need.step].title
        table.add_row(title, need.model, need.what, images, *taken, str(need.sharing))
    print(
        f"\nmemory on one {card.name}, {card.bytes / 1e9:.1f} GB, {100 * SPARE:.0f} % to spare, counted without a GPU:"
    )
    _print(table)


def _print(table: Table) -> None:
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def _total(plan: Plan, price: float) -> str:
    if math.isnan(plan.wall):
        unknown = [f"{line.step} with {line.model}" for line in plan.lines if line.todo and line.rate is None]
        return (
            f"{plan.runs} runs; how long is not known: no rate of {', '.join(unknown)} on {plan.cluster.device}."
            " Measure it there with `bob rehearse EXPERIMENT --out OUT`, or run something with it, and name its folder:"
            " --measured OUT"
        )
    words = [
        f"{_hours(plan.device_seconds)} device-hours",
        f"{_clock(plan.wall)} from beginning to end",
        f"{console.amount(plan.bytes)} to keep",
        *([f"{plan.device_seconds / 3600 * price:,.2f} at {price:g} for a device-hour"] if price else []),
    ]
    return f"{plan.runs} runs on {plan.cluster.count} x {plan.cluster.device}: {', '.join(words)}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3g}"


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
