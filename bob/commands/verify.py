"""`bob verify`: reads every artefact of a store again and reports faults; changes nothing."""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from bob import store
from bob.commands import checks, console, measured_checks, rehearsed
from bob.commands.snapshot import StoreSnapshot
from bob.store import schema

__all__ = ["Problem", "Verdict", "VerifyCommand", "show", "verify"]

Check = Callable[[StoreSnapshot, str], Iterator[str]]
"""(snapshot, path) -> faults, in words."""

_UNIT = r"[^/]+-[0-9a-f]{16}"
_PART = r"part-(\d{5}|[1-9]\d{5,})"
_FILES = ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors")
"""Files of an adapter, in diffusers' names: `lora.FILE` and `textual_inversion.FILE`, whose modules import torch."""

_KINDS: Mapping[str, Check] = {
    rf"shots/{_UNIT}\.parquet": checks.shots,
    rf"captions/{_UNIT}\.parquet": checks.captions,
    rf"adapters/{_UNIT}(/epoch-\d+)?/manifest\.json": checks.manifest,
    rf"adapters/{_UNIT}(/epoch-\d+)?/({'|'.join(map(re.escape, _FILES))})": checks.weights,
    rf"images/{_UNIT}/requests\.parquet": checks.requests,
    rf"images/{_UNIT}/{_PART}\.parquet": checks.part,
    rf"images/{_UNIT}/{_PART.replace('part', 'scores')}\.parquet": checks.scores,
    rf"features/{_UNIT}\.parquet": measured_checks.features,
    rf"recognised/{_UNIT}\.parquet": measured_checks.recognised,
    rf"((captions|features|recognised)/{_UNIT}|images/{_UNIT}/{_PART})\.rejected\.parquet": checks.quarantine,
    rf"images/{_UNIT}/part-.*": checks.stray,
    rf"results/{_UNIT}/(sweep-\d+|final)\.parquet": checks.results,
    r"suffixes/[^/]+\.txt": checks.text,
    r"tables/([^/]+_)?claims\.parquet": functools.partial(checks.tabulated, kind=schema.CLAIMS),
    r"tables/table7\.parquet": functools.partial(checks.tabulated, kind=schema.OVERLAP),
    r"tables/[^/]+\.parquet": checks.tabulated,
    r"tables/[^/]+\.(csv|md|tex)": checks.text,
    r"tables/[^/]+\.png": checks.picture,
    r"figures/[^/]+\.parquet": measured_checks.measured,
    r"figures/[^/]+\.(svg|pdf)": measured_checks.page,
    rf"{rehearsed.FOLDER}/{_UNIT}\.json": measured_checks.rehearsal,
    r"report\.html": checks.text,
    r"plans/[0-9a-f]{16}-[a-z]+\.parquet": checks.plan,
}
"""Pattern of a path -> check of the file; the first match applies."""

_PASSING = re.compile(
    rf"scratch/.*|logs/.*|claims/[^/]+\.json|adapters/{_UNIT}/state\.pt|results/{_UNIT}/(sweep-\d+|final)\.parquet\.state\.pt"
    r"|(.*/)?\.[^/]+\.tmp|\.probe-[0-9a-f]+|rehearsal/\.weights-.*"
)
"""Files of a run or rehearsal in progress, leftovers of a killed one, and curves, which trackers write."""

_AGAIN = "run the same command again"

_LISTED = 20
"""Most foreign files that are listed; a wrong folder may hold a million."""


@dataclass(frozen=True, kw_only=True)
class VerifyCommand:
    """Reads every file of a folder and names those that are damaged; changes nothing.

    Exit code 0 if all is well, 1 if something is wrong, 2 if there is nothing to read.

        bob verify out
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""

    def main(self, arguments: Sequence[str]) -> int:
        """Prints the verdict; returns the exit code."""
        verdict = verify(store.Store(self.out), report=console.walk)
        show(verdict)
        return 1 if verdict.problems else 0


@dataclass(frozen=True)
class Problem:
    """Fault of one file, and its remedy."""

    path: str
    wrong: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of `bob verify`."""

    checked: int
    """Number of files read."""
    size: int
    """Bytes of the files read."""
    problems: tuple[Problem, ...]
    foreign: tuple[str, ...]
    """Files that bob did not write."""
    passing: tuple[str, ...]
    """Temporary files, and the state of unfinished fine-tunes and classifiers."""


def verify(artefacts: store.Store, *, report: Callable[[Sequence[str]], Iterable[str]] = iter) -> Verdict:
    """Checks every file of a store.

    A file that is not made yet is no fault: the same command makes it.

    Args:
        artefacts: the store; may be in use.
        report: passes the paths on and shows progress.

    Raises:
        ValueError: if the store does not exist, or holds no file of bob.
    """
    files = artefacts.listing()
    kinds = {path: kind for path in sorted(files) if (kind := _kind(path))}
    if not kinds:
        raise ValueError(f"nothing in {artefacts.place()} is ours to verify: name a folder that `bob run` wrote to")
    snapshot = StoreSnapshot(artefacts, files.keys())
    problems = list(_missing(kinds, files))
    for path in report(list(kinds)):
        problems += _problems(kinds[path], snapshot, path)
    others = [path for path in sorted(files) if path not in kinds]
    return Verdict(
        checked=len(kinds),
        size=sum(files[path].size or 0 for path in kinds),
        problems=tuple(problems),
        foreign=tuple(path for path in others if not _PASSING.fullmatch(path)),
        passing=tuple(path for path in others if _PASSING.fullmatch(path)),
    )


def _kind(path: str) -> Check | None:
    if _PASSING.fullmatch(path):
        return None
    return next((kind for pattern, kind in _KINDS.items() if re.fullmatch(pattern, path)), None)


def _problems(check: Check, snapshot: StoreSnapshot, path: str) -> list[Problem]:
    try:
        return [Problem(path, wrong, _mend(path)) for wrong in _wrong(check, snapshot, path)]
    except store.OtherFormatError:  # not damaged, so no advice to delete it
        return [Problem(path, "was written by another version of bob", "use that version, or another --out")]


def _wrong(check: Check, snapshot: StoreSnapshot, path: str) -> Iterator[str]:
    try:
        yield from check(snapshot, path)
    except store.OtherFormatError:
        raise
    except FileNotFoundError:
        return  # a run in progress has removed it since the listing
    except OSError as error:
        yield f"cannot be read ({error})"
    except ValueError as error:
        yield str(error)
    except (KeyError, TypeError) as error:
        yield f"its manifest lacks a field or has one of another type ({error})"


def _mend(path: str) -> str:
    name = path.rpartition("/")[2]
    if path.startswith("adapters/"):  # its manifest marks all saved epochs as done
        return f"delete its folder {'/'.join(path.split('/')[:2])} and {_AGAIN}"
    if ".rejected." in name:
        return f"delete it and {name.replace('.rejected.', '.')}, if that exists, and {_AGAIN}"
    return f"delete it and {_AGAIN}"


def _missing(kinds: Mapping[str, Check], files: Collection[str]) -> Iterator[Problem]:
    """Yields files that are missing though a file that needs them exists."""
    required: dict[str, str] = {}
    for path, kind in kinds.items():
        folder = path.rpartition("/")[0]
        if kind is checks.part:
            required[f"{folder}/requests.parquet"] = _AGAIN
        elif kind is checks.weights and f"{folder}/state.pt" not in files:
            required[f"{folder}/manifest.json"] = _AGAIN
        elif kind is checks.manifest and not any(checks.weights is kinds.get(f"{folder}/{name}") for name in _FILES):
            required[f"{folder}/{_FILES[0]}"] = _mend(path)
    for path, mend in required.items():
        if path not in files:
            yield Problem(path, "is missing", mend)


def show(verdict: Verdict) -> None:
    """Prints a line for each fault and foreign file, and a count."""
    for problem in verdict.problems:
        print(f"{problem.path}: {problem.wrong}: {problem.mend}")
    for path in verdict.foreign[:_LISTED]:
        print(f"not ours: {path}")
    if len(verdict.foreign) > _LISTED:
        print(f"not ours: {len(verdict.foreign) - _LISTED} more")
    wrong = len({problem.path for problem in verdict.problems})
    words = [
        f"{verdict.checked} files verified ({console.amount(verdict.size)})",
        f"{wrong} wrong" if wrong else "all is well",
        *([f"{len(verdict.foreign)} not ours"] if verdict.foreign else []),
        *([f"{len(verdict.passing)} temporary"] if verdict.passing else []),
    ]
    print(", ".join(words))
