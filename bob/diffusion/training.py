"""Step 2: train pairs -> adapter: fine-tuning of a T2I checkpoint by LoRA, textual inversion or both.

`types.Tuning` states what is trained and how images and prompts are shown. The recipe is DataDream's with BOB's numbers
(paper Table 4) unless the tuning differs: epsilon-MSE at uniform timesteps, AdamW, linear warm-up and cosine, LoRA's
gradients clipped at 1, no mixed precision. All randomness of step k is derived from (seed, k), so an interrupted and
resumed fine-tune ends with the same weights.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from bob import store
from bob.core import precision, training_state
from bob.core.seeds import derive
from bob.core.settings import FinetuneSettings
from bob.core.step_table import STEPS
from bob.core.types import Tuning
from bob.diffusion import lora, parallel, textual_inversion
from bob.diffusion.batches import Batch, Batches, Pairs
from bob.diffusion.micro_batches import MicroBatches

__all__ = ["Callbacks", "Pairs", "adapter", "train"]

DATADREAM = Tuning()
"""LoRA on U-Net and text encoder."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a fine-tune calls on its way. None changes its result."""

    save: training_state.Save | None = None
    """Called with (steps done, state) every `checkpoint_every` steps, except at the end."""
    keep: Callable[[int, dict[str, bytes]], None] | None = None
    """Called after each of the epochs `settings.keep` with the epoch and the adapter's files at that time."""
    tell: Callable[[str], None] | None = None
    """Called every `checkpoint_every` steps, except at the end, with a line on the progress."""
    report: Callable[[int, float], None] | None = None
    """Called every `checkpoint_every` steps and at the end with (steps done, mean loss since the last call)."""


def train(
    pipeline: StableDiffusionPipeline,
    pairs: Pairs,
    *,
    settings: FinetuneSettings,
    seed: int,
    tuning: Tuning = DATADREAM,
    state: bytes | None = None,
    callbacks: Callbacks | None = None,
) -> str:
    """Fine-tunes the pipeline's models in place: adds the trainable parameters that `tuning` names and trains them.

    In torch's process group, if there is one, the processes share each batch; all end with the same weights.

    Args:
        pipeline: in float32; its VAE encodes the images.
        pairs: images of any size and their prompts.
        settings: hyper-parameters (paper Table 4).
        seed: the run's.
        tuning: which parameters are trained; by default LoRA on U-Net and text encoder.
        state: state to resume from; a damaged one, or one of another fine-tune, is reported and ignored.
        callbacks: functions to call on the way.

    Returns:
        How memory split the batch, in words for a receipt; empty if it did not.

    Raises:
        ValueError: if the loss is not finite, or if memory does not hold a single image.
    """
    callbacks = callbacks or Callbacks()
    trained = _prepare(pipeline, tuning, settings, seed)
    clipped = [parameter for name, parameter in trained.items() if ".lora_" in name]
    optimizer = torch.optim.AdamW(trained.values(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    start = time.monotonic()
    micro_batches = MicroBatches(pipeline, trained, tuning, settings, callbacks.tell or print)
    batches = Batches(pipeline, pairs, tuning, settings, seed, encoded_at_once=micro_batches.encoded_at_once())
    loss_function = Loss(pipeline)
    per_epoch = tuning.epoch(pairs.prompts)
    total = settings.steps(per_epoch)
    name = "constant_with_warmup" if tuning.schedule == "constant" else tuning.schedule
    schedule = get_scheduler(name, optimizer, num_warmup_steps=settings.warmup_steps, num_training_steps=total)
    identity = _identity(pairs, tuning, settings, seed)
    resumed = training_state.unpack(state, identity, tell=callbacks.tell or print)
    first = _restore(resumed, trained, optimizer, schedule)
    milestones = _Milestones(callbacks, settings, per_epoch=per_epoch, first=first, total=total, start=start)

    def pack(done: int) -> bytes:
        content = {"step": done, "trained": trained, "optimizer": optimizer.state_dict()}
        return training_state.pack(identity, content)

    def loss_of(rows: Batch) -> Tensor:
        with precision.autocast(settings.precision, pipeline.device):
            return loss_function(rows)

    for done in range(first + 1, total + 1):
        batch = batches(done - 1)
        with precision.arithmetic(settings.precision, pipeline.device):
            loss = micro_batches.gradients(batch, loss_of)
        loss = parallel.add_gradients([*trained.values()], loss)
        if not tuning.dense_tokens:
            textual_inversion.drop_absent(pipeline, batch.shown)
        nn.utils.clip_grad_norm_(clipped, settings.max_norm)
        optimizer.step()
        schedule.step()
        milestones(done, loss, files=lambda: adapter(pipeline, tuning), pack=pack)
    micro_batches.close()
    pipeline.unet.eval()
    pipeline.text_encoder.eval()
    return micro_batches.note()


class _Milestones:
    """Calls the callbacks after the steps at which they are due; in between, losses stay on the device."""

    def __init__(
        self, callbacks: Callbacks, settings: FinetuneSettings, *, per_epoch: int, first: int, total: int, start: float
    ) -> None:
        """Begins after step `first` of `total`, at the time `start`, with `per_epoch` images an epoch."""
        self._callbacks, self._every = callbacks, settings.checkpoint_every
        self._first, self._total, self._start = first, total, start
        self._kept = {epoch * -(-per_epoch // settings.batch): epoch for epoch in settings.keep}  # steps done -> epoch
        self._losses: list[Tensor] = []

    def __call__(
        self, done: int, loss: Tensor, *, files: Callable[[], dict[str, bytes]], pack: Callable[[int], bytes]
    ) -> None:
        """Notes the loss of the last of `done` steps; takes the adapter's files and the state when they are wanted."""
        self._losses.append(loss)
        pauses, last = done % self._every == 0, done == self._total
        if not pauses and not last and done not in self._kept:
            return
        callbacks, losses = self._callbacks, _finite(self._losses, done)
        if done in self._kept and callbacks.keep is not None:
            callbacks.keep(self._kept[done], files())
        if callbacks.report is not None and (pauses or last):
            callbacks.report(done, math.fsum(losses) / len(losses))
        if pauses:
            self._losses.clear()
        if pauses and not last:
            if callbacks.save is not None:
                callbacks.save(done, pack(done))
            if callbacks.tell is not None:
                left = (time.monotonic() - self._start) / (done - self._first) * (self._total - done)
                callbacks.tell(f"step {done} of {self._total}, loss {losses[-1]:.4f}, {left:.0f} s left")


def adapter(pipeline: StableDiffusionPipeline, tuning: Tuning) -> dict[str, bytes]:
    """Files of the trained adapter: name, as diffusers looks for it -> bytes."""
    files = {}
    if tuning.unet or tuning.text_encoder:
        files[lora.FILE] = lora.serialize(pipeline.unet, pipeline.text_encoder)
    if tuning.tokens:
        files[textual_inversion.FILE] = textual_inversion.serialize(pipeline, tuning.tokens)
    return files


def _prepare(
    pipeline: StableDiffusionPipeline, tuning: Tuning, settings: FinetuneSettings, seed: int
) -> dict[str, nn.Parameter]:
    """Freezes the models, adds the trainable parameters and returns them by name."""
    models = unet, text_encoder = pipeline.unet, pipeline.text_encoder
    for model in models:
        model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive("adapter", "initial weights", seed))  # not those of GPUs
        lora.add(unet if tuning.unet else None, text_encoder if tuning.text_encoder else None, rank=settings.rank)
    if tuning.tokens:
        textual_inversion.add(pipeline, tuning.tokens)
    unet.to(memory_format=torch.channels_last).train()
    text_encoder.train()
    return lora.parameters(*models)


class Loss:
    """Mean squared error in float32 of the noise, or of the velocity if the checkpoint predicts that."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        """Takes the pipeline's U-Net, text encoder and noise schedule; its tables move to the device but once."""
        self._pipeline = pipeline
        self._schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._predicts_velocity = self._schedule.config["prediction_type"] == "v_prediction"

    def __call__(self, rows: Batch) -> Tensor:
        """The loss of some rows of a batch; each distinct prompt among them is encoded once."""
        schedule, (tokens, of_rows) = self._schedule, rows.distinct()
        text = self._pipeline.text_encoder(tokens)[0]
        if of_rows is not None:  # unlike that of an index, the backward pass of a table adds in a fixed order
            text = nn.functional.embedding(of_rows, text.flatten(1)).unflatten(1, text.shape[1:])
        noisy = schedule.add_noise(rows.latents, rows.noise, rows.times)
        predicted = self._pipeline.unet(noisy, rows.times, text).sample
        target = rows.noise
        if self._predicts_velocity:
            target = schedule.get_velocity(rows.latents, rows.noise, rows.times)
        return nn.functional.mse_loss(predicted.float(), target.float())


def _finite(losses: Sequence[Tensor], done: int) -> list[float]:
    """Losses of the last steps, up to `done`. Waits for the GPU, so it is not for every step."""
    values = torch.stack(list(losses)).tolist()
    for step, value in enumerate(values, done - len(values)):
        if not math.isfinite(value):
            raise ValueError(f"the loss of the fine-tune is {value} at step {step}: lower its lr")
    return values


def _identity(pairs: Pairs, tuning: Tuning, settings: FinetuneSettings, seed: int) -> str:
    """Hash of all that a state depends on. Its arguments and their order must stay, or no saved state resumes."""
    recipe = dataclasses.replace(settings, checkpoint_every=1, micro_batch=0)  # they change no result
    return store.key(STEPS["finetune"].version, recipe, tuning, seed, pairs.prompts)


def _restore(resumed: Mapping[str, Any] | None, trained: Mapping[str, Tensor], optimizer: Any, schedule: Any) -> int:
    """Restores an unpacked state and returns the number of steps that were done."""
    if resumed is None:
        return 0
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(resumed["trained"][name])
    optimizer.load_state_dict(resumed["optimizer"])  # with the learning rate of the next step
    schedule.last_epoch = resumed["step"]  # all that a LambdaLR computes the later rates from
    return resumed["step"]
