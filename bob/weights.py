"""What a folder of weights is known by: part of the key of all that is made with it."""

import hashlib
import os
from pathlib import Path

__all__ = ["fingerprint"]

_END = 2**20  # bytes hashed at each end of a file: 7B weights are 16 GB


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
