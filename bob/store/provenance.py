"""Provenance of an artefact for its manifest: settings, versions, host, user, seconds."""

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
"""Version of the store's format: raised when columns or files change their meaning."""

_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "timm", "pyarrow", "numpy", "ray")


def provenance(config: Any, *, times: Stopwatch | None = None) -> dict[str, Any]:
    """Returns a manifest's entries: the artefact's settings, versions, host, user and times."""
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
    """Returns a text, such as a command line, without the access keys in its URIs."""
    return re.sub(r"://[^/\s]*@", "://", text)


def user() -> str:
    """Returns the user's name, or the user id in a container without user names."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a user need not have a name
        return str(os.getuid())


class OtherFormatError(ValueError):
    """A file that is whole, but of another format version."""
