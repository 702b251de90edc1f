"""What a work unit is known by: a hash of all that it depends on."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["YOUNGER", "key", "key_of_rows", "plain"]

YOUNGER = {"younger": True}
"""Metadata of a dataclass's field that keys are older than: at its default it is left out of them."""

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
        fields = [
            f for f in dataclasses.fields(value) if not (f.metadata == YOUNGER and getattr(value, f.name) == f.default)
        ]
        return {"": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields}}
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"cannot be part of a key or manifest: {type(value).__name__} {value!r}")


def _is_left_out(field: dataclasses.Field, of: Any) -> bool:
    return field.metadata == YOUNGER and getattr(of, field.name) == field.default
