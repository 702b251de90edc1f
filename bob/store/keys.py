"""Keys of work units: hashes of all that a unit depends on."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bob.core.settings import OMIT_AT_DEFAULT

__all__ = ["fingerprint", "key", "key_of_rows", "plain", "slug"]

_END = 2**20  # bytes hashed at each end of a file: weights of 7B parameters are 16 GB
_ROWS = 1 << 10  # rows as Python objects at once: with more, garbage collection takes longer than all else


def key(*parts: Any) -> str:
    """Returns the key of a work unit: 16 hex digits of the SHA-256 of what it depends on.

    Args:
        parts: dataclasses, mappings, sequences and scalars; never paths or times.
    """
    return hashlib.sha256(_json([plain(part) for part in parts])).hexdigest()[:16]


def key_of_rows(parts: Sequence[Any], tables: Iterable[pa.Table]) -> str:
    """Returns `key(*parts, rows)` for rows that do not fit into memory, given as tables."""
    digest = hashlib.sha256(_json([plain(part) for part in parts])[:-1])
    before = b",[" if parts else b"["
    for table in tables:
        for batch in table.to_batches(_ROWS):
            if len(batch):
                digest.update(before + _json(batch.to_pylist())[1:-1])
                before = b","
    digest.update(b"]]" if before == b"," else before + b"]]")
    return digest.hexdigest()[:16]


def _json(plain: Any) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def plain(value: Any) -> Any:
    """Converts dataclasses, mappings and sequences to JSON's types; tuples become lists.

    Raises:
        TypeError: for any other type, which cannot be part of a key or manifest.
    """
    if value is None or isinstance(value, (str, int, float)):  # first: most of the values by far; a bool is an int
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f for f in dataclasses.fields(value) if not _is_omitted(f, value)]
        return {"": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields}}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"cannot be part of a key or manifest: {type(value).__name__} {value!r}")


def _is_omitted(field: dataclasses.Field, value: Any) -> bool:
    return field.metadata == OMIT_AT_DEFAULT and getattr(value, field.name) == field.default


def slug(text: str) -> str:
    """Returns a short name for a path: letters, digits and dashes. Not unique, so paths add a key."""
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
    return "-".join(part for part in safe.split("-") if part)[-48:].lstrip("-") or "x"


def fingerprint(folder: Path) -> str:
    """Returns 12 hex digits of the hash of the names, sizes and both ends of a folder's JSON and safetensors files."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ("*.json", "*.safetensors") for path in folder.rglob(pattern)):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END))
            file.seek(-min(_END, path.stat().st_size), os.SEEK_END)
            digest.update(file.read())
    return digest.hexdigest()[:12]
