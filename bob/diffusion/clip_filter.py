"""CLIP scores of drawn images, by which a method's filter keeps or drops them.

The CLIP is that of the T2I checkpoint's entry in `checkpoints`: ViT-B/32 for the full ones, as Diff-Mix has it, and
skyworld's own for skyworld. It is looked for in `$BOB_MODELS/NAME` first, then in this package, then in the local
hub cache. A folder holds a CLIPModel and its tokenizer as transformers saves them; without a preprocessor_config.json,
pixels are brought to [-1, 1].
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image

from bob.core.types import Filter
from bob.diffusion import checkpoints
from bob.store.keys import fingerprint

__all__ = ["ClipScorer", "revision"]

_HUBS = {"clip_vit_b32": "openai/clip-vit-base-patch32"}
_SHIPPED = {"clip_mini": Path(__file__).parents[1] / "skyworld" / "weights" / "clip"}


def revision(checkpoint: str) -> str:
    """Name and weights of the CLIP that goes with a T2I checkpoint, as keys and tables have them.

    Raises:
        ValueError: if the checkpoint is unknown.
    """
    name = checkpoints.settings(checkpoint).clip
    place = _place(name)
    return f"{name} {fingerprint(Path(place)) if Path(place).is_dir() else 'main'}"


def _place(name: str) -> str:
    """A folder, or a hub id."""
    own = Path(os.environ.get("BOB_MODELS", "/nonexistent"), name)
    if (own / "config.json").is_file():
        return str(own)
    return _HUBS.get(name) or str(_SHIPPED[name])


class ClipScorer:
    """The CLIP that goes with a T2I checkpoint, loaded on one device; scores drawn images.

    Raises:
        ValueError: if the checkpoint is unknown, or CLIP's weights are not there; says what to do.
    """

    def __init__(self, checkpoint: str, device: "torch.device") -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        self.name, self._device = revision(checkpoint), device
        name = checkpoints.settings(checkpoint).clip
        place = _place(name)
        try:
            clip: Any = CLIPModel.from_pretrained(place, use_safetensors=True)
            self._tokenizer = CLIPTokenizer.from_pretrained(place)
        except OSError as error:
            raise ValueError(
                f"the filter wants CLIP's weights, found none at {place} ({str(error).splitlines()[0]}). Put {name}"
                f" into $BOB_MODELS/{name} as transformers saves a CLIPModel and its tokenizer, or switch the method's"
                " filter off"
            ) from error
        side = clip.config.vision_config.image_size
        if Path(place, "preprocessor_config.json").is_file() or not Path(place).is_dir():
            self._processor: Any = CLIPImageProcessor.from_pretrained(place)
        else:
            plain: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            self._processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side, **plain)
        self._clip = clip.to(device).eval()
        self._texts: Any = None

    def scores(self, pictures: Sequence["Image.Image"], rule: Filter, class_ids: Sequence[int]) -> list[float]:
        """CLIP's probability of the text that counts, for each picture, in [0, 1]."""
        import torch
        from torch.nn.functional import normalize

        with torch.inference_mode():
            pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(self._device)
            features = normalize(self._clip.get_image_features(pixel_values=pixels).pooler_output.float())
            logits = self._clip.logit_scale.exp() * features @ self._encoded(rule.texts).T
        counts = torch.tensor([k if rule.own else 0 for k in class_ids], device=self._device)
        return logits.softmax(1).gather(1, counts[:, None])[:, 0].tolist()

    def _encoded(self, texts: tuple[str, ...]) -> "torch.Tensor":
        """Unit rows (texts, width); those of one rule are encoded once."""
        from torch.nn.functional import normalize

        if self._texts is None or self._texts[0] != texts:
            tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self._device)
            self._texts = texts, normalize(self._clip.get_text_features(**tokens).pooler_output.float())
        return self._texts[1]
