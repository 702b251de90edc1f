"""Strict readers of the text and MATLAB files of published data sets."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bob.datasets._pictures import read_file

__all__ = ["as_published", "matlab", "rows"]


def rows(file: Path, *, columns: int) -> list[list[str]]:
    """The lines of a text file, each split at blanks into `columns` columns; the last may contain blanks.

    Comment lines (`#`) and empty lines are left out, and blanks at a line's ends.

    Raises:
        ValueError: if the file cannot be read, is no UTF-8, or a line has fewer columns; names file and line.
    """
    try:
        lines = read_file(file).decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error.reason}): unpack the official archive again") from error
    cells = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells.append(line.strip().split(maxsplit=columns - 1))
        if len(cells[-1]) < columns:
            raise ValueError(f"{file} line {number} wants {columns} columns, got {line!r}: unpack the archive again")
    return cells


def matlab(file: Path, name: str) -> Any:
    """One variable of a MATLAB file, its empty dimensions squeezed.

    Raises:
        ValueError: if the file cannot be read, is no MATLAB file, or lacks the variable.
    """
    import io

    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return loadmat(io.BytesIO(read_file(file)), squeeze_me=True, variable_names=[name])[name]
    except (MatReadError, KeyError, ValueError, TypeError, NotImplementedError, IndexError) as error:
        raise ValueError(f"{file} is no MATLAB file that holds {name!r} ({error}): unpack the archive again") from error


@contextlib.contextmanager
def as_published(root: Path) -> Iterator[None]:
    """Turns failed look-ups between the files of a data set into a `ValueError`.

    Raises:
        ValueError: if a look-up inside fails; names the root and the key.
    """
    try:
        yield
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{root} is not as published: its files do not agree about {error}. Unpack the official archive again"
        ) from error
