"""Serialised state of a training, with a checksum and the identity of the training that may resume from it."""

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["Save", "pack", "unpack"]

Save = Callable[[int, bytes], None]
"""(steps or epochs done, state) -> None; stores the state for a later attempt."""

_DIGEST = hashlib.sha256().digest_size


def pack(identity: str, content: Mapping[str, Any]) -> bytes:
    """Serialises tensors and plain data.

    Args:
        identity: hash of the training's settings and of all else that its state depends on.
        content: tensors and plain data, which `torch.load` reads without running code.
    """
    buffer = io.BytesIO()
    torch.save({"identity": identity, "held": dict(content)}, buffer)
    body = buffer.getvalue()
    return hashlib.sha256(body).digest() + body


def unpack(state: bytes | None, identity: str, *, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Content of a packed state, its tensors on the CPU.

    Args:
        state: bytes that `pack` returned, or None.
        identity: that of the training that is to resume.
        tell: called with a line to show if there is a state that cannot be used.

    Returns:
        None if there is nothing to resume from: no state, a damaged one, or another training's.
    """
    if state is None:
        return None
    # torch.load does not notice most damage, and reads other numbers.
    if hashlib.sha256(state[_DIGEST:]).digest() != state[:_DIGEST]:
        tell("the state to resume from is damaged, or of another version: starts from the beginning")
        return None
    packed = torch.load(io.BytesIO(state[_DIGEST:]), weights_only=True, map_location="cpu")
    if packed["identity"] != identity:
        tell("the state to resume from is that of another training: starts from the beginning")
        return None
    return packed["held"]
