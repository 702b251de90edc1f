"""Step 2: train pairs -> adapter: fine-tuning of a T2I checkpoint by LoRA, textual inversion or both.

`types.Tuning` states what is trained and how images and prompts are shown. The recipe is DataDream's with BOB's numbers
(paper Table 4) unless the tuning differs: epsilon-MSE at uniform timesteps, AdamW, linear warm-up and cosine, LoRA's
gradients clipped at 1, no mixed precision. All randomness of step k is derived from (seed, k), so an interrupted and
resumed fine-tune ends with the same weights.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from PIL import Image
from torch import Tensor, nn

from bob import store
from bob.core import training_state
from bob.core.seeds import derive
from bob.core.settings import FinetuneSettings
from bob.core.step_table import STEPS
from bob.core.types import Tuning
from bob.diffusion import lora, textual_inversion

__all__ = ["Batches", "Callbacks", "Pairs", "adapter", "train"]

DATADREAM = Tuning()
"""LoRA on U-Net and text encoder."""


@dataclass(frozen=True)
class Pairs:
    """The decoded train pairs."""

    images: Sequence[Image.Image]
    """Of any size."""
    prompts: Sequence[str]
    """One an image."""


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
) -> None:
    """Fine-tunes the pipeline's models in place: adds the trainable parameters that `tuning` names and trains them.

    Args:
        pipeline: in float32; its VAE encodes the images.
        pairs: images of any size and their prompts.
        settings: hyper-parameters (paper Table 4).
        seed: the run's.
        tuning: which parameters are trained; by default LoRA on U-Net and text encoder.
        state: state to resume from; a damaged one, or one of another fine-tune, is reported and ignored.
        callbacks: functions to call on the way.

    Raises:
        ValueError: if the loss is not finite.
    """
    callbacks = callbacks or Callbacks()
    trained = _prepare(pipeline, tuning, settings, seed)
    clipped = [parameter for name, parameter in trained.items() if ".lora_" in name]
    optimizer = torch.optim.AdamW(trained.values(), lr=settings.lr, weight_decay=settings.weight_decay)
    batches, start = Batches(pipeline, pairs, tuning, settings, seed), time.monotonic()
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

    for done in range(first + 1, total + 1):
        loss = _loss(pipeline, *batches(done - 1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(clipped, settings.max_norm)
        optimizer.step()
        schedule.step()
        milestones(done, loss.detach(), files=lambda: adapter(pipeline, tuning), pack=pack)
    pipeline.unet.eval()
    pipeline.text_encoder.eval()


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


def _loss(pipeline: StableDiffusionPipeline, latents: Tensor, noise: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
    """Mean squared error in float32 of the noise, or of the velocity if the checkpoint predicts that."""
    schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = schedule.add_noise(latents, noise, times)
    predicted = pipeline.unet(noisy, times, pipeline.text_encoder(tokens)[0]).sample
    velocity = schedule.config["prediction_type"] == "v_prediction"
    target = schedule.get_velocity(latents, noise, times) if velocity else noise
    return nn.functional.mse_loss(predicted.float(), target.float())


def _finite(losses: Sequence[Tensor], done: int) -> list[float]:
    """Losses of the last steps, up to `done`. Waits for the GPU, so it is not for every step."""
    values = torch.stack(list(losses)).tolist()
    for step, value in enumerate(values, done - len(values)):
        if not math.isfinite(value):
            raise ValueError(f"the loss of the fine-tune is {value} at step {step}: lower its lr")
    return values


class Batches:
    """Batch of step k: latents, noise, timesteps and tokens, as a function of (seed, k) alone."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, pairs: Pairs, tuning: Tuning, settings: FinetuneSettings, seed: int
    ) -> None:
        self._pipeline, self._settings, self._seed, self._tuning = pipeline, settings, seed, tuning
        full = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self._side = min(tuning.side or full, full)
        self._epoch = tuning.epoch(pairs.prompts)
        self._pixels = [_resized(image, self._side) for image in pairs.images]
        prompts = {prompt: k for k, prompt in enumerate(dict.fromkeys(pairs.prompts))}
        # rows of the pairs of each prompt
        self._by_prompt = [[row for row, own in enumerate(pairs.prompts) if own == prompt] for prompt in prompts]
        templates = tuning.templates or ("{}",)
        # (prompts, templates, length): each prompt in each template
        self._tokens = torch.stack([self._tokenized([t.replace("{}", p) for t in templates]) for p in prompts])
        self._prompt = torch.tensor([prompts[prompt] for prompt in pairs.prompts])
        self._posteriors: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}
        pipeline.vae.requires_grad_(False)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents and noise (b, c, h, w), timesteps (b,) and token ids (b, length) of one step."""
        batch = self._settings.batch
        epoch, place = divmod(step, -(-self._epoch // batch))
        rows = self._order(epoch)[place * batch : (place + 1) * batch]
        generator = torch.Generator().manual_seed(derive("finetune", "step", self._seed, step))
        mean, deviation = (torch.stack(part) for part in zip(*self._encode(rows, generator), strict=True))
        latents = mean + deviation * torch.randn(mean.shape, generator=generator).to(mean)
        noise = torch.randn(mean.shape, generator=generator)
        times = torch.randint(self._pipeline.scheduler.config["num_train_timesteps"], (len(rows),), generator=generator)
        scaled = (latents * self._pipeline.vae.config.scaling_factor).contiguous(memory_format=torch.channels_last)
        device, templates = self._pipeline.device, self._tokens.shape[1]
        template = torch.randint(templates, (len(rows),), generator=generator) if templates > 1 else 0
        return scaled, noise.to(device), times.to(device), self._tokens[self._prompt[rows], template].to(device)

    def _order(self, epoch: int) -> list[int]:
        """Rows of the pairs that an epoch shows, in order."""
        rng = np.random.default_rng(derive("finetune", "order", self._seed, epoch))
        if not self._tuning.each:
            return rng.permutation(len(self._pixels)).tolist()
        shuffled = [self._by_prompt[k] for k in rng.permutation(len(self._by_prompt))]
        return [rows[k] for rows in shuffled for k in rng.integers(len(rows), size=self._tuning.each)]

    def _tokenized(self, prompts: list[str]) -> Tensor:
        """Token ids (prompts, length), padded and truncated as the pipeline does."""
        tokenizer: Any = self._pipeline.tokenizer
        words: Any = [self._pipeline.maybe_convert_prompt(prompt, tokenizer) for prompt in prompts]
        length = tokenizer.model_max_length
        return torch.tensor(tokenizer(words, padding="max_length", max_length=length, truncation=True)["input_ids"])

    @torch.no_grad()
    def _encode(self, rows: list[int], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Posterior mean and standard deviation of a random crop of each image; square images are encoded once."""
        for row in rows:
            height, width = self._pixels[row].shape[:2]
            top, left = (int(torch.randint(n - self._side + 1, (), generator=generator)) for n in (height, width))
            flipped = self._tuning.flip and bool(torch.rand((), generator=generator) < 0.5)
            if (row, flipped) not in self._posteriors or height != width:
                crop = self._pixels[row][top : top + self._side, left : left + self._side]
                crop = np.ascontiguousarray(crop[:, ::-1]) if flipped else crop
                image = torch.from_numpy(crop).permute(2, 0, 1)[None].float().to(self._pipeline.device) / 127.5 - 1
                posterior = self._pipeline.vae.encode(image).latent_dist
                self._posteriors[row, flipped] = posterior.mean[0], posterior.std[0]
            yield self._posteriors[row, flipped]


def _resized(image: Image.Image, side: int) -> np.ndarray:
    """uint8 (h, w, 3), resized bilinearly to the shorter side `side`, as DataDream does."""
    scale = side / min(image.size)
    width, height = (max(side, round(n * scale)) for n in image.size)
    return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def _identity(pairs: Pairs, tuning: Tuning, settings: FinetuneSettings, seed: int) -> str:
    """Hash of all that a state depends on. Its arguments and their order must stay, or no saved state resumes."""
    recipe = dataclasses.replace(settings, checkpoint_every=1)  # changes no result
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
