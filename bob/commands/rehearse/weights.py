"""The weights of a rehearsal: the real ones where they are on this machine, else random ones, apart from all others."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bob import backbones, captioners
from bob.commands.doctor import cached
from bob.core import registry
from bob.diffusion import checkpoints

__all__ = ["ready"]

_VARIABLE = "BOB_MODELS"


@contextlib.contextmanager
def ready(step: str, model: str, *, folder: Path, device: str) -> Iterator[bool]:
    """Context in which the model's loader finds weights; yields whether these are random.

    Random weights are written to `folder` once, and `$BOB_MODELS` leads there inside the context only.

    Args:
        step: one of `step_table.STEPS`.
        model: as `rates.amount` names it.
        folder: parent of the folders of random weights.
        device: device on which large weights are drawn.

    Raises:
        ValueError: if the weights are missing and the architecture is not known without them.
    """
    name = {"caption": _captioner, "classify": _backbone}.get(step, _checkpoint)(model, folder, device)
    if not name:
        yield False
        return
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(folder)
    try:
        yield True
    finally:
        os.environ.pop(_VARIABLE)
        if before is not None:
            os.environ[_VARIABLE] = before


def _checkpoint(model: str, folder: Path, device: str) -> str:
    """Writes random weights unless the real ones are here; returns the name of their folder, else an empty text."""
    place, revision = checkpoints.source(model)
    if revision is None or cached(place, "model_index.json", revision)[0]:
        return ""
    from bob.diffusion import random_weights

    if not (folder / model).exists():
        random_weights.write(model, folder / model)
    return model


def _backbone(model: str, folder: Path, device: str) -> str:
    backbone = backbones.load(model)
    name = backbone.name.removesuffix(f"@{backbone.commit}").replace(":", "-").replace("/", "-")
    own = Path(os.environ.get(_VARIABLE, "/nonexistent"), name)
    if not backbone.hub or any((own / file).is_file() for file in ("model.safetensors", "config.json")):
        return ""
    if cached(backbone.hub, "model.safetensors", backbone.commit)[0]:
        return ""
    from bob.backbones import _random_weights

    if not (folder / name).exists():
        _random_weights.write(backbone, folder / name)
    return name


def _captioner(model: str, folder: Path, device: str) -> str:
    kind, _, argument = model.partition(":")
    loader: captioners.Loader = registry.load("captioner", kind)
    argument = argument or next(iter(loader.origins), "")
    name = f"{kind}-{argument}"
    if not loader.origins:
        return ""
    try:
        loader.weights(argument)
    except ValueError:
        from bob.captioners import _random_weights

        if argument not in _random_weights.ARCHITECTURES:
            raise
        if not (folder / name).exists():
            _random_weights.write(argument, folder / name, device=device)
        return name
    return ""
