"""CLIP as a classifier: scores images against one prompt per class, with LoRA in both towers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["Prompted", "add_lora"]

_RANK, _ALPHA, _DROPOUT = 16, 32, 0.1


class Prompted(nn.Module):
    """CLIP as a classifier: frozen scale x cosine between a picture and one prompt per class.

    In training the prompts are encoded at every step, since their tower learns; in evaluation once, until
    `train` or `eval` is called. They are padded to the longest only: attention is causal and the embedding is that
    of the end token, so padding after it changes nothing.
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
        with torch.autocast(images.device.type, enabled=False):  # at scale 100 bfloat16 errs by a half
            return self.clip.logit_scale.float().exp() * normalize(features.float()) @ texts.T

    def train(self, mode: bool = True) -> "Prompted":
        """Sets the mode and drops the encoded prompts, since weights may change."""
        self._encoded = None
        return super().train(mode)

    def _texts(self) -> Tensor:
        if self._encoded is not None:
            return self._encoded
        if self.training:
            return self._encode()
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not be used in training
            self._encoded = self._encode()
        return self._encoded

    def _encode(self) -> Tensor:
        return normalize(self.clip.get_text_features(input_ids=self.tokens).pooler_output.float())


def add_lora(clip: Any) -> None:
    """Freezes CLIP and puts LoRA on q and v of every block of both towers: rank 16, alpha 32, dropout 0.1.

    B starts at zero, so logits are unchanged at first. Source: DataDream's models/clip.py and models/lora.py.
    """
    from peft import LoraConfig, inject_adapter_in_model

    clip.requires_grad_(False)
    config = LoraConfig(r=_RANK, lora_alpha=_ALPHA, lora_dropout=_DROPOUT, target_modules=["q_proj", "v_proj"])
    inject_adapter_in_model(config, clip)
