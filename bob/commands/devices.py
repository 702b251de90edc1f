"""The device that a command computes on in its own process."""

from bob.core import registry

__all__ = ["find"]


def find(name: str) -> str:
    """Returns torch's name of a device: `auto` is a GPU if there is one, else the CPU.

    Raises:
        ValueError: if this machine has no such device; lists those that it has.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    known = ["cpu", *["cuda"] * torch.cuda.is_available(), *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    if name not in known:
        raise ValueError(registry.unknown("device", name, [*known, "auto"]))
    return name
