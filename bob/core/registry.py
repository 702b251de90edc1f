"""Registries of methods, data sets, captioners and backbones: a folder each, whose file names are the entries.

`names` lists the entries without importing them, `load` imports one file and returns its object named like the kind
(`bob/methods/bob.py` has `method`, `bob/datasets/cub.py` has `dataset`). So adding an entry is adding one file.
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
"""Kind -> the package whose files are its entries."""


def names(kind: str) -> tuple[str, ...]:
    """Returns the registered names of one kind, sorted, without importing any of them.

    Another package adds names by an entry point in the group `beyond_objects.methods` (`.datasets`, `.captioners`,
    `.backbones`).
    """
    folder = tuple(importlib.import_module(KINDS[kind]).__path__)
    return tuple(sorted({*_files(folder), *_entry_points(kind)}))


def load(kind: str, name: str) -> Any:
    """Returns the object `kind` of the file called `name`.

    Raises:
        ValueError: if the name is unknown; lists the known names and the nearest.
    """
    require(kind, name)
    plugins = _entry_points(kind)
    if name in plugins:
        return plugins[name].load()
    return getattr(importlib.import_module(f"{KINDS[kind]}.{name}"), kind)


def require(kind: str, name: str) -> None:
    """Checks a name without importing its file.

    Raises:
        ValueError: if the name is unknown; lists the known names and the nearest.
    """
    if name not in names(kind):
        raise ValueError(unknown(kind, name, names(kind)))


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Returns the message for an unknown name: the known names, and the nearest of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}; known: {', '.join(known)}.{hint}"


@functools.cache  # called thousands of times for an experiment of 600 runs
def _files(folder: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(folder) if not module.name.startswith("_"))


def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return _scan_packages(kind, tuple(sys.path))


@functools.cache  # a scan takes 50 ms, and an experiment of 600 runs needs thousands
def _scan_packages(kind: str, path: tuple[str, ...]) -> dict[str, importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=f"beyond_objects.{kind}s")
    return {point.name: point for point in points}
