"""Memory that the steps of a plan need on one kind of GPU, for `bob plan`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bob.cluster import sharing
from bob.commands import rates
from bob.core import memory
from bob.core.memory import Card, Footprint
from bob.core.settings import SweepSettings
from bob.core.types import Tuning, Unit
from bob.diffusion import checkpoints
from bob.steps import caption

__all__ = ["Need", "card", "needs", "trained"]


def card(device: str) -> Card | None:
    """Returns the card of a device in `rates.DEVICES`; None for a CPU."""
    return memory.CARDS.get(rates.CARD_NAMES.get(device, device))


@dataclass(frozen=True, kw_only=True)
class Need:
    """Memory of one step with one model on one card."""

    step: str
    """One of `step_table.STEPS`."""
    model: str
    what: str
    """What tells it from other needs of the step and model, in words: what is trained; may be empty."""
    batch: int
    """Images that the step takes at once if memory allows."""
    images: int
    """Images at once on this card."""
    checkpointing: bool
    """Whether they need gradient checkpointing."""
    bytes: int
    """Peak of one unit, with `images` at once."""
    sharing: int
    """Units that the card does at once, side by side or in lockstep; 1 but for classifiers."""


@dataclass(frozen=True, kw_only=True)
class _Ask:
    """A footprint and what is asked of it."""

    step: str
    model: str
    footprint: Footprint
    batch: int
    most: int = 0
    """Most images of a micro-batch; 0: no micro-batches."""
    what: str = ""
    precision: str = "float32"
    of: int = 0
    """Images of a unit that a GPU draws, more at once than `batch` where its memory takes them; 0: no others."""
    sweep: SweepSettings | None = None
    """Settings of a classifier's training."""


def needs(units: Iterable[Unit], card: Card, classes: Mapping[str, int]) -> tuple[Need, ...]:
    """Returns the needs of units on one card, those alike once; none for models that are not in the memory model.

    Args:
        units: units to do.
        card: the card that each unit has, or shares.
        classes: backbone -> largest number of classes of the runs.

    Raises:
        ValueError: if a step does not fit on the card; names step, model, card and bytes.
    """
    asks: dict[tuple[str, str, str, int], _Ask] = {}
    for unit in units:
        ask = _ASKS[unit.step](unit, classes) if unit.step in _ASKS else None
        if ask is not None:
            key = ask.step, ask.model, ask.what, ask.batch
            asks[key] = max(asks.get(key, ask), ask, key=lambda other: other.footprint.bytes(0))
    return tuple(_need(asks[key], card) for key in sorted(asks, key=lambda key: [*_ASKS].index(key[0])))


def _caption(unit: Unit, _: Mapping[str, int]) -> _Ask | None:
    footprint = memory.caption(unit.work.captioner)
    if footprint is None:
        return None
    return _Ask(step=unit.step, model=unit.work.captioner, footprint=footprint, batch=caption.BATCH)


def _finetune(unit: Unit, _: Mapping[str, int]) -> _Ask | None:
    work = unit.work
    footprint = memory.finetune(checkpoints.architecture(work.checkpoint), work.tuning, work.settings)
    if footprint is None:
        return None
    return _Ask(
        step=unit.step,
        model=work.checkpoint,
        footprint=footprint,
        batch=work.settings.batch,
        most=work.settings.micro_batch or work.settings.batch,
        what=trained(work.tuning),
        precision=work.settings.precision,
    )


def _generate(unit: Unit, _: Mapping[str, int]) -> _Ask | None:
    footprint = memory.generate(checkpoints.architecture(unit.work.checkpoint))
    if footprint is None:
        return None
    work = unit.work
    return _Ask(step=unit.step, model=work.checkpoint, footprint=footprint, batch=work.batch, of=unit.size)


def _classify(unit: Unit, classes: Mapping[str, int]) -> _Ask | None:
    backbone, sweep = unit.work.coordinates.backbone, unit.work.sweep
    precision = "bfloat16" if sweep.precision == "auto" else sweep.precision
    footprint = memory.classify(backbone, classes=classes[backbone], precision=precision)
    if footprint is None:
        return None
    what = f"{classes[backbone]} classes, {precision}"
    return _Ask(step=unit.step, model=backbone, footprint=footprint, batch=sweep.batch, what=what, sweep=sweep)


_ASKS: Mapping[str, Callable[[Unit, Mapping[str, int]], _Ask | None]] = {
    "caption": _caption,
    "finetune": _finetune,
    "generate": _generate,
    "classify": _classify,
}
"""Step -> function from a unit, and the numbers of classes, to what it asks of a card's memory."""


def trained(tuning: Tuning) -> str:
    """Returns what is trained, and the side of the images if it is not the checkpoint's own, in words."""
    parts = ["U-Net"] * tuning.unet + ["text encoder"] * tuning.text_encoder + ["new words"] * bool(tuning.tokens)
    return " + ".join(parts) + (f" at {tuning.side} px" if tuning.side else "")


def _need(ask: _Ask, card: Card) -> Need:
    footprint, images, checkpointing, together = ask.footprint, ask.batch, False, 1
    try:
        if ask.most:
            most = min(ask.most, ask.batch)
            chosen = memory.micro_batch(footprint, free=card.bytes, batch=most, precision=ask.precision)
            images, checkpointing = chosen.images, chosen.checkpointing
        elif ask.sweep:  # its batch is not split
            packing = sharing.packing(footprint, ask.sweep, free=card.bytes)
            images = images if memory.fits(footprint, free=card.bytes) >= images else 0
            together = packing.processes * packing.points
        else:
            if ask.of:
                images = memory.drawn_at_once(footprint, free=card.bytes, batch=ask.batch, of=ask.of)
            images = min(images, memory.fits(footprint, free=card.bytes))
        if not images:
            raise ValueError(memory.misfit(footprint, free=card.bytes, images=ask.batch if ask.sweep else 1))
    except ValueError as error:
        raise ValueError(f"step {ask.step} with {ask.model} does not fit on a {card.name}: {error}") from error
    return Need(
        step=ask.step,
        model=ask.model,
        what=ask.what,
        batch=max(ask.batch, images),
        images=images,
        checkpointing=checkpointing,
        bytes=footprint.bytes(images, checkpointing=checkpointing),
        sharing=together,
    )
