"""Waits of the CPU for a pretended GPU, with their places in the code."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.paths import ROOT

__all__ = ["Wait", "place"]

_OWN = ("installed.py", "numberless_gpu.py", "pretended_gpu.py", "waits.py")
"""Files of the pretence, which are no place in the code."""


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A wait of the CPU for the GPU."""

    operation: str
    """The operator, or the function that copies."""
    place: str
    """`FILE:LINE` of the innermost caller in this repository."""
    functions: tuple[str, ...]
    """Callers in this repository by qualified name, the innermost first."""
    library: str = ""
    """`FILE:LINE` of a library between them and torch; empty: this repository calls torch itself."""


def place() -> dict[str, Any]:
    """Fields of `Wait` for the present place in the program."""
    frame, functions, innermost, library = sys._getframe(2), [], "", ""
    while frame is not None:
        file = frame.f_code.co_filename
        ours = file.startswith(str(ROOT)) and Path(file).name not in _OWN
        if ours:
            functions.append(frame.f_code.co_qualname)
            innermost = innermost or f"{Path(file).relative_to(ROOT)}:{frame.f_lineno}"
        elif not innermost and not library and "site-packages" in file and "/torch/" not in file:
            library = f"{file.rpartition('site-packages/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return {"place": innermost, "functions": tuple(functions), "library": library}
