"""Snapshot of a store's listing, and helpers of `bob verify`."""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bob import store
from bob.store import parquet, schema, tables

__all__ = [
    "StoreSnapshot",
    "check_ids",
    "check_key",
    "check_key_of",
    "check_unique",
    "first_few",
    "key",
    "prefix_errors",
    "rejected",
]


@dataclass(frozen=True, eq=False)
class StoreSnapshot:
    """Store with one listing of its files."""

    artefacts: store.Store
    files: Collection[str]

    def table(self, path: str, kind: pa.Schema) -> tuple[pa.Table, dict[str, Any]]:
        """Returns a Parquet file as a table of one schema, and its manifest.

        Raises:
            ValueError: if the file is damaged, has another schema, no manifest or another version of the format.
        """
        data = self.artefacts.read(path)
        with prefix_errors("is no whole Parquet file"):
            table = parquet.parse(data)
            self.artefacts.require_format(path, parquet.manifest(table.schema, default={}))
        with prefix_errors("is no table of its kind"):
            fitted = tables.fit(table, kind)
        return fitted, parquet.manifest(table.schema)

    def groups(self, path: str) -> parquet.Groups:
        """Returns the row groups of a Parquet file that may not fit in memory.

        Raises:
            ValueError: if the file's footer is damaged, has no manifest or another version of the format.
        """
        with prefix_errors("is no whole Parquet file"):
            groups = parquet.Groups(functools.partial(self.artefacts.open, path))
            self.artefacts.require_format(path, parquet.manifest(groups.columns, default={}))
        parquet.manifest(groups.columns)
        return groups


@contextlib.contextmanager
def prefix_errors(prefix: str) -> Iterator[None]:
    """Puts a prefix before the message of a `ValueError` raised inside the context.

    Raises:
        ValueError: with the prefix; `OtherFormatError` passes unchanged, because it means no damage.
    """
    try:
        yield
    except store.OtherFormatError:
        raise
    except ValueError as error:
        raise ValueError(f"{prefix} ({error})") from error


def rejected(snapshot: StoreSnapshot, path: str) -> list[str]:
    """Returns the ids in a unit's `rejected` file; none if the file is damaged, which its own check reports."""
    quarantine = store.quarantine(path)
    if quarantine not in snapshot.files:
        return []
    try:
        return snapshot.table(quarantine, schema.REJECTED)[0]["row_id"].to_pylist()
    except (ValueError, OSError):
        return []


def check_unique(names: Iterable[str]) -> Iterator[str]:
    """Checks that no name occurs twice."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        yield f"holds {first_few(repeated)} more than once"


def check_ids(expected: Sequence[str], actual: Sequence[str]) -> Iterator[str]:
    """Checks that `actual` has each of the `expected` names once, and no other."""
    expected_set, actual_set = set(expected), set(actual)
    missing = [name for name in expected if name not in actual_set]
    surplus = [name for name in actual if name not in expected_set]
    if missing:
        yield f"lacks {first_few(missing)}: neither there nor rejected"
    if surplus:
        yield f"holds {first_few(surplus)}, which it should not"
    yield from check_unique(actual)


def first_few(names: Sequence[str], *, shown: int = 3) -> str:
    """Returns the first `shown` names, and the number of the others."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def check_key_of(path: str, *parts: Any) -> Iterator[str]:
    """Checks that these parts have the key in the file's path."""
    yield from check_key(path, store.key(*parts))


def check_key(path: str, actual: str) -> Iterator[str]:
    """Checks that the key of a file's content is the one in its path."""
    if actual != key(path):
        yield f"its content has the key {actual}, not that of its name: it was changed or moved"


def key(path: str) -> str:
    """Returns the last key in a path: that of the file, or of its folder."""
    return re.findall(r"(?<![0-9a-f])[0-9a-f]{16}(?=[/.-])", path)[-1]
