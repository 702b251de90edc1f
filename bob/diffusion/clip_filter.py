"""CLIP scores of drawn images, by which a method's filter keeps or drops them.

The T2I checkpoint's entry in `checkpoints` names the CLIP model: ViT-B/32 for the full-size ones, as in Diff-Mix, and
skyworld's mini CLIP for skyworld. It is searched in `$BOB_MODELS/NAME` first, then in this package, then in the local
hub cache. A folder holds a CLIPModel and its tokenizer as transformers saves them; without a preprocessor_config.json,
pixels are scaled to [-1, 1].
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

__all__ = ["HUBS", "ClipScorer", "revision"]

HUBS = {"clip_vit_b32": ("openai/clip-vit-base-patch32", "c237dc49a33fc61debc9276459120b7eac67e7ef")}
"""Name -> repository on the hub, and the commit of its conversion to safetensors: `main` has a pickle only."""
_SHIPPED = {"clip_mini": Path(__file__).parents[1] / "skyworld" / "weights" / "clip"}


def revision(checkpoint: str) -> str:
    """Name and weights of a T2I checkpoint's CLIP model, as in keys and tables.

    Raises:
        ValueError: if the checkpoint is unknown.
    """
    name = checkpoints.settings(checkpoint).clip
    location, commit = _location(name)
    return f"{name} {commit or fingerprint(Path(location))}"


def _location(name: str) -> tuple[str, str | None]:
    """Location of a CLIP model: (folder or hub id, commit or None for a folder)."""
    local = Path(os.environ.get("BOB_MODELS", "/nonexistent"), name)
    if (local / "config.json").is_file():
        return str(local), None
    return HUBS[name] if name in HUBS else (str(_SHIPPED[name]), None)


class ClipScorer:
    """Scores drawn images with the CLIP model of a T2I checkpoint, loaded on one device.

    Raises:
        ValueError: if the checkpoint is unknown, or CLIP's weights are missing; says what to do.
    """

    def __init__(self, checkpoint: str, device: "torch.device") -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        self.name, self._device = revision(checkpoint), device
        name = checkpoints.settings(checkpoint).clip
        location, commit = _location(name)
        pin = commit or "main"  # which a folder ignores
        try:
            clip: Any = CLIPModel.from_pretrained(location, revision=pin, use_safetensors=True)
            self._tokenizer = CLIPTokenizer.from_pretrained(location, revision=pin)
        except OSError as error:
            raise ValueError(
                f"the filter wants CLIP's weights, found none at {location} ({str(error).splitlines()[0]}). Put {name}"
                f" into $BOB_MODELS/{name} as transformers saves a CLIPModel and its tokenizer, or switch the method's"
                " filter off"
            ) from error
        side = clip.config.vision_config.image_size
        if commit or Path(location, "preprocessor_config.json").is_file():
            self._processor: Any = CLIPImageProcessor.from_pretrained(location, revision=pin)
        else:
            plain: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            self._processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side, **plain)
        self._clip = clip.to(device).eval()
        self._texts: Any = None

    def scores(self, pictures: Sequence["Image.Image"], rule: Filter, class_ids: Sequence[int]) -> list[float]:
        """Probability in [0, 1] of each picture's own class text, or of the first text if not `rule.own`."""
        import torch
        from torch.nn.functional import normalize

        with torch.inference_mode():
            pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(self._device)
            features = normalize(self._clip.get_image_features(pixel_values=pixels).pooler_output.float())
            logits = self._clip.logit_scale.exp() * features @ self._encoded(rule.texts).T
        columns = torch.tensor([k if rule.own else 0 for k in class_ids], device=self._device)
        return logits.softmax(1).gather(1, columns[:, None])[:, 0].tolist()

    def _encoded(self, texts: tuple[str, ...]) -> "torch.Tensor":
        """Unit rows (texts, width), cached for the last rule."""
        from torch.nn.functional import normalize

        if self._texts is None or self._texts[0] != texts:
            tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self._device)
            self._texts = texts, normalize(self._clip.get_text_features(**tokens).pooler_output.float())
        return self._texts[1]
