"""What a training resumes from: bytes that know whether they are whole and whose they are."""

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["Save", "pack", "unpack"]

Save = Callable[[int, bytes], None]
"""(steps or epochs done, state) -> nothing; keeps the state for a later attempt."""

_DIGEST = hashlib.sha256().digest_size


def pack(identity: str, held: Mapping[str, Any]) -> bytes:
    """Tensors and plain data as bytes.

    Args:
        identity: of the training: its settings and all that its state depends on.
        held: what `torch.load` reads without running code.
    """
    buffer = io.BytesIO()
    torch.save({"identity": identity, "held": dict(held)}, buffer)
    body = buffer.getvalue()
    return hashlib.sha256(body).digest() + body


def unpack(state: bytes | None, identity: str, *, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """What was packed, its tensors on the CPU.

    Args:
        state: what `pack` made, or None.
        identity: of the training that is to go on.
        tell: shows a line where there is a state that cannot be used.

    Returns:
        None where there is nothing to resume from: no state, a damaged one, or another training's.
    """
    if state is None:
        return None
    # Most damage torch.load does not notice, and reads other numbers.
    if hashlib.sha256(state[_DIGEST:]).digest() != state[:_DIGEST]:
        tell("the state to resume from is damaged, or of another version: starts from the beginning")
        return None
    found = torch.load(io.BytesIO(state[_DIGEST:]), weights_only=True, map_location="cpu")
    if found["identity"] != identity:
        tell("the state to resume from is that of another training: starts from the beginning")
        return None
    return found["held"]
