"""Batches of a fine-tune: the train pairs of step k, encoded, with their noise and timesteps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from bob.core.seeds import derive
from bob.core.settings import FinetuneSettings
from bob.core.types import Tuning
from bob.diffusion import parallel

__all__ = ["Batch", "Batches", "Pairs"]


@dataclass(frozen=True)
class Pairs:
    """The decoded train pairs."""

    images: Sequence[Image.Image]
    """Of any size."""
    prompts: Sequence[str]
    """One an image."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of the batch of one step, on the pipeline's device."""

    latents: Tensor
    """(b, channels, h, w), in the U-Net's scale."""
    noise: Tensor
    """(b, channels, h, w), standard normal."""
    times: Tensor
    """(b,), timesteps."""
    tokens: Tensor
    """(b, length), token ids."""
    size: int
    """Rows of the whole batch, those of other processes and micro-batches included: the loss is the mean over them."""
    shown: frozenset[int]
    """Token ids of the whole batch."""

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch(
            latents=self.latents[rows],
            noise=self.noise[rows],
            times=self.times[rows],
            tokens=self.tokens[rows],
            size=self.size,
            shown=self.shown,
        )


class Batches:
    """Batch of step k, as a function of (seed, k) alone.

    Crops, noise and timesteps are drawn for the whole batch, on the CPU, whichever rows of it a process computes.
    """

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

    def __call__(self, step: int) -> Batch:
        """Rows of one step's batch that are this process's part."""
        batch = self._settings.batch
        epoch, place = divmod(step, -(-self._epoch // batch))
        rows = self._order(epoch)[place * batch : (place + 1) * batch]
        part, generator = parallel.part(len(rows)), torch.Generator()
        generator.manual_seed(derive("finetune", "step", self._seed, step))
        crops = [self._crop(row, generator) for row in rows]
        shape = (len(rows), *self._latent_shape())
        sampled, noise = (torch.randn(shape, generator=generator) for _ in range(2))
        times = torch.randint(self._pipeline.scheduler.config["num_train_timesteps"], (len(rows),), generator=generator)
        templates = self._tokens.shape[1]
        template = torch.randint(templates, (len(rows),), generator=generator) if templates > 1 else 0
        tokens, device = self._tokens[self._prompt[rows], template], self._pipeline.device
        return Batch(
            latents=self._latents(rows[part], crops[part], sampled[part]),
            noise=noise[part].to(device),
            times=times[part].to(device),
            tokens=tokens[part].to(device),
            size=len(rows),
            shown=frozenset(tokens.unique().tolist()),
        )

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

    def _crop(self, row: int, generator: torch.Generator) -> tuple[int, int, bool]:
        """Top, left and whether mirrored, of a random crop of a pair's image."""
        height, width = self._pixels[row].shape[:2]
        top, left = (int(torch.randint(n - self._side + 1, (), generator=generator)) for n in (height, width))
        return top, left, self._tuning.flip and bool(torch.rand((), generator=generator) < 0.5)

    def _latent_shape(self) -> tuple[int, int, int]:
        side = self._side // self._pipeline.vae_scale_factor
        return self._pipeline.vae.config.latent_channels, side, side

    def _latents(self, rows: Sequence[int], crops: Sequence[tuple[int, int, bool]], sampled: Tensor) -> Tensor:
        """Samples of the posteriors of cropped images, scaled for the U-Net; `sampled` is standard normal."""
        if not rows:
            return sampled.to(self._pipeline.device)
        posteriors = [self._posterior(row, *crop) for row, crop in zip(rows, crops, strict=True)]
        mean, deviation = (torch.stack(part) for part in zip(*posteriors, strict=True))
        latents = mean + deviation * sampled.to(mean)
        return (latents * self._pipeline.vae.config.scaling_factor).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _posterior(self, row: int, top: int, left: int, mirrored: bool) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior of a cropped image; square images are encoded once."""
        pixels = self._pixels[row]
        is_square = pixels.shape[0] == pixels.shape[1]
        if (row, mirrored) in self._posteriors and is_square:
            return self._posteriors[row, mirrored]
        crop = pixels[top : top + self._side, left : left + self._side]
        crop = np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].float().to(self._pipeline.device) / 127.5 - 1
        encoded = self._pipeline.vae.encode(image).latent_dist
        posterior = encoded.mean[0], encoded.std[0]
        if is_square:
            self._posteriors[row, mirrored] = posterior
        return posterior


def _resized(image: Image.Image, side: int) -> np.ndarray:
    """uint8 (h, w, 3), resized bilinearly to the shorter side `side`, as DataDream does."""
    scale = side / min(image.size)
    width, height = (max(side, round(n * scale)) for n in image.size)
    return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
