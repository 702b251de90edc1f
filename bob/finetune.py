"""Step 2: train pairs -> adapter. One LoRA of a T2I checkpoint for the whole data set.

The recipe is DataDream's with BOB's numbers (paper Table 4): epsilon-MSE at uniform timesteps, AdamW,
linear warm-up and cosine, clipping at 1, no mixed precision. All randomness of step k is derived
from (seed, k), so a run that was interrupted and resumed ends with the same weights.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_cosine_schedule_with_warmup
from PIL import Image
from torch import Tensor, nn

from bob import resume, store
from bob.diffusion import lora
from bob.seeds import derive
from bob.settings import FinetuneSettings
from bob.versions import STEPS

__all__ = ["Pairs", "Tell", "train_lora"]

Tell = Callable[[str], None]
"""Shows a line of progress."""


@dataclass(frozen=True)
class Pairs:
    """The decoded train pairs."""

    images: Sequence[Image.Image]
    prompts: Sequence[str]


def train_lora(
    pipeline: StableDiffusionPipeline,
    pairs: Pairs,
    *,
    settings: FinetuneSettings,
    seed: int,
    state: bytes | None = None,
    save: resume.Save | None = None,
    tell: Tell | None = None,
) -> None:
    """Adds a LoRA to the pipeline's U-Net and text encoder and trains it in place.

    Args:
        pipeline: in float32; its VAE encodes the images.
        pairs: images of any size and their prompts.
        settings: the recipe.
        seed: of the run.
        state: to resume from; one that is damaged or of another fine-tune is told of and not used.
        save: called every `checkpoint_every` steps.
        tell: called as often with a few words on how far it is; without it nothing is shown.

    Raises:
        ValueError: if the loss is not finite.
    """
    unet, text_encoder = pipeline.unet, pipeline.text_encoder
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive("adapter", "initial weights", seed))  # leaves GPUs' alone
        lora.add(unet, text_encoder, rank=settings.rank)
    unet.to(memory_format=torch.channels_last).train()
    text_encoder.train()
    trained = lora.parameters(unet, text_encoder)
    optimizer = torch.optim.AdamW(trained.values(), lr=settings.lr, weight_decay=settings.weight_decay)
    total = settings.steps(len(pairs.prompts))
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, total)
    identity = _identity(pairs, settings, seed)
    first = _restore(resume.unpack(state, identity, tell=tell or print), trained, optimizer, schedule)
    batches, start = _Batches(pipeline, pairs, settings, seed), time.monotonic()
    for step in range(first, total):
        loss = _loss(pipeline, *batches(step))
        if not torch.isfinite(loss):
            raise ValueError(f"the loss of the fine-tune is {loss.item()} at step {step}: lower its lr")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.values(), settings.max_norm)
        optimizer.step()
        schedule.step()
        done = step + 1
        if done % settings.checkpoint_every == 0 and done < total:
            if save is not None:
                held = {"step": done, "trained": trained, "optimizer": optimizer.state_dict()}
                save(done, resume.pack(identity, held))
            if tell is not None:
                left = (time.monotonic() - start) / (done - first) * (total - done)
                tell(f"step {done} of {total}, loss {loss.item():.4f}, {left:.0f} s left")
    unet.eval()
    text_encoder.eval()


def _loss(pipeline: StableDiffusionPipeline, latents: Tensor, noise: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
    """Epsilon- or v-MSE in float32, as the checkpoint was trained."""
    schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = schedule.add_noise(latents, noise, times)
    predicted = pipeline.unet(noisy, times, pipeline.text_encoder(tokens)[0]).sample
    velocity = schedule.config["prediction_type"] == "v_prediction"
    target = schedule.get_velocity(latents, noise, times) if velocity else noise
    return nn.functional.mse_loss(predicted.float(), target.float())


class _Batches:
    """What step k trains on, as a function of (seed, k) alone."""

    def __init__(self, pipeline: StableDiffusionPipeline, pairs: Pairs, settings: FinetuneSettings, seed: int) -> None:
        self._pipeline, self._settings, self._seed = pipeline, settings, seed
        self._side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self._pixels = [_resized(image, self._side) for image in pairs.images]
        tokenizer = pipeline.tokenizer
        made = tokenizer(
            list(pairs.prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True
        )
        self._tokens = torch.tensor(made["input_ids"]).to(pipeline.device)
        self._posteriors: dict[int, tuple[Tensor, Tensor]] = {}
        pipeline.vae.requires_grad_(False)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents and noise (b, c, h, w), timesteps (b,), token ids (b, length) of one step."""
        count, batch = len(self._pixels), self._settings.batch
        epoch, place = divmod(step, -(-count // batch))
        shuffle = np.random.default_rng(derive("finetune", "order", self._seed, epoch)).permutation(count)
        rows = shuffle[place * batch : (place + 1) * batch].tolist()
        generator = torch.Generator().manual_seed(derive("finetune", "step", self._seed, step))
        mean, deviation = (torch.stack(part) for part in zip(*self._encode(rows, generator), strict=True))
        latents = mean + deviation * torch.randn(mean.shape, generator=generator).to(mean)
        noise = torch.randn(mean.shape, generator=generator)
        times = torch.randint(self._pipeline.scheduler.config["num_train_timesteps"], (len(rows),), generator=generator)
        scaled = (latents * self._pipeline.vae.config.scaling_factor).contiguous(memory_format=torch.channels_last)
        device = self._pipeline.device
        return scaled, noise.to(device), times.to(device), self._tokens[rows]

    @torch.no_grad()
    def _encode(self, rows: list[int], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Posterior mean and deviation of a random crop of each image; a square one is encoded once."""
        for row in rows:
            height, width = self._pixels[row].shape[:2]
            top, left = (int(torch.randint(n - self._side + 1, (), generator=generator)) for n in (height, width))
            if row not in self._posteriors or height != width:
                crop = self._pixels[row][top : top + self._side, left : left + self._side]
                image = torch.from_numpy(crop).permute(2, 0, 1)[None].float().to(self._pipeline.device) / 127.5 - 1
                posterior = self._pipeline.vae.encode(image).latent_dist
                self._posteriors[row] = posterior.mean[0], posterior.std[0]
            yield self._posteriors[row]


def _resized(image: Image.Image, side: int) -> np.ndarray:
    """uint8 (h, w, 3) with the shorter side `side`, bilinear, as DataDream does."""
    scale = side / min(image.size)
    width, height = (max(side, round(n * scale)) for n in image.size)
    return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def _identity(pairs: Pairs, settings: FinetuneSettings, seed: int) -> str:
    recipe = dataclasses.replace(settings, checkpoint_every=1)  # changes no result
    return store.key(STEPS["finetune"], recipe, seed, pairs.prompts)


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
