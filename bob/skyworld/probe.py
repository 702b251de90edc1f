"""Skyworld's probe: a classifier of class, background and pose that evaluates generated pictures.

The weights do not include it. It shares neither weights nor architecture with the downstream ResNet.
"""

from pathlib import Path

from safetensors.torch import load_model
from torch import Tensor, nn

from bob.backbones import _timm
from bob.datasets._skyworld import BACKGROUNDS, BASE, POSES

__all__ = ["Probe", "load"]


class Probe(nn.Module):
    """Network: float (b, 3, 32, 32) in [-1, 1] -> logits of class (b, 60), background (b, 12), pose (b, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _timm.small_resnet(0, layers=(1, 1, 2, 1), channels=(48, 96, 160, 224), strides=(1, 1, 2))
        self.heads = nn.ModuleList(nn.Linear(224, len(names)) for names in (BASE, BACKGROUNDS, POSES))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.trunk(images)
        return tuple(head(features) for head in self.heads)


def load(folder: Path) -> Probe:
    """Loads the probe that `pretrain --only probe` trained, in evaluation mode.

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
