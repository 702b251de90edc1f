"""Files of rehearsals below a store's `rehearsal/`: what was measured, and the rates that `bob plan` takes from it.

A file for each step, model and device; the latest rehearsal replaces it. No run reads these files.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bob import store
from bob.commands.rates import Rate

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["FOLDER", "Rehearsal", "Trial", "is_of", "others", "rates", "read", "write"]

FOLDER = "rehearsal"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Measurement of one kind of work."""

    kind: str
    """What distinguishes it from other work of the step with the same model, as `new words`; may be empty."""
    label: str
    """The unit of the experiment that was cut to a few batches."""
    planned: float
    """Work of this kind in the whole experiment, in the effort of `step_table.STEPS`."""
    work: float
    """Work that was timed, in the same effort."""
    seconds: float
    """Time that it took, without loading and warm-up."""
    images: int
    """Images of a batch or of an optimiser step."""
    bytes: int
    """Peak memory: on a GPU what torch had allocated, on a CPU the resident set of the process."""
    predicted: int
    """Peak bytes of tensors by `bob.core.memory`; 0 where that does not know the model."""
    flops: float
    """Floating-point operations of one unit of effort, counted in one of the batches, with those that gradient
    checkpointing repeats."""
    precision: str
    """Of the arithmetic: float32, tf32, bfloat16 or float16."""
    peak: float
    """FLOP/s of the device in this precision: of a GPU from its data sheet, of a CPU measured on a matrix product; 0
    if not known."""
    note: str = ""
    """What deviated, in a few words."""

    @property
    def per_second(self) -> float:
        """Rate in the effort of `step_table.STEPS`."""
        return self.work / self.seconds

    @property
    def share(self) -> float:
        """FLOP/s as a fraction of the device's peak; NaN if that is not known."""
        return self.flops * self.per_second / self.peak if self.peak else math.nan


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A step with one model on one device."""

    step: str
    """One of `step_table.STEPS`."""
    model: str
    """As `rates.amount` names it."""
    device: str
    """`cpu`, or the name that a GPU gives itself."""
    random: bool
    """Whether the weights were random ones of the same architecture."""
    experiment: str
    trials: tuple[Trial, ...]

    @property
    def per_second(self) -> float:
        """Rate over all kinds of work, in the experiment's proportions."""
        return sum(t.planned for t in self.trials) / sum(t.planned / t.per_second for t in self.trials)


def write(rehearsal: Rehearsal, artefacts: store.Store) -> None:
    """Writes a rehearsal, in place of an earlier one of the same step, model and device."""
    artefacts.write_json(_path(rehearsal), store.provenance(dataclasses.asdict(rehearsal)))


def _path(rehearsal: Rehearsal) -> str:
    name = rehearsal.device, rehearsal.step, rehearsal.model
    return f"{FOLDER}/{store.slug(' '.join(name))}-{store.key(*name)}.json"


def read(path: str, artefacts: store.Store) -> Rehearsal:
    """Reads one file of `FOLDER`.

    Raises:
        ValueError: if it is damaged or of another version; says which file, and what to do.
    """
    content = artefacts.manifest(path)
    try:
        return _adapter().validate_python(content.get("config"))
    except ValueError as error:
        raise ValueError(f"{artefacts.place(path)} holds no rehearsal: delete it and rehearse again") from error


@functools.cache
def _adapter() -> "TypeAdapter[Rehearsal]":
    from pydantic import TypeAdapter

    return TypeAdapter(Rehearsal)


def _all(artefacts: store.Store) -> list[Rehearsal]:
    names = [name for name in artefacts.names(FOLDER) if name.endswith(".json")]
    return [read(f"{FOLDER}/{name}", artefacts) for name in names]


def rates(artefacts: store.Store, device: str) -> Mapping[tuple[str, str], Rate]:
    """Returns (step, model) -> rate, from the rehearsals on devices of one kind.

    Args:
        artefacts: the store.
        device: as `bob plan --cluster` names it: `cpu`, `H100`.

    Raises:
        ValueError: if a file is damaged.
    """
    return {
        (r.step, r.model): Rate(per_second=r.per_second, basis="measured", source=_source(r, artefacts))
        for r in _all(artefacts)
        if is_of(r.device, device)
    }


def others(artefacts: store.Store, device: str) -> list[str]:
    """Returns the devices of rehearsals that `rates` does not take."""
    return sorted({r.device for r in _all(artefacts) if not is_of(r.device, device)})


def _source(rehearsal: Rehearsal, artefacts: store.Store) -> str:
    weights = ", with random weights" if rehearsal.random else ""
    return f"rehearsed in {artefacts.place()} on {rehearsal.device}{weights}"


def is_of(name: str, device: str) -> bool:
    """Whether a GPU that calls itself `name` is a `device`: `NVIDIA A100-SXM4-80GB` is an `A100` and an `A100-80`."""
    words = re.findall(r"[A-Z0-9]+", name.upper())
    known = {*words, *(word.removesuffix("GB") for word in words), *map("".join, itertools.pairwise(words))}
    return known.issuperset(device.upper().split("-"))
