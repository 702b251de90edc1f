"""Any classifier of timm by its name: `timm:vit_base_patch14_dinov2`, `timm:convnext_tiny`, `timm:MODEL@COMMIT`.

All layers are trained with DataDream's augmentation, over ResNet-50's grid; `--sweep.layer-decays` sweeps layer-wise
learning rates. Input size and normalisation are those of the weights; licences differ: see timm. Without the
commit of the model's repository on the hub, `main` is loaded, whose changes change no key.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from bob.backbones import Backbone, Family, _datadream, _timm, pinned

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Timm", "backbone"]

_KEPT = 320  # pixels, for a network with 224-pixel input


@final
@dataclass(frozen=True, kw_only=True)
class Timm(Backbone):
    """A pre-trained model of timm with a fresh linear head."""

    model: str
    """timm's name, with or without the tag of the weights."""

    def build(self, class_names: Sequence[str], *, descriptor: str) -> "nn.Module":
        import timm

        config: Any = timm.get_pretrained_cfg(self.model)
        weights = _timm.find(self.name, hub=self.hub, commit=self.commit)
        model = timm.create_model(self.model, pretrained=False, num_classes=len(class_names))
        return _timm.fresh_head(model, weights, head=config.classifier)

    def augment(self, images: "Tensor", generator: "torch.Generator") -> "Tensor":
        return _datadream.augment(images, generator, size=self.size)

    def parameter_groups(self, model: "nn.Module", *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        if layer_decay == 1.0:
            return super().parameter_groups(model, weight_decay=weight_decay, layer_decay=layer_decay)
        return _timm.layer_groups(model, weight_decay=weight_decay, layer_decay=layer_decay)


def _make(checkpoint: str) -> Timm:
    import timm  # the only source of its list of models; imports torch

    model, commit = pinned(checkpoint)
    config: Any = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    if config is None or not config.has_weights:
        near = ", ".join(difflib.get_close_matches(model, timm.list_models(pretrained=True), n=3))
        raise ValueError(f"timm has no pre-trained model {model!r}; near it are {near or 'none of its names'}")
    if not isinstance(config.classifier, str) or len(set(config.input_size[1:])) > 1:
        raise ValueError(f"timm:{model} has no single linear head, or wants pictures that are not square: take another")
    size = config.input_size[-1]
    hub = f"timm/{config.architecture}.{config.tag}" if config.hf_hub_id == "timm/" else config.hf_hub_id or ""
    return Timm(
        name=f"timm:{checkpoint}",
        model=model,
        hub=hub,
        commit=commit if hub else "",
        size=size,
        kept=max(size, _KEPT),
        mean=config.mean,
        std=config.std,
    )


backbone = Family(make=_make, example="vit_base_patch14_dinov2")
