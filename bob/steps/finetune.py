"""Step 2: an adapter is fine-tuned on pairs of image and prompt (paper sec. 3.1).

`unit` is a run's work unit, `FinetuneWorker` does it; the training itself is `bob.diffusion.training`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from bob import datasets, store
from bob.core import malloc, threads
from bob.core.settings import FinetuneSettings
from bob.core.step_table import STEPS
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, TrainingSet, TrainPair, Tuning, Unit
from bob.diffusion import checkpoints
from bob.steps.cell import Cell, label, weights

if TYPE_CHECKING:
    from bob.diffusion.training import Pairs

__all__ = ["FinetuneWork", "FinetuneWorker", "adapter", "unit"]

_NO_RESULT = ("checkpoint_every", "micro_batch")
"""Settings that change no result, so they are no part of a key."""
_YOUNGER = ("total_steps", "keep", "precision", "sampling")
"""Settings that are part of a key only if they are not at their defaults."""


@dataclass(frozen=True, kw_only=True)
class FinetuneWork:
    """Work of a unit: an adapter to train."""

    dataset: str
    """The data set as the user wrote it; opens the pictures."""
    checkpoint: str
    settings: FinetuneSettings
    seed: int
    """Seed of the run."""
    shots: tuple[Shot, ...]
    pairs: tuple[TrainPair, ...]
    tuning: Tuning
    inputs: Any


def unit(cell: Cell) -> Unit | None:
    """Returns a run's fine-tune, shared by all methods with the same train pairs; None where nothing is fine-tuned."""
    run, pairs = cell.run, cell.method.train_pairs(cell.training)
    if not pairs or checkpoints.simulated(run.checkpoint) is not None:
        return None
    tuning = cell.method.tuning(cell.training)
    recipe = {k: v for k, v in asdict(run.finetune).items() if k not in _NO_RESULT}
    for field in fields(run.finetune):
        if field.name in _YOUNGER and recipe[field.name] == field.default:
            del recipe[field.name]  # keys from before this setting stay valid
    inputs = [STEPS["finetune"].version, weights(run), recipe, run.seed, _content(cell.training, pairs)]
    if tuning != Tuning():
        inputs.append(asdict(tuning))
    if run.finetune.sampling != "uniform":
        classes = {shot.image_id: shot.class_id for shot in cell.training.shots}
        inputs.append([classes[pair.image_id] for pair in pairs])
    # Without the method's name: methods with the same train pairs share the adapter.
    name = store.slug(f"{cell.training.dataset} {run.checkpoint}")
    return Unit(
        step="finetune",
        target=f"adapters/{name}-{run.setting}-{store.key(*inputs)}/manifest.json",
        label=label(cell, "method", "checkpoint"),
        size=run.finetune.steps(tuning.epoch([pair.prompt for pair in pairs])),
        work=FinetuneWork(
            dataset=run.dataset,
            checkpoint=run.checkpoint,
            settings=run.finetune,
            seed=run.seed,
            shots=cell.training.shots,
            pairs=tuple(pairs),
            tuning=tuning,
            inputs=store.plain(inputs),
        ),
    )


def adapter(tuned: Unit | None, *, after: int) -> str:
    """Returns the folder of the adapter that draws the images; empty where nothing is fine-tuned.

    Args:
        tuned: the run's fine-tune.
        after: the epoch after which the adapter was kept; 0: the last.
    """
    folder = tuned.target.rpartition("/")[0] if tuned else ""
    return f"{folder}/epoch-{after}" if folder and after else folder


def _content(training: TrainingSet, pairs: Sequence[TrainPair]) -> list[tuple[str, str]]:
    sha1 = {shot.image_id: shot.sha1 for shot in training.shots}
    return [(sha1[pair.image_id], pair.prompt) for pair in pairs]


class FinetuneWorker:
    """Worker of step 2: trains one adapter and commits it.

    In torch's process group all processes train it together, and process 0 commits it.
    """

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device

    @threads.fixed(1)
    def __call__(
        self,
        unit: Unit,
        *,
        state: bytes | None = None,
        save: Callable[[int, bytes], None] | None = None,
        tell: Callable[[str], None] | None = None,
        report: Callable[[int, float], None] | None = None,
    ) -> Receipt:
        """Trains the adapter, writes it and then its manifest.

        Args:
            unit: the unit to train.
            state: the last state passed to `save`, to resume from; by default the one in the store.
            save: (steps done, state) -> nothing; by default writes the state to the store.
            tell: shows a line of progress; by default prints it.
            report: receives the loss curve during training, as `training.Callbacks` says.
        """
        times, work = Stopwatch(self._device), unit.work
        with malloc.importing():
            import torch

            from bob.diffusion import parallel, training

            pipeline = checkpoints.load(work.checkpoint, device=torch.device(self._device), dtype=torch.float32)
        folder = unit.target.rpartition("/")[0]
        resumable = f"{folder}/state.pt"
        if state is None and self._store.exists(resumable):
            state = self._store.read(resumable)
        pairs = self._pairs(work)
        times.switch("work")
        note = training.train(
            pipeline,
            pairs,
            settings=work.settings,
            seed=work.seed,
            tuning=work.tuning,
            state=state,
            callbacks=training.Callbacks(
                save=times.around("write", save or (lambda _, content: self._store.write(resumable, content))),
                keep=times.around(
                    "write", lambda epoch, files: self._write(f"{folder}/epoch-{epoch}", files, unit, times)
                ),
                tell=tell or (lambda words: print(f"  {unit.label}: {words}", flush=True)),
                report=report,
            ),
        )
        times.switch("write")
        self._write(folder, training.adapter(pipeline, work.tuning), unit, times)
        self._store.delete(resumable)
        laps = {} if parallel.rank() else times.times()  # what all processes do counts once
        return Receipt(target=unit.target, label=unit.label, size=unit.size, times=laps, note=note)

    def _pairs(self, work: FinetuneWork) -> "Pairs":
        """Opens the images of the train pairs."""
        from bob.diffusion.training import Pairs

        dataset, shots = datasets.load(work.dataset), {shot.image_id: shot for shot in work.shots}
        images = [dataset.open(shots[pair.image_id]) for pair in work.pairs]
        classes = [shots[pair.image_id].class_id for pair in work.pairs]
        return Pairs(images, [pair.prompt for pair in work.pairs], classes)

    def _write(self, folder: str, files: Mapping[str, bytes], unit: Unit, times: Stopwatch) -> None:
        """Writes an adapter's files, then the manifest whose presence marks them as complete; in process 0 alone."""
        from bob.diffusion import parallel

        if parallel.rank():
            return
        for name, content in files.items():
            self._store.write(f"{folder}/{name}", content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._store.write_json(
            f"{folder}/manifest.json", store.provenance(unit.config, times=times) | {"sha256": digests}
        )
