"""Command line of bob: parses arguments and runs one command. A `ValueError` ends in one sentence and exit code 2."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from bob.commands.doctor import DoctorCommand
from bob.commands.export import ExportCommand
from bob.commands.methods import MethodsCommand
from bob.commands.plan import PlanCommand
from bob.commands.rehearse import RehearseCommand
from bob.commands.report import ReportCommand
from bob.commands.run import RunCommand
from bob.commands.status import StatusCommand
from bob.commands.verify import VerifyCommand
from bob.steps.defaults import defaults

__all__ = ["main", "parse"]

Command = (
    RunCommand
    | PlanCommand
    | RehearseCommand
    | StatusCommand
    | VerifyCommand
    | ReportCommand
    | ExportCommand
    | DoctorCommand
    | MethodsCommand
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command `bob` and ends the process.

    Args:
        arguments: command-line arguments; by default those of the process.
    """
    received = signal.SIGINT

    def terminate(number: int, frame: Any) -> None:
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt  # Ray's blocking calls pass this exception on

    signal.signal(signal.SIGTERM, terminate)  # `ray job stop` sends it, and kills 3 seconds later
    argv = sys.argv[1:] if arguments is None else list(arguments)
    try:
        sys.exit(parse(argv).main(argv))
    except ValueError as error:
        print(f"bob: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bob: stopped: all that is complete is kept, and the same command resumes", file=sys.stderr)
        sys.exit(128 + received)


def parse(arguments: list[str]) -> Command:
    """Returns the command that the arguments describe.

    The checkpoint, method and backbone set the defaults of a run's other settings, so these flags are parsed first.
    """
    run = tyro.conf.subcommand("run")
    if arguments[:1] == ["run"]:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        models = {"checkpoint": "skyworld", "backbone": "resnet_mini", "captioner": "qwen_vl:skyworld"}
        for name, value in {**models, "method": "bob"}.items():  # tyro reports a missing value
            parser.add_argument(f"--{name}", default=value, const=value, nargs="?")
        known, _ = parser.parse_known_args(arguments)
        run = tyro.conf.subcommand("run", default=RunCommand(run=defaults(**vars(known))))
    commands: Any = (
        Annotated[RunCommand, run]
        | Annotated[PlanCommand, tyro.conf.subcommand("plan")]
        | Annotated[RehearseCommand, tyro.conf.subcommand("rehearse")]
        | Annotated[StatusCommand, tyro.conf.subcommand("status")]
        | Annotated[VerifyCommand, tyro.conf.subcommand("verify")]
        | Annotated[ReportCommand, tyro.conf.subcommand("report")]
        | Annotated[ExportCommand, tyro.conf.subcommand("export")]
        | Annotated[DoctorCommand, tyro.conf.subcommand("doctor")]
        | Annotated[MethodsCommand, tyro.conf.subcommand("methods")]
    )
    description = "`bob COMMAND --help` lists the flags of each."
    return tyro.cli(commands, args=arguments, prog="bob", description=description)


def _one_line(text: str) -> str:
    """Escapes line ends and control characters, which names of files and classes may contain."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    main()
