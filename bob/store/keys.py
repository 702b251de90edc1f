"""What a work unit is known by: a hash of all that it depends on."""

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

_END = 2**20  # bytes hashed at each end of a file: 7B weights are 16 GB
_ROWS = 1 << 10  # as Python's objects at once: of more, its garbage collector takes longer than all else


def key(*parts: Any) -> str:
    """The identity of a work unit: 16 hex digits of the SHA-256 of what it depends on.

    Args:
        parts: dataclasses, mappings, sequences and scalars; never paths or times.
    """
    return hashlib.sha256(_json([plain(part) for part in parts])).hexdigest()[:16]


def key_of_rows(parts: Sequence[Any], pieces: Iterable[pa.Table]) -> str:
    """`key(*parts, rows)` where the rows, in pieces, are too many to be held."""
    digest = hashlib.sha256(_json([plain(part) for part in parts])[:-1])
    before = b",[" if parts else b"["
    for piece in pieces:
        for batch in piece.to_batches(_ROWS):
            if len(batch):
                digest.update(before + _json(batch.to_pylist())[1:-1])
                before = b","
    digest.update(b"]]" if before == b"," else before + b"]]")
    return digest.hexdigest()[:16]


def _json(plain: Any) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON's own types; tuples become lists.

    Raises:
        TypeError: for anything else, which has no place in a key or manifest.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f for f in dataclasses.fields(value) if not _is_left_out(f, value)]
        return {"": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields}}
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"cannot be part of a key or manifest: {type(value).__name__} {value!r}")


def _is_left_out(field: dataclasses.Field, value: Any) -> bool:
    return field.metadata == OMIT_AT_DEFAULT and getattr(value, field.name) == field.default


def slug(text: str) -> str:
    """A short name for a path: letters, digits and dashes. Not unique, a key stands beside it."""
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
    return "-".join(part for part in safe.split("-") if part)[-48:].lstrip("-") or "x"


def fingerprint(folder: Path) -> str:
    """12 hex digits of the names, sizes and both ends of all JSON and safetensors files, wherever the folder lies."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ("*.json", "*.safetensors") for path in folder.rglob(pattern)):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END))
            file.seek(-min(_END, path.stat().st_size), os.SEEK_END)
            digest.update(file.read())
    return digest.hexdigest()[:12]
