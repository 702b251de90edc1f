"""Qwen2.5-VL, the paper's captioner (sec. 3.1): 7B as published, 3B (Figure 5), or skyworld's mini one.

    qwen_vl  qwen_vl:7b  qwen_vl:3b  qwen_vl:skyworld  qwen_vl:path:FOLDER

All run the same code. 7B takes 17 GB of a GPU in bfloat16, plus activations.
"""

import os
from pathlib import Path
from typing import NamedTuple

from bob.captioners import Captioner, Loader
from bob.core import registry
from bob.store.keys import fingerprint

__all__ = ["CHECKPOINTS", "Checkpoint", "captioner", "weights"]


class Checkpoint(NamedTuple):
    """Origin of a checkpoint."""

    hub_id: str
    revision: str
    """Commit of the repository on the hub."""
    licence: str


CHECKPOINTS = {
    "7b": Checkpoint("Qwen/Qwen2.5-VL-7B-Instruct", "cc594898137f460bfe9f0759e9844b3ce807cfb5", "Apache-2.0"),
    "3b": Checkpoint(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "66285546d2b821cf421d4f5eb2576359d3770cd3",
        "Qwen Research License (no commercial use)",
    ),
}
"""Short name -> origin; `$BOB_MODELS/qwen_vl-7b` precedes the cache of the hub."""


def _load(argument: str, device: str) -> Captioner:
    """Loads one checkpoint: bfloat16 on a GPU, float32 on a CPU.

    Args:
        argument: `7b` (also if empty), `3b`, `skyworld` or `path:FOLDER`.
        device: as torch names it.

    Raises:
        ValueError: if the argument is unknown, or the weights are not on this machine: nothing is
            downloaded here, since every worker of a cluster would.
    """
    argument = argument or "7b"
    folder = weights(argument)  # fails before the slow imports of torch and transformers
    from bob.captioners import _qwen_vl

    return _qwen_vl.load(folder, name=f"qwen_vl:{argument}", device=device)


def _revision(argument: str) -> str:
    """The commit of a checkpoint on the hub; for a folder, a fingerprint of its files."""
    argument = argument or "7b"
    return CHECKPOINTS[argument].revision if argument in CHECKPOINTS else fingerprint(weights(argument))


def weights(argument: str) -> Path:
    """The folder on this machine with the weights of a checkpoint.

    Raises:
        ValueError: if there is none; says which places were searched and what to do.
    """
    if argument == "skyworld":
        folder = Path(__file__).parents[1] / "skyworld" / "weights" / "captioner"
        return _checked(folder, "it is part of the package, install that again")
    if argument.startswith("path:"):
        return _checked(Path(argument.removeprefix("path:")), "name the folder that holds config.json")
    if argument not in CHECKPOINTS:
        raise ValueError(registry.unknown("checkpoint of qwen_vl", argument, [*CHECKPOINTS, "skyworld", "path:FOLDER"]))
    origin, models = CHECKPOINTS[argument], os.environ.get("BOB_MODELS")
    if models and (folder := Path(models) / f"qwen_vl-{argument}").is_dir():
        return _checked(folder, f"put all files of {origin.hub_id} there")
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    command = f"hf download {origin.hub_id} --revision {origin.revision}"
    try:
        cached = huggingface_hub.snapshot_download(origin.hub_id, revision=origin.revision, local_files_only=True)
        return _checked(Path(cached), f"finish the download: {command}")
    except LocalEntryNotFoundError as error:
        first = f"{Path(models) / f'qwen_vl-{argument}'}, then in " if models else ""
        raise ValueError(
            f"the weights of captioner qwen_vl:{argument} ({origin.hub_id}, {origin.licence}) are not on this machine:"
            f" looked in {first}the Hugging Face cache. Run `{command}`,"
            f" or put the files into $BOB_MODELS/qwen_vl-{argument}, or name their folder: qwen_vl:path:FOLDER."
            " Without a GPU, qwen_vl:skyworld runs the data set skyworld."
        ) from error


def _checked(folder: Path, advice: str) -> Path:
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return folder
    raise ValueError(
        f"no Qwen2.5-VL checkpoint in {folder}: wanted config.json and *.safetensors (no other weights"
        f" are loaded, a pickle runs code); {advice}"
    )


captioner = Loader(
    load=_load,
    revision=_revision,
    weights=weights,
    origins=CHECKPOINTS | {"skyworld": Checkpoint("", "", "Apache-2.0")},
)
