"""`bob rehearse`: measures one unit of each step and model of an experiment, cut to a few batches, on this machine."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from bob import cluster, store
from bob.commands import devices, rehearsed, submit
from bob.commands.rehearse import report
from bob.commands.rehearse.kinds import Kind, kinds
from bob.commands.rehearsed import Rehearsal, Trial
from bob.core import malloc
from bob.paper import experiments

__all__ = ["RehearseCommand", "rehearse"]

_WEIGHTS = ".weights-"
"""How the folders of random weights begin."""
_STALE = 86_400.0
"""Seconds after which such a folder is no longer in use."""


@dataclass(frozen=True, kw_only=True)
class RehearseCommand:
    """Measures what an experiment costs on this machine before it runs: a few batches of each step and model, at their
    real size.

    Random weights of the same architecture stand in for missing ones, and noise for missing pictures. They cost the
    same, but for a captioner, whose random answers are as long as answers may be. `bob plan EXPERIMENT --cluster 8xH100
    --measured OUT` then reckons with the measured rates.

        bob rehearse table1 --out out
        bob rehearse skyworld --out out --device cpu
    """

    experiment: tyro.conf.Positional[str]
    """Name of an experiment, as table1 or skyworld."""
    out: str = "out"
    """Store that receives the measurements, below rehearsal/: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    device: str = "auto"
    """Device to measure: cpu, of which one thread computes, or cuda; auto takes a GPU if there is one."""
    seconds: float = 5.0
    """Least time that each measurement takes, after one or two batches that are not timed."""

    def main(self, arguments: Sequence[str]) -> int:
        """Measures, prints a table and writes the rates; returns the exit code."""
        if not self.seconds > 0:
            raise ValueError(f"--seconds must be positive, got {self.seconds}")
        if cluster.in_job():
            submit.require_shared(self.out)
        start, runs, artefacts = time.monotonic(), experiments.load(self.experiment, (0,)), store.Store(self.out)
        artefacts.require_writable()
        found = kinds(runs, artefacts, upto=experiments.OUTPUTS[self.experiment].ends)
        device = devices.find(self.device)
        done = rehearse(found, artefacts, device=device, seconds=self.seconds, experiment=self.experiment)
        if not done:
            raise ValueError(f"nothing of {self.experiment} could be rehearsed on this machine: see the lines above")
        report.show(done)
        print(f"rehearsed in {time.monotonic() - start:.0f} s; rates for `bob plan --measured {artefacts.place()}`")
        return 0


def rehearse(
    found: Sequence[Kind], artefacts: store.Store, *, device: str, seconds: float, experiment: str
) -> list[Rehearsal]:
    """Measures each kind of work and writes the rates; prints a line for each, also for those that fail.

    Random weights are deleted at the end. They and the rates lie below `rehearsal/`, which no run reads.

    Args:
        found: the kinds of work of an experiment.
        artefacts: the store of the rates.
        device: torch's name of the device.
        seconds: least time of each measurement.
        experiment: name of the experiment.
    """
    with malloc.importing():
        from bob.commands.rehearse.meter import device_name, one_thread
    done: list[Rehearsal] = []
    groups: dict[tuple[str, str], list[Kind]] = {}
    for kind in found:
        groups.setdefault((kind.step, kind.model), []).append(kind)
    with _scratch(artefacts) as folder, one_thread(device):
        for (step, model), group in groups.items():
            measured = list(_measured(group, Path(folder), device=device, seconds=seconds))
            if measured:
                random = any(is_random for _, is_random in measured)
                trials = tuple(trial for trial, _ in measured)
                names = {"step": step, "model": model, "device": device_name(device), "experiment": experiment}
                done.append(Rehearsal(**names, random=random, trials=trials))
                rehearsed.write(done[-1], artefacts)
    return done


def _scratch(artefacts: store.Store) -> tempfile.TemporaryDirectory:
    """Folder of random weights: below the store's `rehearsal/`, or of a bucket in the temporary folder."""
    parent = None
    if "://" not in artefacts.root:
        parent = Path(artefacts.root, rehearsed.FOLDER)
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{_WEIGHTS}*"):  # by a rehearsal that was killed
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=_WEIGHTS, dir=parent)


def _measured(group: Sequence[Kind], folder: Path, *, device: str, seconds: float) -> Iterator[tuple[Trial, bool]]:
    """Yields the measurement of each kind that can be measured, and whether its weights are random."""
    with malloc.importing():
        from bob.commands.rehearse import weights
        from bob.commands.rehearse.trials import forecast, trial
    for kind in group:
        title = report.title(kind.step, kind.model, kind.name)
        print(f"{title}: {kind.unit.label}", flush=True)
        try:
            predicted = forecast(kind, device=device, seconds=seconds)  # before large weights are written
            with weights.ready(kind.step, kind.model, folder=folder, device=device) as random:
                yield trial(kind, device=device, seconds=seconds, predicted=predicted), random
        except Exception as error:  # one that cannot be measured does not keep the others from it
            words = str(error).strip().partition("\n")[0] or type(error).__name__
            print(f"{title}: NOT REHEARSED: {words}", flush=True)
