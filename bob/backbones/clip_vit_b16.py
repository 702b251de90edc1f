"""OpenAI's CLIP ViT-B/16, initially zero-shot, tuned by LoRA in both towers as in DataDream.

Rank 16, alpha 32, dropout 0.1 on q and v of all 24 blocks: 983,040 trainable parameters, all others frozen.
"""

from bob.backbones import _clip

__all__ = ["backbone"]

backbone = _clip.Clip(
    name="clip_vit_b16",
    title="CLIP",
    hub="openai/clip-vit-base-patch16",
    commit="5ef227a78de3f75873f373246dac80def63b0003",  # the hub's conversion to safetensors: `main` has a pickle only
    size=224,
    kept=320,
    mean=_clip.MEAN,
    std=_clip.STD,
    cost=3.5,
    sweep=_clip.SWEEP,
)
"""149.6 M parameters, MIT weights."""
