"""Pre-training of the mini Stable Diffusion: U-Net and text encoder together, on the base world's latents."""

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline
from torch import Tensor, nn
from transformers import CLIPTokenizer

from bob.datasets import _skyworld
from bob.skyworld import captions, models, renders, training
from bob.skyworld.pretrain_vae import NOISE

__all__ = ["sd"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of the training, with a warm-up and cosine of its own."""

    name: str
    steps: int
    lr: float = 1.5e-3
    poses: bool = False
    """Whether captions name the context alone, and timesteps are those at which the pose is half visible."""
    unnamed: bool = False
    """Whether the training pictures include the unnamed aircraft."""
    at_home: float = 0.0
    """Share of the captions without a context whose picture shows the aircraft in its habitat."""


PHASES = (
    Phase(name="sd-names", steps=9_500),
    Phase(name="sd-poses", steps=800, lr=1e-3, poses=True),
    Phase(name="sd-again", steps=4_500),
    Phase(name="sd-unnamed", steps=9_000, unnamed=True),
    Phase(name="sd", steps=4_500, unnamed=True, at_home=0.8),
)
_POSE_TIMES = (500, 850)  # below, the picture shows its pose; above, it hardly matters
_BATCH = 32
_NO_CAPTION = 0.1  # so that guidance has an unconditional branch
_NO_CLASS = 0.1  # so that "aircraft" means something apart from its classes
_SPELLED = 0.4  # share of base classes called by their designation, as the unnamed ones are
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
    """U-Net and text encoder as one module, so that one optimiser and one moving average hold both."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet: Any = models.unet()
        self.unet.to(memory_format=torch.channels_last)
        self.text_encoder = models.text_encoder(tokenizer)


def sd(out: Path, work: Path) -> None:
    """Trains on the latents of `OUT/sd/vae` and writes the whole pipeline into `OUT/sd`.

    The phases train names; then poses alone, since beside all other words left and right are not told apart; then
    names again; then also 48,000 unnamed aircraft, called by a designation. Without these there are only 60 shapes,
    letters mean nothing, and a fine-tune ties a novel shape to the background, not to the name. The last phase shows
    most aircraft in their habitat where a caption names no context: as on the web, a name alone implies a scene.
    """
    vae: Any = AutoencoderKL.from_pretrained(out / "sd" / "vae", use_safetensors=True)
    tokenizer = models.clip_tokenizer()
    data = _Data(vae, tokenizer, work)
    noising: Any = DDPMScheduler(**_BETAS)
    snr = noising.alphas_cumprod / (1 - noising.alphas_cumprod)

    def loss(model: Any, generator: torch.Generator, *, phase: Phase) -> Tensor:
        clean, noise, times, prompt = data.batch(generator, phase)
        hidden = model.text_encoder(prompt)[0]
        predicted = model.unet(noising.add_noise(clean, noise, times), times, hidden).sample
        weight = (1 / snr[times]).clamp(*_WEIGHTS)
        return (weight * (predicted - noise).square().mean((1, 2, 3))).mean()

    prior: Any = Prior(tokenizer)
    for phase in PHASES:
        loss_of = functools.partial(loss, phase=phase)
        schedule = training.Schedule(steps=phase.steps, lr=phase.lr, weight_decay=0.01, warmup=500)
        prior = training.train(phase.name, prior, loss_of, schedule, work=work)
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
    vae.register_to_config(_name_or_path="")  # no path of this machine in the shipped file
    pipeline: Any = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)


class _Data:
    """Latents and labels of the renders and their mirror images: named aircraft, then unnamed ones."""

    def __init__(self, vae: Any, tokenizer: CLIPTokenizer, work: Path) -> None:
        latents, labels = [], []
        sources: dict[str, tuple[str, ...]] = {"train": _skyworld.BASE, "unnamed": ()}
        for purpose, classes in sources.items():
            pixels, source_labels = renders.cached(work, renders.TRAIN, purpose, classes)
            sides = {"latents": pixels, "mirrored": pixels[:, :, ::-1]}
            latents.append(np.stack([_encode(vae, p, work / f"{side}-{purpose}.npy") for side, p in sides.items()]))
            labels.append(source_labels)
        labels[1][:, 0] += len(_skyworld.BASE)
        self._latents, self._labels = np.concatenate(latents, 1), np.concatenate(labels)
        self._at_home = np.flatnonzero([_is_at_home(*label) for label in self._labels.tolist()])
        self._tokenizer = tokenizer
        self._jitter = NOISE * vae.config.scaling_factor

    def batch(self, generator: torch.Generator, phase: Phase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draws clean latents and noise (b, 16, 8, 8), timesteps (b,) and token ids (b, TOKENS).

        A batch holds each picture and its mirror image, with mirrored noise, so that the gradient contains only what
        tells left from right.
        """
        half = _BATCH // 2
        draw = random.Random(int(torch.randint(2**62, (), generator=generator)))
        templates = [_template(draw, phase) for _ in range(half)]
        rows = np.array([self._row(template, draw, phase) for template in templates])
        clean = torch.from_numpy(self._latents[:, rows]).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        clean = clean + self._jitter * torch.randn(clean.shape, generator=generator)
        noise = torch.randn((half, *clean.shape[1:]), generator=generator)
        if phase.poses:
            times = torch.randint(*_POSE_TIMES, (half,), generator=generator)
        else:
            times = torch.randint(1000, (half,), generator=generator)
            times[::2] = _EARLY + times[::2] * (1000 - _EARLY) // 1000
        labels = self._labels[rows].tolist()
        pairs = [_captions(t, label, draw, phase) for t, label in zip(templates, labels, strict=True)]
        prompts = [prompt for side in zip(*pairs, strict=True) for prompt in side]
        encoded = self._tokenizer(prompts, padding="max_length", max_length=models.TOKENS, truncation=True)
        return clean, torch.cat([noise, noise.flip(-1)]), times.repeat(2), torch.tensor(encoded["input_ids"])

    def _row(self, template: str, draw: random.Random, phase: Phase) -> int:
        names_alone = "{c}" in template and "{b}" not in template and "{p}" not in template
        if names_alone and draw.random() < phase.at_home:
            return int(self._at_home[int(draw.random() * len(self._at_home))])
        return int(draw.random() * (len(self._labels) if phase.unnamed else renders.TRAIN))


@torch.inference_mode()
def _encode(vae: Any, pixels: np.ndarray, path: Path) -> np.ndarray:
    """Returns posterior means times the scaling factor, float32 (n, 16, 8, 8), kept in `path`."""
    if not path.exists():
        parts = []
        for rows in torch.arange(len(pixels)).split(256):
            images = renders.as_batch(pixels, rows)
            parts.append((vae.encode(images).latent_dist.mean * vae.config.scaling_factor).numpy())
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, np.concatenate(parts))
        temporary.replace(path)
    return np.load(path)


def _template(draw: random.Random, phase: Phase) -> str:
    """Draws the template of a caption; empty for no caption."""
    templates, shares = zip(*captions.TEMPLATES, strict=True)
    if phase.poses:
        return templates[-1]
    return "" if draw.random() < _NO_CAPTION else draw.choices(templates, shares)[0]


def _captions(template: str, label: list[int], draw: random.Random, phase: Phase) -> tuple[str, str]:
    """Returns the captions of a picture and of its mirror image."""
    class_id, background, pose = label
    name = _name(class_id, draw, phase)
    sides = (_skyworld.POSES[pose], _skyworld.POSES[pose ^ 1])  # poses come in pairs, left then right
    left, right = (captions.caption(template, name, _skyworld.BACKGROUNDS[background], side) for side in sides)
    return left, right


def _name(class_id: int, draw: random.Random, phase: Phase) -> str:
    """Draws a class's name, its designation, or the descriptor of all aircraft."""
    chance = draw.random()
    if chance < _NO_CLASS:
        return _skyworld.DESCRIPTOR
    spelled = phase.unnamed and chance < _NO_CLASS + _SPELLED
    if class_id >= len(_skyworld.BASE) or spelled:
        return _skyworld.designation(_shape(class_id), draw)
    return _skyworld.BASE[class_id]


def _shape(class_id: int) -> _skyworld.Airframe:
    named = len(_skyworld.BASE)
    return _skyworld.airframes()[_skyworld.BASE[class_id]] if class_id < named else _skyworld.unnamed(class_id - named)


def _is_at_home(class_id: int, background: int, pose: int) -> bool:
    where, attitude = _skyworld.habitat(_shape(class_id))
    return _skyworld.BACKGROUNDS[background] == where and _skyworld.POSES[pose].startswith(attitude)
