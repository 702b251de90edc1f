"""What the CLIP backbones share: finding weights, LoRA in both towers, a head made of prompts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bob.backbones import Backbone, _augment, _datadream
from bob.core.prompts import class_prompt
from bob.core.settings import SweepSettings

__all__ = ["MEAN", "STD", "SWEEP", "Clip", "Prompted", "add_lora"]

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's normalisation."""

SWEEP = SweepSettings(lrs=(1e-4, 1e-5, 1e-6, 1e-7), weight_decays=(5e-4, 1e-4))
"""Table 4. The text of A.1 has 1e-7 for the second weight decay; DataDream's script has 1e-4 too (methods.md 6.1)."""

_RANK, _ALPHA, _DROPOUT = 16, 32, 0.1


class Prompted(nn.Module):
    """CLIP as a classifier: frozen scale x cosine between a picture and one prompt a class.

    In training the prompts are encoded at every step, for their tower learns; in evaluation once, until
    `train` or `eval` is called. They are cut to the longest: attention is causal and the embedding is that of the
    end token, so what would follow it changes nothing.
    """

    def __init__(self, clip: Any, tokenizer: Any, prompts: Sequence[str]) -> None:
        super().__init__()
        self.clip = clip
        tokens = tokenizer(list(prompts), padding=True, truncation=True)["input_ids"]
        if len(set(map(tuple, tokens))) < len(prompts):
            raise ValueError(
                "CLIP tells classes apart by their names, but two of them read the same: rename one of"
                f" {sorted(prompts)[:5]} ..."
            )
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)
        self._encoded: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float (b, 3, size, size) -> float32 logits (b, classes)."""
        texts = self._texts()
        features = self.clip.get_image_features(pixel_values=images).pooler_output
        with torch.autocast(images.device.type, enabled=False):  # times 100, bfloat16 is off by a half
            return self.clip.logit_scale.float().exp() * normalize(features.float()) @ texts.T

    def train(self, mode: bool = True) -> "Prompted":
        """Forgets the encoded prompts: weights are about to change, or have."""
        self._encoded = None
        return super().train(mode)

    def _texts(self) -> Tensor:
        if self._encoded is not None:
            return self._encoded
        if self.training:
            return self._encode()
        with torch.inference_mode(False), torch.no_grad():  # a tensor that any mode can use later
            self._encoded = self._encode()
        return self._encoded

    def _encode(self) -> Tensor:
        return normalize(self.clip.get_text_features(input_ids=self.tokens).pooler_output.float())


def add_lora(clip: Any) -> None:
    """Freezes CLIP and puts LoRA on q and v of every block of both towers: rank 16, alpha 32, dropout 0.1.

    B starts at zero, so nothing changes yet. Source: DataDream's models/clip.py and models/lora.py.
    """
    from peft import LoraConfig, inject_adapter_in_model

    clip.requires_grad_(False)
    config = LoraConfig(r=_RANK, lora_alpha=_ALPHA, lora_dropout=_DROPOUT, target_modules=["q_proj", "v_proj"])
    inject_adapter_in_model(config, clip)


@final
@dataclass(frozen=True, kw_only=True)
class Clip(Backbone):
    """A transformers CLIPModel: starts at zero-shot, learns LoRA in both towers."""

    hub: str = ""
    """Where the weights are taken from if `$BOB_MODELS/NAME` does not have them; empty: nowhere."""
    folder: str = ""
    """Of this package or of the user: looked at before the hub."""

    def build(self, class_names: Sequence[str], *, descriptor: str) -> nn.Module:
        from transformers import CLIPModel, CLIPTokenizer, CLIPVisionConfig
        from transformers.utils import logging

        logging.disable_progress_bar()
        place = self._place()
        try:
            clip = CLIPModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32)
            tokenizer = CLIPTokenizer.from_pretrained(place)
        except OSError as error:
            online = f", or go online once, so that {self.hub} is cached" if self.hub else ""
            raise ValueError(
                f"wanted the weights of {self.name}, found none at {place} ({str(error).splitlines()[0]}). Set"
                f" BOB_MODELS to a folder that holds {self._own()}, as transformers saves a CLIPModel and its"
                f" tokenizer, in safetensors{online}"
            ) from error
        vision = clip.config.vision_config
        assert isinstance(vision, CLIPVisionConfig)
        side = vision.image_size
        if side != self.size:
            raise ValueError(f"{place} sees {side} pixels, but {self.name} was to see {self.size}: it is another model")
        add_lora(clip)
        return Prompted(clip, tokenizer, [class_prompt(descriptor, name) for name in class_names])

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        """The picture's embedding, as long as it comes."""
        clip: Any = model
        return clip.clip.get_image_features(pixel_values=images).pooler_output

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """DataDream's transform; at 32 px a shift by up to 3 pixels, a flip, 20 % of brightness and contrast."""
        if self.size > 32:
            return _datadream.augment(images, generator, size=self.size)
        images = _augment.flip(_augment.shift(images, generator, reach=3), generator)
        return _augment.jitter(images, generator, brightness=0.2, contrast=0.2)

    def _own(self) -> str:
        return self.name.replace(":", "-").replace("/", "-")

    def _place(self) -> str:
        own = Path(os.environ.get("BOB_MODELS", "/nonexistent"), self._own())
        return str(own) if (own / "config.json").is_file() else self.folder or self.hub
