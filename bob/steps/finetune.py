"""Step 2: an adapter is fine-tuned on pairs of image and prompt (paper sec. 3.1).

`unit` says what there is to tune, `FinetuneWorker` does it; the training itself is `bob.diffusion.training`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bob import datasets, store
from bob.core import malloc
from bob.core.settings import FinetuneSettings
from bob.core.step_table import STEPS
from bob.core.timing import Stopwatch
from bob.core.types import Receipt, Shot, TrainingSet, TrainPair, Tuning, Unit
from bob.diffusion import checkpoints
from bob.steps.cell import Cell, label, weights

__all__ = ["FinetuneWork", "FinetuneWorker", "adapter", "unit"]


@dataclass(frozen=True, kw_only=True)
class FinetuneWork:
    """What the worker needs to train one adapter."""

    dataset: str
    """As the user wrote it: opens the pictures."""
    checkpoint: str
    settings: FinetuneSettings
    seed: int
    """Of the run."""
    shots: tuple[Shot, ...]
    pairs: tuple[TrainPair, ...]
    tuning: Tuning
    inputs: Any


def unit(cell: Cell) -> Unit | None:
    """A run's fine-tune; None where its method tunes nothing. Methods that tune on the same pairs share it."""
    run, pairs = cell.run, cell.method.train_pairs(cell.training)
    if not pairs or checkpoints.simulated(run.checkpoint) is not None:
        return None
    tuning = cell.method.tuning(cell.training)
    recipe = {k: v for k, v in asdict(run.finetune).items() if k != "checkpoint_every"}
    for name in ("total_steps", "keep"):
        if not recipe[name]:
            del recipe[name]  # keys are older than this setting
    inputs = [STEPS["finetune"].version, weights(run), recipe, run.seed, _content(cell.training, pairs)]
    if tuning != Tuning():
        inputs.append(asdict(tuning))
    # Without the method's name, for methods that tune on the same pairs share their adapter.
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
    """The folder of the adapter that images are drawn with; empty where nothing is tuned.

    Args:
        tuned: the run's fine-tune.
        after: epochs after which it was kept; 0: at its end.
    """
    folder = tuned.target.rpartition("/")[0] if tuned else ""
    return f"{folder}/epoch-{after}" if folder and after else folder


def _content(training: TrainingSet, pairs: Sequence[TrainPair]) -> list[tuple[str, str]]:
    sha1 = {shot.image_id: shot.sha1 for shot in training.shots}
    return [(sha1[pair.image_id], pair.prompt) for pair in pairs]


class FinetuneWorker:
    """Step 2: trains one adapter and commits it."""

    def __init__(self, root: str, *, device: str) -> None:
        self._store, self._device = store.Store(root), device

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
            unit: what to train.
            state: what `save` was given last, to resume from; by default the store's own copy.
            save: (steps done, state) -> nothing; by default keeps the state in the store.
            tell: shows a line of progress; by default prints it.
            report: is given the curve of the loss as it comes, as `training.Callbacks` says.
        """
        times, work = Stopwatch(self._device), unit.work
        with malloc.importing():
            import torch

            from bob.diffusion import training

            pipeline = checkpoints.load(work.checkpoint, device=torch.device(self._device), dtype=torch.float32)
        folder = unit.target.rpartition("/")[0]
        resumable = f"{folder}/state.pt"
        if state is None and self._store.exists(resumable):
            state = self._store.read(resumable)
        dataset = datasets.load(work.dataset)
        shots = {shot.image_id: shot for shot in work.shots}
        shown = training.Pairs([dataset.open(shots[p.image_id]) for p in work.pairs], [p.prompt for p in work.pairs])
        times.switch("work")
        training.train(
            pipeline,
            shown,
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
        return Receipt(target=unit.target, label=unit.label, size=unit.size, times=times.times())

    def _write(self, folder: str, files: Mapping[str, bytes], unit: Unit, times: Stopwatch) -> None:
        """An adapter's files, and then the manifest whose presence means that they are all there."""
        for name, content in files.items():
            self._store.write(f"{folder}/{name}", content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._store.write_json(
            f"{folder}/manifest.json", store.provenance(unit.config, times=times) | {"sha256": digests}
        )
