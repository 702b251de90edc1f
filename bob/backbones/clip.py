"""Any CLIP that transformers loads, tuned as clip_vit_b16: `clip:openai/clip-vit-large-patch14`, `clip:path:FOLDER`.

`clip:REPOSITORY@COMMIT` pins the weights; without the commit `main` is loaded, whose changes change no key.
"""

import json
from pathlib import Path

from bob.backbones import Family, _clip, pinned
from bob.store.keys import fingerprint

__all__ = ["backbone"]

_WIDE = "-336"
"""Suffix of hub checkpoints with 336-pixel input; a folder's config.json has its input size."""
_KEPT = 320  # pixels, for a network with 224-pixel input


def _make(checkpoint: str) -> _clip.Clip:
    hub, commit, folder, revision = "", "", "", "1"
    if checkpoint.startswith("path:"):
        folder = str(Path(checkpoint.removeprefix("path:")).expanduser())
        config = Path(folder, "config.json")
        if not config.is_file():
            raise ValueError(
                f"{folder} is no CLIP: it has no config.json. Give a folder that transformers' save_pretrained made of"
                " a CLIPModel and of its tokenizer, with safetensors weights"
            )
        size = json.loads(config.read_text(encoding="utf-8"))["vision_config"].get("image_size", 224)
        revision = fingerprint(Path(folder))
    else:
        hub, commit = pinned(checkpoint)
        size = 336 if hub.endswith(_WIDE) else 224
    return _clip.Clip(
        name=f"clip:{checkpoint}",
        hub=hub,
        commit=commit,
        folder=folder,
        size=size,
        kept=size if size < 224 else max(size, _KEPT),
        mean=_clip.MEAN,
        std=_clip.STD,
        cost=3.5,
        sweep=_clip.SWEEP,
        revision=revision,
    )


backbone = Family(make=_make, example="openai/clip-vit-base-patch32")
