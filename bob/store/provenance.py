"""What a manifest says of where an artefact came from: settings, versions, host, seconds."""

import functools
import getpass
import importlib.metadata
import os
import platform
import re
from typing import Any

from bob.core.timing import Stopwatch
from bob.store.keys import plain

__all__ = ["FORMAT", "OtherFormatError", "provenance", "user", "without_keys"]

FORMAT = 1
"""Of what is kept: raised when a table's columns or a folder's files come to mean something else."""

_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "timm", "pyarrow", "numpy", "ray")


def provenance(config: Any, *, times: Stopwatch | None = None) -> dict[str, Any]:
    """What a manifest says of where an artefact came from, and of what it took."""
    return {
        "format": FORMAT,
        "config": plain(config),
        "versions": dict(_versions()),
        "host": platform.node(),
        "user": user(),
        **(times.noted() if times else {}),
    }


@functools.cache  # looking them up takes longer than writing a small table
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def without_keys(text: str) -> str:
    """A text, such as a command line, without the access keys that its URIs may hold."""
    return re.sub(r"://[^/\s]*@", "://", text)


def user() -> str:
    """Who runs this: a name, or a number in a container without names."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user need not have a name
        return str(os.getuid())


class OtherFormatError(ValueError):
    """Whole, but of another version."""
