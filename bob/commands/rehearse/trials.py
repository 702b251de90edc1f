"""One unit of each step, cut to a few batches of its real size, done by the functions that the step's worker calls."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from bob import backbones, captioners
from bob.classifier.data import Data
from bob.classifier.trainer import Training, train
from bob.commands import rates
from bob.commands.rehearse.kinds import Kind
from bob.commands.rehearse.meter import Peak, Rounds, peak
from bob.commands.rehearse.predicted import predict, require_feasible
from bob.commands.rehearsed import Trial
from bob.core import batching, registry
from bob.core.types import Request, Shot
from bob.diffusion import checkpoints, training
from bob.diffusion.image_generator import ImageGenerator
from bob.steps import caption

__all__ = ["forecast", "of_each_setting", "opener", "trial"]

_BATCHES = {True: 16, False: 1}
"""Whether the device is a GPU -> optimiser steps in a round of a classifier, which ends with an evaluation."""
_PHOTO = (683, 512)  # pixels of a stand-in's pictures: not square, as photographs seldom are
_MANY = 10**6  # rounds that there may be
_SEED = 0


class _Ended(Exception):
    """Ends a fine-tune whose rounds are done."""


def forecast(kind: Kind, *, device: str, seconds: float) -> int:
    """Peak bytes that the memory model gives for a kind of work; 0 where it does not know the model.

    Args:
        kind: the work; its weights need not be there.
        device: torch's name of the device.
        seconds: least time of the timed part.

    Raises:
        ValueError: if it is not worth trying on this device; says why.
    """
    if kind.step == "generate" and checkpoints.simulated(kind.model) is not None:
        raise ValueError("a simulated checkpoint computes nothing")
    if kind.step == "caption" and registry.load("captioner", kind.model.partition(":")[0]).remote:
        raise ValueError("a server answers, which has no rate of this machine")
    precision = _precision(kind, device)
    prediction = predict(kind, images=_images(kind, device), device=device, precision=precision)
    if prediction is None:
        return 0
    require_feasible(prediction, device=device, precision=precision, seconds=seconds)
    return prediction.bytes


def trial(kind: Kind, *, device: str, seconds: float, predicted: int = 0) -> Trial:
    """Measures one kind of work.

    Args:
        kind: the work, whose weights the loaders find.
        device: torch's name of the device.
        seconds: least time of the timed part.
        predicted: bytes that `forecast` returned, for the report.

    Raises:
        ValueError: if it cannot be done on this device; says why.
    """
    precision = _precision(kind, device)
    # The first step of a fine-tune encodes square pictures, the first batch of a circle inverts its sources.
    counted = 2 if kind.step == "finetune" or kind.name.startswith("circle") else 1
    with Peak(device) as memory, Rounds(device, seconds=seconds, counted=counted) as rounds:
        images, note = _TRIALS[kind.step](kind, device, rounds)
    return Trial(
        kind=kind.name,
        label=kind.unit.label,
        planned=kind.planned,
        work=rounds.work,
        seconds=rounds.seconds,
        images=images,
        bytes=memory.bytes,
        predicted=predicted,
        flops=rounds.flops,
        precision=precision,
        peak=peak(device, precision),
        note=note,
    )


def _images(kind: Kind, device: str) -> int:
    """Images of a round; drawings with several sampling settings have a batch of each."""
    work = kind.unit.work
    if kind.step == "caption":
        return min(caption.BATCH, len(work.shots))
    if kind.step == "finetune":
        return min(work.settings.batch, work.tuning.epoch([pair.prompt for pair in work.pairs]))
    return work.batch if kind.step == "generate" else _BATCHES[device.startswith("cuda")] * work.sweep.batch


def _precision(kind: Kind, device: str) -> str:
    """Precision of most arithmetic: on a GPU, convolutions in float32 use its TF32 units where it has them."""
    gpu = device.startswith("cuda")
    if kind.step == "finetune":
        set_ = kind.unit.work.settings.precision
    elif kind.step == "classify":
        set_ = {"auto": "bfloat16" if gpu else "float32"}.get(kind.unit.work.sweep.precision)
        set_ = set_ or kind.unit.work.sweep.precision
    else:
        set_ = {"caption": "bfloat16", "generate": "float16"}[kind.step] if gpu else "float32"
    return "tf32" if set_ == "float32" and gpu and peak(device, "tf32") else set_


def _caption(kind: Kind, device: str, rounds: Rounds) -> tuple[int, str]:
    """Answers about one batch of pictures a round."""
    captioner, batcher = captioners.load(kind.model, device=device), batching.AdaptiveBatcher("captioning")
    shots = kind.unit.work.shots[: caption.BATCH]
    pictures = [opener(kind)(shot) for shot in shots]
    ask = functools.partial(captioner.caption, descriptor=kind.cell.training.descriptor)
    done = False
    while not done:
        answers = [answer for batch in batcher.map(pictures, ask, size=len(pictures)) for answer in batch]
        done = rounds.tick(len(answers))
    return len(pictures), batcher.note()


def _finetune(kind: Kind, device: str, rounds: Rounds) -> tuple[int, str]:
    """One optimiser step a round, at the real batch."""
    import torch

    work, told = kind.unit.work, list[str]()
    pipeline = checkpoints.load(kind.model, device=torch.device(device), dtype=torch.float32)
    pairs = _fewest(work.pairs, lambda some: work.tuning.epoch([p.prompt for p in some]), work.settings.batch)
    images = min(work.settings.batch, work.tuning.epoch([pair.prompt for pair in pairs]))
    shots = {shot.image_id: shot for shot in work.shots}
    opened = functools.cache(lambda image_id: opener(kind)(shots[image_id]))

    def ended(done: int, loss: float) -> None:
        if rounds.tick(images * rates.weight(work)):
            raise _Ended

    with contextlib.suppress(_Ended):
        training.train(
            pipeline,
            training.Pairs([opened(pair.image_id) for pair in pairs], [pair.prompt for pair in pairs]),
            settings=dataclasses.replace(work.settings, total_steps=_MANY, keep=(), checkpoint_every=1),
            seed=work.seed,
            tuning=work.tuning,
            callbacks=training.Callbacks(report=ended, tell=told.append),
        )
    return images, "; ".join(words for words in told if not words.startswith("step "))


def _fewest(pairs: Sequence[Any], count: Callable[[Sequence[Any]], int], wanted: int) -> Sequence[Any]:
    """The first pairs, as many as make an epoch of `wanted`; all, if they make a shorter one."""
    enough = (k for k in range(1, len(pairs)) if count(pairs[:k]) >= wanted)
    return pairs[: next(enough, len(pairs))]


def _generate(kind: Kind, device: str, rounds: Rounds) -> tuple[int, str]:
    """One batch a round of each sampling setting that the requests of a class have, without an adapter.

    An adapter is fused, so drawing costs no more with it.
    """
    cell, batch = kind.cell, kind.unit.work.batch
    requests = of_each_setting(cell.method.requests(cell.training, draw=cell.run.draw, seed=cell.run.seed), batch)
    shots, generator = {shot.image_id: shot for shot in cell.training.shots}, ImageGenerator(device)
    generator.use(kind.model, "", dict, dataset=cell.run.dataset, source=lambda image_id: opener(kind)(shots[image_id]))
    work, done, rejected = len(requests) * rates.evaluations(map(vars, requests)), False, list[Any]()
    while not done:
        _, rejected = generator.draw(requests, batch=batch)
        done = rounds.tick(work)
    notes = generator.note(), f"{len(rejected)} of {len(requests)} images rejected" if rejected else ""
    return batch, "; ".join(filter(None, notes))


def of_each_setting(requests: Iterable[Request], batch: int) -> list[Request]:
    """One batch of each sampling setting among the requests of the first class."""
    of_class: list[Request] = []
    for request in requests:
        if of_class and request.class_id != of_class[0].class_id:
            break
        of_class.append(request)
    groups: dict[tuple[Any, ...], list[Request]] = {}
    for r in of_class:
        groups.setdefault((r.kind, r.guidance, r.steps, r.scheduler, r.strength, r.switch_at), []).append(r)
    # A class may have fewer requests than a batch, which then goes on with the next: repeated, with seeds of their own.
    return [
        dataclasses.replace(r, request_id=f"{r.request_id}-{k}", seed=r.seed + k)
        for group in groups.values()
        for k, r in zip(range(batch), itertools.cycle(group), strict=False)
    ]


def _classify(kind: Kind, device: str, rounds: Rounds) -> tuple[int, str]:
    """One epoch a round, of a few batches, with validation images in the proportion of the run."""
    work, cell = kind.unit.work, kind.cell
    backbone = backbones.load(kind.model)
    pictures, shown = _images(kind, device), len(cell.training.shots) * work.copies
    in_epoch = shown + (cell.drawn if work.images else 0)
    real = max(1, round(pictures * shown / in_epoch))
    val = math.ceil(sum(shot.split == "val" for shot in cell.images_of_split) * pictures / in_epoch)
    data = _noise(cell.training, backbone.kept, real=real, synthetic=pictures - real, val=val)
    for row in train(
        data,
        Training(
            backbone=kind.model,
            point=work.sweep.points(has_synthetic=bool(work.images))[0],
            settings=work.sweep,
            epochs=_MANY,
            seed=_SEED,
            mixup=work.mixup,
        ),
        device=device,
    ):
        if rounds.tick(row["train_n"] * backbone.cost):
            return work.sweep.batch, ""
    raise ValueError("its loss is not finite")


def _noise(training_set: Any, side: int, *, real: int, synthetic: int, val: int) -> Data:
    rng, classes = np.random.default_rng(_SEED), len(training_set.class_names)

    def some(count: int) -> np.ndarray:
        return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)

    return Data(
        class_names=training_set.class_names,
        descriptor=training_set.descriptor,
        real=some(real),
        real_labels=np.arange(real) % classes,
        val=some(val),
        val_labels=np.arange(val) % classes,
        synthetic=some(synthetic),
        synthetic_labels=np.eye(classes, dtype=np.float32)[np.arange(synthetic) % classes],
    )


def opener(kind: Kind) -> Callable[[Shot], Image.Image]:
    """Opens the pictures of the data set; those of one that is missing are noise in the shape of a photograph."""
    if kind.dataset is not None:
        return kind.dataset.open
    width, height = _PHOTO
    return lambda shot: Image.fromarray(
        np.random.default_rng(_SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


_TRIALS: dict[str, Callable[[Kind, str, Rounds], tuple[int, str]]] = {
    "caption": _caption,
    "finetune": _finetune,
    "generate": _generate,
    "classify": _classify,
}
"""Step -> (kind, device, rounds) -> images at once, and a note."""
