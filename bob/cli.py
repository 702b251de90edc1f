"""The command `bob`: `bob run`, `bob plan`, `bob report` and others. Mistakes end in one sentence and exit code 2."""

import dataclasses
import functools
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bob import (
    cluster,
    doctor,
    export,
    job,
    methods,
    pipeline,
    plan,
    progress,
    report,
    status,
    store,
    throughput,
    unpack,
    verify,
)
from bob.commands import (
    Command,
    DoctorCommand,
    ExportCommand,
    MethodsCommand,
    PlanCommand,
    ReportCommand,
    RunCommand,
    StatusCommand,
    parse,
)
from bob.core import registry
from bob.core.settings import Run
from bob.core.types import Outcome
from bob.paper import experiments, outputs
from bob.pipeline import outcomes as present
from bob.pipeline import walk
from bob.steps import workers
from bob.store import lock

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `bob`; ends the process.

    Args:
        arguments: by default the command line's.
    """
    ended = signal.SIGINT

    def terminate(number: int, frame: Any) -> None:
        nonlocal ended
        ended = signal.Signals(number)
        raise KeyboardInterrupt  # which Ray, too, hands through from where it waits

    signal.signal(signal.SIGTERM, terminate)  # `ray job stop` sends it, and kills 3 seconds later
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        sys.exit(_do(parse(given), given))
    except ValueError as error:
        print(f"bob: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bob: stopped: all that is complete is kept, and the same command resumes", file=sys.stderr)
        sys.exit(128 + ended)


def _do(command: Command, arguments: Sequence[str]) -> int:
    if isinstance(command, RunCommand):
        if not command.submit:
            return _run(command, arguments)
        _runs(command)  # an unknown experiment is told here
        unsent = dataclasses.replace(command, submit="")
        title = command.experiment or command.run.method
        return job.submit(arguments, address=command.submit, out=command.out, title=title, identity=unsent)
    if isinstance(command, DoctorCommand):
        return _doctor(command)
    if isinstance(command, MethodsCommand):
        methods.show()
        return 0
    if isinstance(command, PlanCommand):
        return _plan(command)
    artefacts = store.Store(command.out)
    if isinstance(command, StatusCommand):
        status.show(status.read(artefacts), artefacts.place())
        return 0
    if isinstance(command, ReportCommand):
        report.show(report.write(artefacts, to=command.to, walk=progress.walk))
        return 0
    if isinstance(command, ExportCommand):
        chosen = export.choose(artefacts, command.wanted)
        number = export.write(chosen, to=command.to, into=command.into, walk=progress.walk)
        print(f"{command.into}: {number:,} images of {artefacts.place(chosen.folder)}")
        return 0
    verdict = verify.verify(artefacts, report=progress.walk)
    verify.show(verdict)
    return 1 if verdict.problems else 0


def _run(command: RunCommand, arguments: Sequence[str]) -> int:
    start = time.monotonic()
    if cluster.in_job():
        job.require_shared(command.out)
    runs, artefacts = _runs(command), store.Store(command.out)
    if command.table_only:
        if _shown(command).ends != "classify":
            raise ValueError(f"{command.experiment} is no table of trainings: leave out --table-only")
        _show(command, present.outcomes(runs, artefacts), artefacts)
        return 0
    if command.inline and any(run.sweep.search == "asha" for run in runs):
        raise ValueError("--sweep.search asha compares trainings as they run, which is Ray's part: leave out --inline")
    words = store.without_keys(shlex.join(["bob", *arguments]))
    if command.log != "none":
        cluster.require(command.log, artefacts)
    if command.at_once < 0:
        raise ValueError(f"--at-once must be 0 or more, got {command.at_once}")
    executor = _executor(command, words)
    pipeline.check(runs, artefacts=artefacts, max_rejected=command.max_rejected)  # before the claim writes
    with lock.claim(artefacts, words):
        how: Any = {"artefacts": artefacts, "executor": executor, "report": progress.report}
        how["max_rejected"] = command.max_rejected
        shown = _shown(command)
        upto = min(command.upto, shown.ends, key=walk.UPTO.index)
        at_once = 1 if command.inline else cluster.at_once(command.at_once, command.resources, words)
        outcomes = pipeline.execute(runs, upto=upto, at_once=at_once, **how)
        if upto == shown.ends:
            pipeline.measure(shown.units(outcomes, artefacts), runs=runs, **how)
            _show(command, outcomes, artefacts)
    print(f"done in {time.monotonic() - start:.0f} s")
    return 0


def _show(command: RunCommand, outcomes: Sequence[Outcome], artefacts: store.Store) -> None:
    name = command.experiment or store.slug(f"{outcomes[0].dataset} {command.run.method}")
    print()
    _shown(command).show(outcomes, artefacts, name)
    print(f"\ntables and figures: {artefacts.place()}")


def _shown(command: RunCommand) -> outputs.Show:
    return experiments.SHOWS.get(command.experiment, outputs.Table())


def _runs(command: RunCommand) -> list[Run]:
    if command.experiment:
        return experiments.load(command.experiment, command.seeds or (0,))
    return [command.run]


def _plan(command: PlanCommand) -> int:
    if not command.experiment:
        for name, runs in experiments.EXPERIMENTS.items():
            words = (runs.__doc__ or "").partition("\n")[0]
            print(f"{name:20} {len(runs(command.seeds)):4} runs  {words}")
        return 0
    runs, artefacts = experiments.load(command.experiment, command.seeds), store.Store(command.out)
    on = plan.Cluster.parse(command.cluster or f"{os.cpu_count()}xcpu")
    rates = {}
    if command.measured:
        rates = throughput.measured(store.Store(command.measured))
    elif on.device == "cpu" and artefacts.names("plans"):
        rates = throughput.measured(artefacts)
    classifies = experiments.SHOWS[command.experiment].ends == "classify"
    made = plan.make(runs, artefacts, cluster=on, rates=rates, classifies=classifies)
    plan.show(made, price=command.price)
    return 0


def _doctor(command: DoctorCommand) -> int:
    if bool(command.unpack) != bool(command.to):
        raise ValueError("--unpack names an archive and --to the folder to unpack it into: give both or neither")
    if command.unpack:
        archive, folder = Path(command.unpack).expanduser(), Path(command.to).expanduser()
        print(f"unpacked into {folder}: {', '.join(unpack.unpack(archive, folder))}")
    else:
        doctor.show(doctor.look())
    return 0


def _executor(command: RunCommand, note: str) -> pipeline.Executor:
    if command.inline:
        return workers.inline(_device(command.device))
    return functools.partial(cluster.execute, resources=command.resources, note=note, log=command.log)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    known = ["cpu", *["cuda"] * torch.cuda.is_available(), *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    if name not in known:
        raise ValueError(registry.unknown("device", name, [*known, "auto"]))
    return name


def _one_line(text: str) -> str:
    """Names of files and classes may hold line ends, and what moves a terminal's cursor: these are shown as written."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    main()
