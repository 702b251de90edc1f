"""Backbone class of all CLIP checkpoints: weights, preprocessing and sweep."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from bob.backbones import Backbone, _datadream, _mini
from bob.core.prompts import class_prompt
from bob.core.settings import SweepSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["MEAN", "STD", "SWEEP", "Clip"]

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's normalisation."""

SWEEP = SweepSettings(lrs=(1e-4, 1e-5, 1e-6, 1e-7), weight_decays=(5e-4, 1e-4))
"""Table 4. The text of A.1 has 1e-7 for the second weight decay, DataDream's script 1e-4."""


@final
@dataclass(frozen=True, kw_only=True)
class Clip(Backbone):
    """A transformers CLIPModel that starts at zero-shot and trains LoRA in both towers."""

    hub: str = ""
    """Repository of the weights if `$BOB_MODELS/NAME` does not have them; empty: none."""
    folder: str = ""
    """Folder of the package or the user with the weights; precedes the hub."""

    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        import torch
        from transformers import CLIPModel, CLIPTokenizer, CLIPVisionConfig
        from transformers.utils import logging

        from bob.backbones._clip_network import Prompted, add_lora

        logging.disable_progress_bar()
        location = self._location()
        pin = self.commit or "main"  # which a folder ignores
        try:
            clip = CLIPModel.from_pretrained(location, revision=pin, use_safetensors=True, dtype=torch.float32)
            tokenizer = CLIPTokenizer.from_pretrained(location, revision=pin)
        except OSError as error:
            online = f", or go online once, so that {self.hub} is cached" if self.hub else ""
            raise ValueError(
                f"wanted the weights of {self.name}, found none at {location} ({str(error).splitlines()[0]}). Set"
                f" BOB_MODELS to a folder that holds {self._folder_name()}, as transformers saves a CLIPModel and its"
                f" tokenizer, in safetensors{online}"
            ) from error
        vision = clip.config.vision_config
        assert isinstance(vision, CLIPVisionConfig)
        side = vision.image_size
        if side != self.size:
            raise ValueError(f"{location} sees {side} pixels, not {self.size} as {self.name}: it is another model")
        add_lora(clip)
        return Prompted(clip, tokenizer, [class_prompt(descriptor, name) for name in class_names])

    def features(self, model: "nn.Module", images: "Tensor") -> "Tensor":
        """The picture's embedding, not normalised."""
        clip: Any = model
        return clip.clip.get_image_features(pixel_values=images).pooler_output

    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        """DataDream's transform; at 32 px a shift by up to 3 pixels, a flip, 20 % of brightness and contrast."""
        if self.size > 32:
            return _datadream.augment(images, generator, size=self.size)
        return _mini.augment(images, generator)

    def _folder_name(self) -> str:
        return self.name.removesuffix(f"@{self.commit}").replace(":", "-").replace("/", "-")

    def _location(self) -> str:
        local = Path(os.environ.get("BOB_MODELS", "/nonexistent"), self._folder_name())
        return str(local) if (local / "config.json").is_file() else self.folder or self.hub
