"""The command `bob`: run, status, verify, report, export, methods, doctor. A mistake ends in one sentence, code 2."""

import argparse
import dataclasses
import functools
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bob import (
    claim,
    cluster,
    doctor,
    experiments,
    export,
    job,
    methods,
    pipeline,
    present,
    progress,
    registry,
    report,
    show,
    status,
    store,
    unpack,
    verify,
    workers,
)
from bob.settings import Run
from bob.types import Outcome

__all__ = [
    "DoctorCommand",
    "ExportCommand",
    "MethodsCommand",
    "ReportCommand",
    "RunCommand",
    "StatusCommand",
    "VerifyCommand",
    "main",
]


_SHARES = cluster.Resources()


@dataclass(frozen=True, kw_only=True)
class RunCommand:
    """Runs an experiment by name, or one run described by flags, and prints its table.

    The same command resumes: what exists is not made again.

        bob run skyworld --out out
        bob run --dataset folder:/data/mushrooms --descriptor mushroom --shots 5 --out out
    """

    experiment: tyro.conf.Positional[str] = ""
    """skyworld, smoke ...; empty: the run that the flags below describe."""
    out: str = "out"
    """Where everything is kept: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    inline: bool = False
    """Do everything in this process, without Ray; gives the same numbers."""
    device: str = "auto"
    """With --inline: cpu or cuda; auto takes a GPU where there is one."""
    seeds: tuple[int, ...] = ()
    """Of an experiment: the runs' seeds [0]."""
    max_rejected: int = 0
    """Rows that may be quarantined before the command fails."""
    upto: Literal["caption", "finetune", "generate", "classify"] = "classify"
    """The last step to do, and all before it; tables come after `classify`."""
    table_only: bool = False
    """Make nothing but the table of what is there, marking what is missing; while another command is at work, too."""
    submit: str = ""
    """Run this command as a job of a cluster, by the address of its dashboard: http://127.0.0.1:8265."""
    resources: cluster.Resources = _SHARES
    run: Annotated[Run, tyro.conf.arg(name="")]
    """The one run, where no experiment is named."""


@dataclass(frozen=True, kw_only=True)
class StatusCommand:
    """Shows what of the commands run in a folder is done, to do and rejected.

    Reads listings and Parquet footers, never images.

        bob status out
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""


@dataclass(frozen=True, kw_only=True)
class VerifyCommand:
    """Reads all that a folder holds and names what is damaged; changes nothing.

    Exit code 0 if all is well, 1 if something is wrong, 2 if there is nothing to read.

        bob verify out
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Writes one HTML file with the tables, the figures and the pictures of a folder. It needs no server, no network.

    bob report out
    bob report s3://bucket/out --to report.html
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    to: str = ""
    """The file to write; empty: report.html in the folder itself."""


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Writes one set of drawn images for others: marked as synthetic, with a data card.

    bob export out --method bob --to hf --into birds
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    to: Literal["hf", "imagefolder", "webdataset"]
    """hf: Parquet for `datasets.load_dataset`; imagefolder: CLASS/IMAGE.png; webdataset: tar shards."""
    into: str
    """The folder to write, which is not there yet."""
    wanted: Annotated[export.Wanted, tyro.conf.arg(name="")]
    """Which set, where there are several."""


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Shows which data sets and weights are on this machine, where the others come from, and their licences.

    Unpacks an official archive, all of it or nothing, and nothing outside the folder.

        bob doctor
        bob doctor --unpack images.tar.gz --to /data/oxford-iiit-pet
    """

    unpack: str = ""
    """An archive to unpack: tar, tar.gz, tgz, tar.bz2, tar.xz or zip."""
    to: str = ""
    """The folder to unpack it into."""


@dataclass(frozen=True, kw_only=True)
class MethodsCommand:
    """Lists the methods that --method takes, this package's and those that other packages bring.

    bob methods
    """


Command = RunCommand | StatusCommand | VerifyCommand | ReportCommand | ExportCommand | DoctorCommand | MethodsCommand


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
        sys.exit(_do(_parse(given), given))
    except ValueError as error:
        print(f"bob: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bob: stopped: all that is complete is kept, and the same command resumes", file=sys.stderr)
        sys.exit(128 + ended)


def _parse(arguments: list[str]) -> Command:
    """The settings of a run default to those of its checkpoint, method and backbone, so these are read first."""
    run = tyro.conf.subcommand("run")
    if arguments[:1] == ["run"]:
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        models = {"checkpoint": "skyworld", "backbone": "resnet_mini", "captioner": "qwen_vl:skyworld"}
        for name, value in {**models, "method": "bob"}.items():  # tyro says that a value is missing
            first.add_argument(f"--{name}", default=value, const=value, nargs="?")
        known, _ = first.parse_known_args(arguments)
        run = tyro.conf.subcommand("run", default=RunCommand(run=experiments.defaults(**vars(known))))
    commands: Any = (
        Annotated[RunCommand, run]
        | Annotated[StatusCommand, tyro.conf.subcommand("status")]
        | Annotated[VerifyCommand, tyro.conf.subcommand("verify")]
        | Annotated[ReportCommand, tyro.conf.subcommand("report")]
        | Annotated[ExportCommand, tyro.conf.subcommand("export")]
        | Annotated[DoctorCommand, tyro.conf.subcommand("doctor")]
        | Annotated[MethodsCommand, tyro.conf.subcommand("methods")]
    )
    described = "`bob COMMAND --help` lists the flags of each."
    command = tyro.cli(commands, args=arguments, prog="bob", description=described)
    if isinstance(command, RunCommand):
        _refuse_idle(command, arguments)
    return command


def _refuse_idle(command: RunCommand, arguments: list[str]) -> None:
    """Flags that would change nothing."""
    if command.seeds and not command.experiment:
        raise ValueError("--seeds is for experiments: name one, or give the one run its --seed")
    if command.inline and (command.submit or command.resources != _SHARES):
        raise ValueError("--inline does everything in this process, so --submit and --resources are not for it")
    flags = {flag[2:].partition("=")[0].partition(".")[0].replace("-", "_") for flag in arguments if flag[:2] == "--"}
    idle = sorted(flags & {field.name for field in dataclasses.fields(Run)})
    if command.experiment and idle:
        raise ValueError(
            f"experiment {command.experiment!r} sets its own runs, so --{idle[0]} changes nothing: leave it out, or"
            " name no experiment and describe the one run by flags"
        )


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
        _show(command, present.outcomes(runs, artefacts, upto=_shown(command).ends), artefacts)
        return 0
    if command.inline and any(run.sweep.search == "asha" for run in runs):
        raise ValueError("--sweep.search asha compares trainings as they run, which is Ray's part: leave out --inline")
    words = store.without_keys(shlex.join(["bob", *arguments]))
    executor = _executor(command, words)
    pipeline.check(runs, artefacts=artefacts, max_rejected=command.max_rejected)  # before the claim writes
    with claim.claim(artefacts, words):
        how: Any = {"artefacts": artefacts, "executor": executor, "report": progress.report}
        how["max_rejected"] = command.max_rejected
        shown = _shown(command)
        upto = min(command.upto, shown.ends, key=pipeline.UPTO.index)
        outcomes = pipeline.execute(runs, upto=upto, **how)
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


def _shown(command: RunCommand) -> show.Show:
    return experiments.SHOWS.get(command.experiment, show.Table())


def _runs(command: RunCommand) -> list[Run]:
    if command.experiment:
        return experiments.load(command.experiment, command.seeds or (0,))
    return [command.run]


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
    return functools.partial(cluster.execute, resources=command.resources, note=note)


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
