"""Pre-trains the mini Stable Diffusion: U-Net and text encoder together, on the base world's latents."""

import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline
from torch import Tensor, nn
from transformers import CLIPTokenizer

from bob.skyworld import captions, models, renders, training, world
from bob.skyworld.pretrain_vae import NOISE

__all__ = ["sd"]

_STEPS = 14_000
_POSE_STEPS = 1_000
_POSE_TIMES = (500, 850)  # below, the picture shows its pose; above, it hardly matters
_BATCH = 32
_NO_CAPTION = 0.1  # so that guidance has an unconditional branch
_NO_CLASS = 0.1  # so that "aircraft" means something apart from its classes
_UNREAD = 0.1  # so that a name it has never read means any aircraft, and does not drown the context
_WEIGHTS = (0.3, 10.0)  # of the loss, 1 / SNR between these: the error of the image, not of the noise
_EARLY = 600  # half of the timesteps are drawn from here up, where the prompt alone can tell the pose

_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
"""Stable Diffusion's own schedule."""


class Prior(nn.Module):
    """What is trained together, so that one optimiser and one average hold both."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet: Any = models.unet()
        self.unet.to(memory_format=torch.channels_last)
        self.text_encoder = models.text_encoder(tokenizer)


def sd(out: Path, work: Path) -> None:
    """Trains on `OUT/sd/vae`'s latents and writes the whole pipeline into `OUT/sd`.

    Poses first and alone: learnt beside classes and backgrounds, left and right stayed one word for
    9,500 steps. As a phase in the middle of a training this told them apart within 300 steps; from
    nothing it has only been run for 500, which were not enough.
    """
    vae: Any = AutoencoderKL.from_pretrained(out / "sd" / "vae", use_safetensors=True)
    tokenizer = models.clip_tokenizer()
    data = _Data(vae, tokenizer, work)
    schedule: Any = DDPMScheduler(**_BETAS)
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)

    def loss(model: Any, generator: torch.Generator, *, poses: bool) -> Tensor:
        clean, noise, times, prompt = data.batch(generator, poses=poses)
        hidden = model.text_encoder(prompt)[0]
        predicted = model.unet(schedule.add_noise(clean, noise, times), times, hidden).sample
        weight = (1 / snr[times]).clamp(*_WEIGHTS)
        return (weight * (predicted - noise).square().mean((1, 2, 3))).mean()

    prior: Any = Prior(tokenizer)
    for name, steps, lr, poses in (("sd-poses", _POSE_STEPS, 1e-3, True), ("sd", _STEPS, 1.5e-3, False)):
        loss_of = functools.partial(loss, poses=poses)
        prior = training.train(name, prior, loss_of, steps=steps, lr=lr, work=work, weight_decay=0.01, warmup=500)
        prior.requires_grad_(True)
    _save(vae, tokenizer, prior, out / "sd")


def _save(vae: Any, tokenizer: CLIPTokenizer, prior: Any, folder: Path) -> None:
    parts: dict[str, Any] = {  # diffusers types every part as required, and accepts None
        "vae": vae,
        "text_encoder": prior.text_encoder,
        "tokenizer": tokenizer,
        "unet": prior.unet.to(memory_format=torch.contiguous_format),
        "scheduler": PNDMScheduler(**_BETAS, skip_prk_steps=True, set_alpha_to_one=False),
        "safety_checker": None,
        "feature_extractor": None,
    }
    vae.register_to_config(_name_or_path="")  # the folder it was loaded from is nobody's business
    pipeline: Any = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)


class _Data:
    """Latents of the renders and of their mirror images, their labels, and every caption's tokens."""

    def __init__(self, vae: Any, tokenizer: CLIPTokenizer, work: Path) -> None:
        pixels, self._labels = renders.cached(work, renders.TRAIN, "train")
        mirrored = _encode(vae, pixels[:, :, ::-1], work / "mirrored.npy")
        self._latents = np.stack([_encode(vae, pixels, work / "latents.npy"), mirrored])
        self._tokens = _token_table(tokenizer)
        self._jitter = NOISE * vae.config.scaling_factor

    def batch(self, generator: torch.Generator, *, poses: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clean latents and noise (b, 16, 8, 8), timesteps (b,) and token ids (b, TOKENS).

        Each picture stands beside its mirror image, under the same noise, so that what left and right
        have in common cancels out of their gradient.
        """
        half = _BATCH // 2
        rows = torch.randint(self._latents.shape[1], (half,), generator=generator).numpy()
        clean = torch.from_numpy(self._latents[:, rows]).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        clean = clean + self._jitter * torch.randn(clean.shape, generator=generator)
        noise = torch.randn((half, *clean.shape[1:]), generator=generator)
        if poses:
            times = torch.randint(*_POSE_TIMES, (half,), generator=generator)
        else:
            times = torch.randint(1000, (half,), generator=generator)
            times[::2] = _EARLY + times[::2] * (1000 - _EARLY) // 1000
        prompt = self._tokens[_caption_rows(self._labels[rows], generator, poses=poses)]
        return clean, torch.cat([noise, noise.flip(-1)]), times.repeat(2), prompt


@torch.inference_mode()
def _encode(vae: Any, pixels: np.ndarray, path: Path) -> np.ndarray:
    """Posterior means times the scaling factor, float32 (n, 16, 8, 8), kept in `path`."""
    if not path.exists():
        parts = []
        for rows in torch.arange(len(pixels)).split(256):
            images = renders.as_batch(pixels, rows)
            parts.append((vae.encode(images).latent_dist.mean * vae.config.scaling_factor).numpy())
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, np.concatenate(parts))
        temporary.replace(path)
    return np.load(path)


_NAMES = (*world.BASE, world.DESCRIPTOR, *captions.UNREAD)
_SHAPE = (len(_NAMES), len(world.BACKGROUNDS), len(world.POSES), len(captions.TEMPLATES))


def _token_table(tokenizer: CLIPTokenizer) -> Tensor:
    """Token ids of every caption, int64 (captions + 1, TOKENS); the last row is the empty caption."""
    texts = [
        captions.caption(template, name, background, pose)
        for name in _NAMES
        for background in world.BACKGROUNDS
        for pose in world.POSES
        for template, _ in captions.TEMPLATES
    ]
    made = tokenizer([*texts, ""], padding="max_length", max_length=models.TOKENS, truncation=True)
    return torch.tensor(made["input_ids"])


def _caption_rows(labels: np.ndarray, generator: torch.Generator, *, poses: bool) -> Tensor:
    """Rows of the token table for (class, background, pose) labels, (b, 3), then for their mirror images."""
    draw = random.Random(int(torch.randint(2**62, (), generator=generator)))
    shares = np.cumsum([share for _, share in captions.TEMPLATES])
    rows, mirrored = [], []
    for name, background, pose in labels.tolist():
        row = other = int(np.prod(_SHAPE))
        if poses or draw.random() >= _NO_CAPTION:
            chance = draw.random()
            if chance < _NO_CLASS:
                name = len(world.BASE)
            elif chance < _NO_CLASS + _UNREAD:
                name = len(world.BASE) + 1 + int(draw.random() * len(captions.UNREAD))
            template = len(shares) - 1 if poses else min(int(np.searchsorted(shares, draw.random())), len(shares) - 1)
            # poses come in pairs, left then right
            row, other = (int(np.ravel_multi_index((name, background, p, template), _SHAPE)) for p in (pose, pose ^ 1))
        rows.append(row)
        mirrored.append(other)
    return torch.tensor(rows + mirrored)
