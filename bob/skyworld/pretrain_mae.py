"""Pre-training of the mini MAE: a ViT that reconstructs hidden patches, without labels or captions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_model
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from bob.backbones import _augment, mae_mini
from bob.datasets import _skyworld
from bob.skyworld import renders, training

__all__ = ["Mae", "mae"]

_BATCH = 128
_HELD = 600
_SEEN = 0.25
"""Share of the patches that the encoder sees (the paper hides 75 %)."""
_WIDTH, _DEPTH = 64, 2  # of the decoder


class Mae(nn.Module):
    """Masked autoencoder: encodes a quarter of the patches, decodes all; the loss is that of the hidden ones.

    Source: He et al. 2022, arXiv:2111.06377; each target patch is normalised on its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder: Any = mae_mini.network(0, pretraining=True)
        side = self.encoder.patch_embed.grid_size
        with torch.no_grad():  # learnt embeddings start from sines and cosines
            self.encoder.pos_embed[:, 1:] = _positions(side, self.encoder.embed_dim)
        self.inward = nn.Linear(self.encoder.embed_dim, _WIDTH)
        self.hidden = nn.Parameter(0.02 * torch.randn(1, 1, _WIDTH))
        self.positions: Tensor
        self.register_buffer("positions", _positions(side, _WIDTH))
        self.decoder = nn.Sequential(*(Block(_WIDTH, 4, qkv_bias=True) for _ in range(_DEPTH)), nn.LayerNorm(_WIDTH))
        self.outward = nn.Linear(_WIDTH, 3 * mae_mini.PATCH**2)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (b, 3, s, s) in [-1, 1] -> mean squared error of the hidden patches; a grey patch has 1."""
        tokens = self.encoder.patch_embed(images) + self.encoder.pos_embed[:, 1:]
        count = tokens.shape[1]
        order = torch.rand(tokens.shape[:2], generator=generator).argsort(1)
        visible = order[:, : int(count * _SEEN), None]
        first = (self.encoder.cls_token + self.encoder.pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = torch.cat([first, tokens.gather(1, visible.expand(-1, -1, tokens.shape[2]))], 1)
        tokens = self.inward(self.encoder.norm(self.encoder.blocks(tokens)))[:, 1:]
        whole = self.hidden.expand(len(images), count, -1).scatter(1, visible.expand(-1, -1, _WIDTH), tokens)
        predicted = self.outward(self.decoder(whole + self.positions))
        targets = _patches(images)
        mean, variance = targets.mean(-1, keepdim=True), targets.var(-1, keepdim=True)
        error = (predicted - (targets - mean) / (variance + 1e-6).sqrt()).square().mean(-1)  # (b, count)
        masked = torch.ones_like(error).scatter(1, visible[..., 0], 0.0)
        return (error * masked).sum() / masked.sum()


def mae(out: Path, work: Path) -> None:
    """Trains the MAE on named and unnamed aircraft, as it needs no names, mirrored and shifted by up to 4 pixels."""
    sources: dict[str, tuple[str, ...]] = {"train": _skyworld.BASE, "unnamed": ()}
    pixels = np.concatenate([renders.cached(work, renders.TRAIN, *source)[0] for source in sources.items()])
    held_out, _ = renders.cached(work, _HELD, "check")

    def loss_of(model: Any, generator: torch.Generator) -> Tensor:
        images = renders.as_batch(pixels, torch.randint(len(pixels), (_BATCH,), generator=generator))
        return model(_augment.augment(images, generator, (_augment.Shift(reach=4), _augment.Flip())), generator)

    @torch.inference_mode()
    def error(model: Any) -> float:
        return model(renders.as_batch(held_out, torch.arange(_HELD)), torch.Generator().manual_seed(0)).item()

    model = training.train(
        "mae",
        Mae(),
        loss_of,
        training.Schedule(steps=3_500, lr=1.5e-3, weight_decay=0.05),
        work=work,
        check=lambda model: f"error of hidden patches {error(model):.3f},",
    )
    folder = out / "mae"
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"hidden_patch_error": round(error(model), 4)}
    (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n")
    save_model(model.encoder.half(), str(folder / "model.safetensors"))


def _positions(side: tuple[int, int], width: int) -> Tensor:
    """Returns sines and cosines of the patches' positions, (1, patches, width)."""
    return build_sincos2d_pos_embed(list(side), width).unsqueeze(0)


def _patches(images: Tensor) -> Tensor:
    """(b, 3, s, s) -> (b, patches, pixels of a patch), row by row in the order of `patch_embed`."""
    p = mae_mini.PATCH
    b, c, s, _ = images.shape
    return images.reshape(b, c, s // p, p, s // p, p).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
