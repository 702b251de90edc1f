"""The probe of skyworld: a classifier of class, background and pose that evaluates generated pictures.

It is not shipped. It shares neither weights nor architecture with the ResNet that is fine-tuned downstream.
"""

from pathlib import Path

from safetensors.torch import load_model
from torch import Tensor, nn

from bob.backbones import _timm
from bob.datasets._skyworld import BACKGROUNDS, BASE, POSES

__all__ = ["Probe", "load"]


class Probe(nn.Module):
    """float (b, 3, 32, 32) in [-1, 1] -> logits of class (b, 60), background (b, 12), pose (b, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _timm.small_resnet(0, layers=(1, 1, 2, 1), channels=(48, 96, 160, 224), strides=(1, 1, 2))
        self.heads = nn.ModuleList(nn.Linear(224, len(names)) for names in (BASE, BACKGROUNDS, POSES))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.trunk(images)
        return tuple(head(features) for head in self.heads)


def load(folder: Path) -> Probe:
    """The trained probe of `pretrain --only probe`, in evaluation mode.

    Raises:
        ValueError: if the folder holds none.
    """
    path = folder / "model.safetensors"
    if not path.exists():
        raise ValueError(
            f"wanted the trained probe {path}, which does not exist: make it with"
            " python -m bob.skyworld.pretrain --out FOLDER --only probe"
        )
    probe = Probe()
    load_model(probe, path)
    return probe.eval()
