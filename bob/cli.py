"""`bob run`: experiments by name, or one run by its flags. Mistakes end in one sentence and exit code 2."""

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import tyro

from bob import claim, experiments, pipeline, progress, store, tabulate, workers
from bob.settings import Run

__all__ = ["RunCommand", "main"]


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
    run: Annotated[Run, tyro.conf.arg(name="")]
    """The one run, where no experiment is named."""


def main() -> None:
    """The command `bob`."""
    arguments = sys.argv[1:]
    if arguments[:1] != ["run"]:
        print("usage: bob run [EXPERIMENT] [--flags]; `bob run --help` lists them", file=sys.stderr)
        sys.exit(0 if arguments[:1] in (["--help"], ["-h"]) else 2)
    try:
        sys.exit(_run(_parse(arguments[1:])))
    except ValueError as error:
        print(f"bob: {error}", file=sys.stderr)
        sys.exit(2)


def _parse(arguments: list[str]) -> RunCommand:
    """The settings of a run default to those of its checkpoint and backbone, so these are read first."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--checkpoint", default="skyworld")
    first.add_argument("--backbone", default="resnet_mini")
    first.add_argument("--captioner", default="qwen_vl:skyworld")
    known, _ = first.parse_known_args(arguments)
    default = RunCommand(run=experiments.defaults(**vars(known)))
    return tyro.cli(RunCommand, args=arguments, default=default, prog="bob run")


def _run(command: RunCommand) -> int:
    start = time.monotonic()
    runs = experiments.load(command.experiment, command.seeds or (0,)) if command.experiment else [command.run]
    artefacts = store.Store(command.out)
    with claim.claim(artefacts, shlex.join(["bob", *sys.argv[1:]])):
        outcomes = pipeline.execute(
            runs,
            artefacts=artefacts,
            executor=_executor(command),
            report=progress.report,
            max_rejected=command.max_rejected,
        )
        name = command.experiment or store.slug(f"{command.run.dataset} {command.run.method}")
        table = tabulate.write(outcomes, artefacts, name=name)
    print(f"\n{tabulate.markdown(table)}\ntables and pictures: {command.out}/tables")
    print(f"done in {time.monotonic() - start:.0f} s")
    return 0


def _executor(command: RunCommand) -> pipeline.Executor:
    if command.inline:
        return workers.inline(_device(command.device))
    from bob import cluster

    return cluster.execute


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
