"""Class names from the names of folders and labels."""

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["by_class", "natural"]


def by_class(labels: Iterable[str], *, where: object, what: str) -> dict[str, str]:
    """Class name -> label, in natural order (`2` before `10`); `_` is read as a blank.

    Args:
        labels: distinct labels.
        where: place of the labels, for errors.
        what: what a label is, for errors: `label`, `sub-folder`.

    Raises:
        ValueError: if a label gives no name, or two give the same name but for capitals, which text encoders ignore.
    """
    by_name: dict[str, str] = {}
    by_lower: dict[str, str] = {}
    for label in labels:
        # File systems differ in the Unicode form of accents; the seed of a class must not.
        name = " ".join(unicodedata.normalize("NFC", label).replace("_", " ").split())
        if not name or not name.isprintable():
            raise ValueError(
                f"{where}: {what} {label!r} gives no class name that can stand in a prompt: rename the {what}"
            )
        twin = by_lower.setdefault(name.lower(), label)
        if twin != label:  # !a tells apart names that look the same
            raise ValueError(f"{where} has two {what}s for class {name!r}, {twin!a} and {label!a}: rename one")
        by_name[name] = label
    return {name: by_name[name] for name in sorted(by_name, key=natural)}


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that compares runs of digits as numbers."""
    pieces = re.split(r"(\d+)", name.casefold())
    return [int(p) if k % 2 else p for k, p in enumerate(pieces)], name
