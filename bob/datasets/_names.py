"""Class names out of what people call folders and labels."""

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["by_class", "natural"]


def by_class(labels: Iterable[str], *, where: object, what: str) -> dict[str, str]:
    """Class name -> label, in natural order (`2` before `10`); `_` is read as a blank.

    Args:
        labels: each once.
        where: and
        what: they are, for errors.

    Raises:
        ValueError: if a label gives no name, or two give the same, capitals apart: text encoders read none.
    """
    named: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for label in labels:
        # File systems disagree on how an accent is spelt; the seed of a class must not.
        name = " ".join(unicodedata.normalize("NFC", label).replace("_", " ").split())
        if not name or not name.isprintable():
            raise ValueError(
                f"{where}: {what} {label!r} gives no class name that can stand in a prompt: rename the {what}"
            )
        twin = spelled.setdefault(name.lower(), label)
        if twin != label:  # !a shows how two names differ that look the same
            raise ValueError(f"{where} has two {what}s for class {name!r}, {twin!a} and {label!a}: rename one")
        named[name] = label
    return {name: named[name] for name in sorted(named, key=natural)}


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that reads digits as numbers."""
    pieces = re.split(r"(\d+)", name.casefold())
    return [int(p) if k % 2 else p for k, p in enumerate(pieces)], name
