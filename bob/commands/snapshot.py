"""A store as one listing shows it, and what its checks share."""

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

__all__ = ["StoreSnapshot", "key", "keyed", "match", "once", "rejected", "same", "some", "words"]


@dataclass(frozen=True, eq=False)
class StoreSnapshot:
    """A store as one listing shows it."""

    artefacts: store.Store
    files: Collection[str]

    def table(self, path: str, kind: pa.Schema) -> tuple[pa.Table, dict[str, Any]]:
        """A Parquet file that is whole, and its manifest.

        Raises:
            ValueError: if it is damaged, is no table of this kind, has no manifest or is of another format.
        """
        data = self.artefacts.read(path)
        with words("is no whole Parquet file"):
            found = parquet.parse(data)
            self.artefacts.require_format(path, parquet.manifest(found.schema, default={}))
        with words("is no table of its kind"):
            fitted = tables.fit(found, kind)
        return fitted, parquet.manifest(found.schema)

    def groups(self, path: str) -> parquet.Groups:
        """A Parquet file that may be too long to be held.

        Raises:
            ValueError: if its footer is damaged, it has no manifest or is of another format.
        """
        with words("is no whole Parquet file"):
            found = parquet.Groups(functools.partial(self.artefacts.open, path))
            self.artefacts.require_format(path, parquet.manifest(found.columns, default={}))
        parquet.manifest(found.columns)
        return found


@contextlib.contextmanager
def words(wrong: str) -> Iterator[None]:
    """Puts a few words before what is raised within.

    Raises:
        ValueError: for one that is raised within; of another format as it is, for that is no damage.
    """
    try:
        yield
    except store.OtherFormatError:
        raise
    except ValueError as error:
        raise ValueError(f"{wrong} ({error})") from error


def rejected(held: StoreSnapshot, path: str) -> list[str]:
    """The rows of a unit that stand in its `rejected` file, which is named apart if it is damaged."""
    beside = store.quarantine(path)
    try:
        return held.table(beside, schema.REJECTED)[0]["row_id"].to_pylist() if beside in held.files else []
    except (ValueError, OSError):
        return []


def once(names: Iterable[str]) -> Iterator[str]:
    """No name twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        yield f"holds {some(twice)} more than once"


def match(wanted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    """All of `wanted` once each, and nothing else."""
    there, asked = set(found), set(wanted)
    lost, strange = [name for name in wanted if name not in there], [name for name in found if name not in asked]
    if lost:
        yield f"lacks {some(lost)}: neither there nor rejected"
    if strange:
        yield f"holds {some(strange)}, which it should not"
    yield from once(found)


def some(names: Sequence[str], *, shown: int = 3) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def keyed(path: str, *parts: Any) -> Iterator[str]:
    """These parts have the key in the file's path."""
    yield from same(path, store.key(*parts))


def same(path: str, found: str) -> Iterator[str]:
    """A key that was found is that in the file's path."""
    if found != key(path):
        yield f"what it holds has the key {found}, not that of its name: it was changed or moved"


def key(path: str) -> str:
    """The last one in a path: of the file, or of its folder."""
    return re.findall(r"(?<![0-9a-f])[0-9a-f]{16}(?=[/.-])", path)[-1]
