"""`bob run`: does the steps of an experiment, or of one run, and prints the resulting table or figure."""

import dataclasses
import functools
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from bob import cluster, pipeline, store
from bob.commands import console, devices, submit
from bob.core.settings import Run
from bob.core.types import Outcome
from bob.paper import experiments, outputs
from bob.pipeline.outcomes import outcomes as resolved
from bob.steps import workers
from bob.store import lock

__all__ = ["RunCommand"]

_SHARES = cluster.Resources()


@dataclass(frozen=True, kw_only=True)
class RunCommand:
    """Runs an experiment by name, or one run described by flags, and prints its table.

    The same command resumes: finished units are not done again.

        bob run skyworld --out out
        bob run --dataset folder:/data/mushrooms --descriptor mushroom --shots 5 --out out
    """

    experiment: tyro.conf.Positional[str] = ""
    """Name of an experiment, as skyworld or smoke; empty: the single run that the flags below describe."""
    out: str = "out"
    """Store of all outputs: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    inline: bool = False
    """Do everything in this process, without Ray; gives the same numbers."""
    device: str = "auto"
    """Device for --inline: cpu or cuda; auto takes a GPU if there is one."""
    seeds: tuple[int, ...] = ()
    """Seeds of an experiment's runs [0]."""
    max_rejected: int = 0
    """Rows that may be quarantined before the command fails."""
    upto: Literal["caption", "finetune", "generate", "classify"] = "classify"
    """Last step to do; the steps before it are done too, and tables are made after `classify`."""
    at_once: int = 0
    """Number of data sets and seeds that go through the steps concurrently, so that a step's last units leave no device
    idle; 0: on a cluster one for every four GPUs that it has or can start, elsewhere 1."""
    table_only: bool = False
    """Only make the table of the finished runs, marking missing cells; allowed while another command runs."""
    figure_class: str = ""
    """Class that figure3 shows, its files named after it [737-400, or the first class]."""
    submit: str = ""
    """Address of a cluster's dashboard, as http://127.0.0.1:8265, to run this command there as a job."""
    log: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Tracker that receives the curves of all trainings: TensorBoard or MLflow in `out`/logs, MLflow at
    MLFLOW_TRACKING_URI if that is set, or Weights & Biases. Each epoch then takes 0.4 s more."""
    resources: cluster.Resources = _SHARES
    run: Annotated[Run, tyro.conf.arg(name="")]
    """Settings of the single run, if no experiment is named."""

    def main(self, arguments: Sequence[str]) -> int:
        """Runs the command, in this process or as a job; returns the exit code."""
        self._refuse_ineffective(arguments)
        if not self.submit:
            return _run(self, arguments)
        _runs(self)  # refuses an unknown experiment before anything is sent
        identity = dataclasses.replace(self, submit="")
        title = self.experiment or self.run.method
        return submit.submit(arguments, address=self.submit, out=self.out, title=title, identity=identity)

    def _refuse_ineffective(self, arguments: Sequence[str]) -> None:
        """Raises a `ValueError` for a flag that would have no effect."""
        if self.seeds and not self.experiment:
            raise ValueError("--seeds is for experiments: name one, or give the one run its --seed")
        uses_ray = self.submit or self.log != "none" or self.at_once > 1 or self.resources != _SHARES
        if self.inline and uses_ray:
            raise ValueError(
                "--inline does everything in this process, so --submit, --log, --at-once and --resources are not for it"
            )
        flags = {
            flag[2:].partition("=")[0].partition(".")[0].replace("-", "_") for flag in arguments if flag[:2] == "--"
        }
        ineffective = sorted(flags & {field.name for field in dataclasses.fields(Run)})
        if self.experiment and ineffective:
            raise ValueError(
                f"experiment {self.experiment!r} sets its own runs, so --{ineffective[0]} changes nothing: leave it"
                " out, or name no experiment and describe the one run by flags"
            )


def _run(command: RunCommand, arguments: Sequence[str]) -> int:
    start = time.monotonic()
    if cluster.in_job():
        submit.require_shared(command.out)
    runs, artefacts = _runs(command), store.Store(command.out)
    if command.table_only:
        if _output(command).ends != "classify":
            raise ValueError(f"{command.experiment} is no table of trainings: leave out --table-only")
        _show(command, resolved(runs, artefacts), artefacts)
        return 0
    if command.inline and any(run.sweep.search == "asha" for run in runs):
        raise ValueError("--sweep.search asha compares trainings as they run, which is Ray's part: leave out --inline")
    note = store.without_keys(shlex.join(["bob", *arguments]))
    if command.log != "none":
        cluster.require(command.log, artefacts)
    if command.at_once < 0:
        raise ValueError(f"--at-once must be 0 or more, got {command.at_once}")
    output, executor = _output(command), _executor(command, note)
    pipeline.check(runs, artefacts=artefacts, max_rejected=command.max_rejected)  # before the lock is written
    with lock.lock(artefacts, note):
        options: Any = {"artefacts": artefacts, "executor": executor, "report": console.report}
        options["max_rejected"] = command.max_rejected
        upto = min(command.upto, output.ends, key=pipeline.UPTO.index)
        at_once = 1 if command.inline else cluster.at_once(command.at_once, command.resources, note)
        outcomes = pipeline.execute(runs, upto=upto, at_once=at_once, **options)
        if upto == output.ends:
            pipeline.measure(output.units(outcomes, artefacts), runs=runs, **options)
            _show(command, outcomes, artefacts)
    print(f"done in {time.monotonic() - start:.0f} s")
    return 0


def _show(command: RunCommand, outcomes: Sequence[Outcome], artefacts: store.Store) -> None:
    name = command.experiment or store.slug(f"{outcomes[0].dataset} {command.run.method}")
    print()
    _output(command).show(outcomes, artefacts, name)
    print(f"\ntables and figures: {artefacts.place()}")


def _output(command: RunCommand) -> outputs.Output:
    output = experiments.OUTPUTS.get(command.experiment, outputs.Table())
    if not command.figure_class:
        return output
    if not isinstance(output, outputs.Figure):
        raise ValueError("--figure-class is for figure3 and its twins: leave it out")
    return output.showing(command.figure_class, _runs(command))


def _runs(command: RunCommand) -> list[Run]:
    if command.experiment:
        return experiments.load(command.experiment, command.seeds or (0,))
    return [command.run]


def _executor(command: RunCommand, note: str) -> pipeline.Executor:
    if command.inline:
        return workers.inline(devices.find(command.device))
    return functools.partial(cluster.execute, resources=command.resources, note=note, log=command.log)
