"""A folder is a registry: a file's name is the name of what it holds.

`names` lists without importing, `load` imports one file and takes the object of the folder's own
name from it (`bob/methods/bob.py` holds `method`, `bob/datasets/cub.py` holds `dataset`). So adding
a method, data set, captioner or backbone is adding one file, and nothing else is edited.
"""

import difflib
import functools
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["KINDS", "load", "names", "require", "unknown"]

KINDS = {
    "method": "bob.methods",
    "dataset": "bob.datasets",
    "captioner": "bob.captioners",
    "backbone": "bob.backbones",
}
"""What a registry holds -> the package whose files are its entries."""


def names(kind: str) -> tuple[str, ...]:
    """The registered names of one kind, sorted, without importing any of them.

    A package of someone else adds to them by an entry point in the group `beyond_objects.methods`
    (`.datasets`, `.captioners`, `.backbones`).
    """
    folder = tuple(importlib.import_module(KINDS[kind]).__path__)
    return tuple(sorted({*_files(folder), *_entry_points(kind)}))


def load(kind: str, name: str) -> Any:
    """The object `kind` of the file called `name`.

    Raises:
        ValueError: if there is no such file; lists the known names and the nearest.
    """
    require(kind, name)
    theirs = _entry_points(kind)
    if name in theirs:
        return theirs[name].load()
    return getattr(importlib.import_module(f"{KINDS[kind]}.{name}"), kind)


def require(kind: str, name: str) -> None:
    """Checks a name without importing what it stands for.

    Raises:
        ValueError: if there is no such file; lists the known names and the nearest.
    """
    if name not in names(kind):
        raise ValueError(unknown(kind, name, names(kind)))


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: what there is, and the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}; known: {', '.join(known)}.{hint}"


@functools.cache  # an experiment of 600 runs asks for thousands of names
def _files(folder: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(folder) if not module.name.startswith("_"))


def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return _found(kind, tuple(sys.path))


@functools.cache  # a look at all installed packages takes 50 ms, and an experiment of 600 runs has thousands
def _found(kind: str, path: tuple[str, ...]) -> dict[str, importlib.metadata.EntryPoint]:
    found = importlib.metadata.entry_points(group=f"beyond_objects.{kind}s")
    return {point.name: point for point in found}
