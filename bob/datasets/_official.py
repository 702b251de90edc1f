"""The text and MATLAB files of published data sets, read strictly: what is not as published is named."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bob.datasets._pictures import read_file

__all__ = ["as_published", "matlab", "rows"]


def rows(file: Path, *, columns: int) -> list[list[str]]:
    """The lines of a text file, each cut at blanks into its columns; the last may hold blanks itself.

    Comment lines (`#`) and empty ones are left out, and blanks at a line's ends.

    Raises:
        ValueError: if the file cannot be read, is no UTF-8, or a line has fewer columns; names it.
    """
    try:
        lines = read_file(file).decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text ({error.reason}): unpack the official archive again") from error
    made = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        made.append(line.strip().split(maxsplit=columns - 1))
        if len(made[-1]) < columns:
            raise ValueError(f"{file} line {number} wants {columns} columns, got {line!r}: unpack the archive again")
    return made


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
    """Turns a name or number that another file does not know into a sentence.

    Raises:
        ValueError: if a look-up inside fails; names the root and what was looked for.
    """
    try:
        yield
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{root} is not as published: its files do not agree about {error}. Unpack the official archive again"
        ) from error
