"""What `bob` is told: a dataclass for each of its commands, and how a command line becomes one."""

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from bob import cluster, export
from bob.core.settings import Run
from bob.paper import experiments

__all__ = [
    "Command",
    "DoctorCommand",
    "ExportCommand",
    "MethodsCommand",
    "PlanCommand",
    "ReportCommand",
    "RunCommand",
    "StatusCommand",
    "VerifyCommand",
    "parse",
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
    at_once: int = 0
    """Data sets and seeds that go through the steps side by side, so that a step's last units leave no device idle;
    0: on a cluster one for every four GPUs that it has or can start, elsewhere 1."""
    table_only: bool = False
    """Make nothing but the table of what is there, marking what is missing; while another command is at work, too."""
    submit: str = ""
    """Run this command as a job of a cluster, by the address of its dashboard: http://127.0.0.1:8265."""
    log: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Who is shown the curves of all trainings as they come: TensorBoard and MLflow in `out`/logs, or MLflow where
    MLFLOW_TRACKING_URI says, or Weights & Biases. Each epoch then takes 0.4 s more."""
    resources: cluster.Resources = _SHARES
    run: Annotated[Run, tyro.conf.arg(name="")]
    """The one run, where no experiment is named."""


@dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """Tells what an experiment costs, without running it: units to do and done, device-hours, time, storage, price.

    bob plan table1 --cluster 8xH100 --price 3
    bob plan skyworld --out out                        this machine, by what it has measured in out
    """

    experiment: tyro.conf.Positional[str] = ""
    """table1, skyworld ...; empty: all that can be run by name are listed."""
    cluster: str = ""
    """Number and kind of devices, as in 8xH100: H100, A100, A10G, V100, T4 or cpu; empty: this machine's CPUs."""
    price: float = 0.0
    """Of one device for an hour; 0: no price is shown."""
    seeds: tuple[int, ...] = (0,)
    """The runs' seeds."""
    out: str = "out"
    """The --out of `bob run`, for what is done already; need not be there."""
    measured: str = ""
    """A folder whose finished units tell how fast devices of this kind are; empty: `out` itself, for cpu."""


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


Command = (
    RunCommand
    | PlanCommand
    | StatusCommand
    | VerifyCommand
    | ReportCommand
    | ExportCommand
    | DoctorCommand
    | MethodsCommand
)


def parse(arguments: list[str]) -> Command:
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
        | Annotated[PlanCommand, tyro.conf.subcommand("plan")]
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
    on_ray = command.submit or command.log != "none" or command.at_once > 1 or command.resources != _SHARES
    if command.inline and on_ray:
        raise ValueError(
            "--inline does everything in this process, so --submit, --log, --at-once and --resources are not for it"
        )
    flags = {flag[2:].partition("=")[0].partition(".")[0].replace("-", "_") for flag in arguments if flag[:2] == "--"}
    idle = sorted(flags & {field.name for field in dataclasses.fields(Run)})
    if command.experiment and idle:
        raise ValueError(
            f"experiment {command.experiment!r} sets its own runs, so --{idle[0]} changes nothing: leave it out, or"
            " name no experiment and describe the one run by flags"
        )
