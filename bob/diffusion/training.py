"""Step 2: train pairs -> adapter. LoRA or new words of a T2I checkpoint, or both, for the whole data set.

What is trained, and how images and prompts are shown, is data: `types.Tuning`. The recipe is DataDream's with BOB's
numbers (paper Table 4) unless that says otherwise: epsilon-MSE at uniform timesteps, AdamW, linear warm-up and
cosine, LoRA's gradients clipped at 1, no mixed precision. All randomness of step k is derived
from (seed, k), so a run that was interrupted and resumed ends with the same weights.
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

__all__ = ["Pairs", "Tell", "adapter", "train"]

Tell = Callable[[str], None]
"""Shows a line of progress."""


DATADREAM = Tuning()
"""LoRA on U-Net and text encoder."""


@dataclass(frozen=True)
class Pairs:
    """The decoded train pairs."""

    images: Sequence[Image.Image]
    prompts: Sequence[str]


def train(
    pipeline: StableDiffusionPipeline,
    pairs: Pairs,
    *,
    settings: FinetuneSettings,
    seed: int,
    tuning: Tuning = DATADREAM,
    state: bytes | None = None,
    save: training_state.Save | None = None,
    keep: Callable[[int, dict[str, bytes]], None] | None = None,
    tell: Tell | None = None,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Adds what is to be trained to the pipeline's models and trains it in place.

    Args:
        pipeline: in float32; its VAE encodes the images.
        pairs: images of any size and their prompts.
        settings: the recipe.
        seed: of the run.
        tuning: what is trained; by default LoRA on U-Net and text encoder.
        state: to resume from; one that is damaged or of another fine-tune is told of and not used.
        save: called every `checkpoint_every` steps.
        keep: called after each of the epochs `settings.keep` with it and the files of the adapter as it is then.
        tell: called as often with a few words on how far it is; without it nothing is shown.
        report: called as often, and at the end, with the steps done and the mean loss since it was called last.

    Raises:
        ValueError: if the loss is not finite.
    """
    unet, text_encoder = pipeline.unet, pipeline.text_encoder
    trained = _prepare(pipeline, tuning, settings, seed)
    clipped = [parameter for name, parameter in trained.items() if ".lora_" in name]
    optimizer = torch.optim.AdamW(trained.values(), lr=settings.lr, weight_decay=settings.weight_decay)
    batches, start = _Batches(pipeline, pairs, tuning, settings, seed), time.monotonic()
    shown = tuning.epoch(pairs.prompts)
    total = settings.steps(shown)
    kept = {epoch * -(-shown // settings.batch): epoch for epoch in settings.keep}  # steps done -> epochs done
    after = "constant_with_warmup" if tuning.schedule == "constant" else tuning.schedule
    schedule = get_scheduler(after, optimizer, num_warmup_steps=settings.warmup_steps, num_training_steps=total)
    identity = _identity(pairs, tuning, settings, seed)
    first = _restore(training_state.unpack(state, identity, tell=tell or print), trained, optimizer, schedule)
    losses: list[Tensor] = []
    for done in range(first + 1, total + 1):
        loss = _loss(pipeline, *batches(done - 1))
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(clipped, settings.max_norm)
        optimizer.step()
        schedule.step()
        pauses = done % settings.checkpoint_every == 0
        if not pauses and done not in kept and done < total:
            continue
        values = _finite(losses, done)
        if done in kept and keep is not None:
            keep(kept[done], adapter(pipeline, tuning))
        if report is not None and (pauses or done == total):
            report(done, math.fsum(values) / len(values))
        if not pauses:
            continue
        losses.clear()
        if save is not None and done < total:
            held = {"step": done, "trained": trained, "optimizer": optimizer.state_dict()}
            save(done, training_state.pack(identity, held))
        if tell is not None and done < total:
            left = (time.monotonic() - start) / (done - first) * (total - done)
            tell(f"step {done} of {total}, loss {values[-1]:.4f}, {left:.0f} s left")
    unet.eval()
    text_encoder.eval()


def adapter(pipeline: StableDiffusionPipeline, tuning: Tuning) -> dict[str, bytes]:
    """What a fine-tune has made: name of a file, as diffusers looks for it -> its bytes."""
    made = {}
    if tuning.unet or tuning.text_encoder:
        made[lora.FILE] = lora.saved(pipeline.unet, pipeline.text_encoder)
    if tuning.tokens:
        made[textual_inversion.FILE] = textual_inversion.saved(pipeline, tuning.tokens)
    return made


def _prepare(
    pipeline: StableDiffusionPipeline, tuning: Tuning, settings: FinetuneSettings, seed: int
) -> dict[str, nn.Parameter]:
    """Freezes the models, adds what is trained, and returns its parameters by name."""
    models = unet, text_encoder = pipeline.unet, pipeline.text_encoder
    for model in models:
        model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive("adapter", "initial weights", seed))  # leaves GPUs' alone
        lora.add(unet if tuning.unet else None, text_encoder if tuning.text_encoder else None, rank=settings.rank)
    if tuning.tokens:
        textual_inversion.add(pipeline, tuning.tokens)
    unet.to(memory_format=torch.channels_last).train()
    text_encoder.train()
    return lora.parameters(*models)


def _loss(pipeline: StableDiffusionPipeline, latents: Tensor, noise: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
    """Epsilon- or v-MSE in float32, as the checkpoint was trained."""
    schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = schedule.add_noise(latents, noise, times)
    predicted = pipeline.unet(noisy, times, pipeline.text_encoder(tokens)[0]).sample
    velocity = schedule.config["prediction_type"] == "v_prediction"
    target = schedule.get_velocity(latents, noise, times) if velocity else noise
    return nn.functional.mse_loss(predicted.float(), target.float())


def _finite(losses: Sequence[Tensor], done: int) -> list[float]:
    """The losses of the last steps of `done`. Waits for the GPU, which a look at each step's would stop each time."""
    values = torch.stack(list(losses)).tolist()
    for step, value in enumerate(values, done - len(values)):
        if not math.isfinite(value):
            raise ValueError(f"the loss of the fine-tune is {value} at step {step}: lower its lr")
    return values


class _Batches:
    """What step k trains on, as a function of (seed, k) alone."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, pairs: Pairs, tuning: Tuning, settings: FinetuneSettings, seed: int
    ) -> None:
        self._pipeline, self._settings, self._seed, self._tuning = pipeline, settings, seed, tuning
        own = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self._side = min(tuning.side or own, own)
        self._epoch = tuning.epoch(pairs.prompts)
        self._pixels = [_resized(image, self._side) for image in pairs.images]
        known = {prompt: k for k, prompt in enumerate(dict.fromkeys(pairs.prompts))}
        self._alike = [[row for row, of in enumerate(pairs.prompts) if of == prompt] for prompt in known]
        templates = tuning.templates or ("{}",)
        # (prompts, templates, length): each prompt in each template
        self._tokens = torch.stack([self._encoded([t.replace("{}", p) for t in templates]) for p in known])
        self._prompt = torch.tensor([known[prompt] for prompt in pairs.prompts])
        self._posteriors: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}
        pipeline.vae.requires_grad_(False)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents and noise (b, c, h, w), timesteps (b,), token ids (b, length) of one step."""
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
        drawn = torch.randint(templates, (len(rows),), generator=generator) if templates > 1 else 0
        return scaled, noise.to(device), times.to(device), self._tokens[self._prompt[rows], drawn].to(device)

    def _order(self, epoch: int) -> list[int]:
        """Rows of the pairs that an epoch shows, in turn."""
        chance = np.random.default_rng(derive("finetune", "order", self._seed, epoch))
        if not self._tuning.each:
            return chance.permutation(len(self._pixels)).tolist()
        turns = [self._alike[k] for k in chance.permutation(len(self._alike))]
        return [rows[k] for rows in turns for k in chance.integers(len(rows), size=self._tuning.each)]

    def _encoded(self, prompts: list[str]) -> Tensor:
        """Token ids (prompts, length), padded and cut as the pipeline does."""
        tokenizer: Any = self._pipeline.tokenizer
        words: Any = [self._pipeline.maybe_convert_prompt(prompt, tokenizer) for prompt in prompts]
        length = tokenizer.model_max_length
        return torch.tensor(tokenizer(words, padding="max_length", max_length=length, truncation=True)["input_ids"])

    @torch.no_grad()
    def _encode(self, rows: list[int], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Posterior mean and deviation of a random crop of each image; a square one is encoded once."""
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
    """uint8 (h, w, 3) with the shorter side `side`, bilinear, as DataDream does."""
    scale = side / min(image.size)
    width, height = (max(side, round(n * scale)) for n in image.size)
    return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def _identity(pairs: Pairs, tuning: Tuning, settings: FinetuneSettings, seed: int) -> str:
    recipe = dataclasses.replace(settings, checkpoint_every=1)  # changes no result
    return store.key(STEPS["finetune"].version, recipe, tuning, seed, pairs.prompts)


def _restore(held: Mapping[str, Any] | None, trained: Mapping[str, Tensor], optimizer: Any, schedule: Any) -> int:
    """Puts a saved state back and returns the number of steps that were done."""
    if held is None:
        return 0
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(held["trained"][name])
    optimizer.load_state_dict(held["optimizer"])
    schedule.last_epoch = held["step"]
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]
    return held["step"]
