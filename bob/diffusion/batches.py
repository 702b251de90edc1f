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
from bob.core.transfer import send
from bob.core.types import Tuning
from bob.diffusion import parallel
from bob.diffusion.posteriors import Crop, Posteriors

__all__ = ["Batch", "Batches", "Pairs"]


@dataclass(frozen=True)
class Pairs:
    """The decoded train pairs."""

    images: Sequence[Image.Image]
    """Of any size."""
    prompts: Sequence[str]
    """One an image."""
    classes: Sequence[int] = ()
    """Class id of each image, for `FinetuneSettings.sampling`; empty: each prompt is a class."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of the batch of one step, on the pipeline's device unless said otherwise."""

    latents: Tensor
    """(b, channels, h, w), in the U-Net's scale."""
    noise: Tensor
    """(b, channels, h, w), standard normal."""
    times: Tensor
    """(b,), timesteps."""
    tokens: Tensor
    """(b, length), token ids, on the CPU."""
    prompts: tuple[int, ...]
    """One a row: rows with the same number have the same token ids."""
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
            prompts=self.prompts[rows],
            size=self.size,
            shown=self.shown,
        )

    def distinct(self) -> tuple[Tensor, Tensor | None]:
        """Token ids (d, length) of the distinct prompts, and the place of each row's among them (b,), if rows share."""
        places = {prompt: k for k, prompt in enumerate(dict.fromkeys(self.prompts))}
        device = self.latents.device
        if len(places) == len(self):
            return send(self.tokens, device), None
        first = [self.prompts.index(prompt) for prompt in places]
        of_rows = torch.tensor([places[prompt] for prompt in self.prompts])
        return send(self.tokens[first], device), send(of_rows, device)


class Batches:
    """Batch of step k, as a function of (seed, k) alone.

    Crops, noise and timesteps are drawn for the whole batch, on the CPU, whichever rows of it a process computes.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        pairs: Pairs,
        tuning: Tuning,
        settings: FinetuneSettings,
        seed: int,
        *,
        encoded_at_once: int = 1,
    ) -> None:
        """Encodes nothing yet.

        Args:
            pipeline: its VAE is frozen.
            pairs: images of any size and their prompts.
            tuning: how they are shown.
            settings: `batch` and `sampling` matter.
            seed: the run's.
            encoded_at_once: most images that the VAE encodes at once on a GPU.
        """
        self._pipeline, self._settings, self._seed, self._tuning = pipeline, settings, seed, tuning
        full = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self._side = min(tuning.side or full, full)
        self._epoch = tuning.epoch(pairs.prompts)
        self._pixels = [_resized(image, self._side) for image in pairs.images]
        vae, flip = pipeline.vae.requires_grad_(False), tuning.flip
        self._posteriors = Posteriors(vae, self._pixels, self._side, flip=flip, at_once=encoded_at_once)
        prompts = {prompt: k for k, prompt in enumerate(dict.fromkeys(pairs.prompts))}
        # rows of the pairs of each prompt
        self._by_prompt = [[row for row, own in enumerate(pairs.prompts) if own == prompt] for prompt in prompts]
        templates = tuning.templates or ("{}",)
        # (prompts, templates, length): each prompt in each template
        self._tokens = torch.stack([self._tokenized([t.replace("{}", p) for t in templates]) for p in prompts])
        self._prompt = torch.tensor([prompts[prompt] for prompt in pairs.prompts])
        classes = np.asarray(pairs.classes or self._prompt)
        self._by_class = [np.flatnonzero(classes == k) for k in np.unique(classes)]

    def __call__(self, step: int) -> Batch:
        """Rows of one step's batch that are this process's part."""
        batch = self._settings.batch
        epoch, place = divmod(step, -(-self._epoch // batch))
        rows = self._order(epoch)[place * batch : (place + 1) * batch]
        part, generator = parallel.part(len(rows)), torch.Generator()
        generator.manual_seed(derive("finetune", "step", self._seed, step))
        crops = [self._crop(row, generator) for row in rows]
        shape = (len(rows), *self._posteriors.shape)
        sampled, noise = (torch.randn(shape, generator=generator) for _ in range(2))
        times = torch.randint(self._pipeline.scheduler.config["num_train_timesteps"], (len(rows),), generator=generator)
        templates = self._tokens.shape[1]
        template = torch.randint(templates, (len(rows),), generator=generator) if templates > 1 else 0
        tokens, device = self._tokens[self._prompt[rows], template], self._pipeline.device
        return Batch(
            latents=self._latents(crops[part], sampled[part]),
            noise=send(noise[part], device),
            times=send(times[part], device),
            tokens=tokens[part],
            prompts=tuple((self._prompt[rows] * templates + template)[part].tolist()),
            size=len(rows),
            shown=frozenset(tokens.unique().tolist()),
        )

    def _order(self, epoch: int) -> list[int]:
        """Rows of the pairs that an epoch shows, in order."""
        rng = np.random.default_rng(derive("finetune", "order", self._seed, epoch))
        if not self._tuning.each and self._settings.sampling == "class_balanced":
            return self._balanced(rng)
        if not self._tuning.each:
            return rng.permutation(len(self._pixels)).tolist()
        shuffled = [self._by_prompt[k] for k in rng.permutation(len(self._by_prompt))]
        return [rows[k] for rows in shuffled for k in rng.integers(len(rows), size=self._tuning.each)]

    def _balanced(self, rng: np.random.Generator) -> list[int]:
        """As many rows as there are, of each class the same number or one more, in random order."""
        rounds = -(-self._epoch // len(self._by_class))
        classes = np.concatenate([rng.permutation(len(self._by_class)) for _ in range(rounds)])[: self._epoch]
        return [int(self._by_class[k][rng.integers(len(self._by_class[k]))]) for k in rng.permutation(classes)]

    def _tokenized(self, prompts: list[str]) -> Tensor:
        """Token ids (prompts, length), padded and truncated as the pipeline does."""
        tokenizer: Any = self._pipeline.tokenizer
        words: Any = [self._pipeline.maybe_convert_prompt(prompt, tokenizer) for prompt in prompts]
        length = tokenizer.model_max_length
        return torch.tensor(tokenizer(words, padding="max_length", max_length=length, truncation=True)["input_ids"])

    def _crop(self, row: int, generator: torch.Generator) -> Crop:
        """A random crop of a pair's image."""
        height, width = self._pixels[row].shape[:2]
        top, left = (int(torch.randint(n - self._side + 1, (), generator=generator)) for n in (height, width))
        mirrored = self._tuning.flip and bool(torch.rand((), generator=generator) < 0.5)
        return Crop(row, top, left, mirrored)

    def _latents(self, crops: Sequence[Crop], sampled: Tensor) -> Tensor:
        """Samples of the posteriors of crops, scaled for the U-Net; `sampled` is standard normal."""
        noise = send(sampled, self._pipeline.device)
        if not crops:
            return noise
        mean, deviation = self._posteriors(crops).unbind(1)
        latents = mean + deviation * noise.to(mean)
        return (latents * self._pipeline.vae.config.scaling_factor).contiguous(memory_format=torch.channels_last)


def _resized(image: Image.Image, side: int) -> np.ndarray:
    """uint8 (h, w, 3), resized bilinearly to the shorter side `side`, as DataDream does."""
    scale = side / min(image.size)
    width, height = (max(side, round(n * scale)) for n in image.size)
    return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
