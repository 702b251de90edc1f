"""Rates of each step on each device for `bob plan`: published, derived from counts, or measured in a store.

None of the GPU figures was measured by this project. The rates of a store's finished units are better (`measured`).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from bob import backbones, store
from bob.commands import roofline
from bob.core import memory
from bob.core.memory import CARDS
from bob.core.settings import FinetuneSettings
from bob.core.step_table import PLANNED, STEPS
from bob.core.types import Tuning
from bob.diffusion import checkpoints
from bob.pipeline import plan_files

__all__ = ["CARD_NAMES", "DEVICES", "RATES", "Rate", "amount", "evaluations", "measured", "rate", "weight"]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Rate of one step on one device."""

    per_second: float
    basis: Literal["measured", "derived", "assumed"]
    """Whether the rate was measured, here or by others for the same work; or reckoned from counts of the work and
    data sheets; or taken from other work."""
    source: str


_ANCHORS = {
    "A100": (1.15, "diffusers' documentation (fp16, torch 2.0, batch 16): 3.60 it/s"),
    "V100": (0.53, "diffusers' documentation (fp16, torch 2.0, batch 16): 1.66 it/s"),
    "T4": (0.14, "diffusers' documentation (fp16, torch 2.0, batch 4): 1.79 it/s"),
}
"""Device -> images of Stable Diffusion 1.5 a second at 512 px, 50 steps, with guidance; source of the figure. Others
are derived from the A100's. An H100's then lies between ONNX Runtime's 1.75 at batch 1 (change 22834) and the 6.8 to
which MLPerf v4.1's 2.04 of SDXL, tuned, amounts."""
CARD_NAMES = {"A100": "A100-40"}
"""Device -> its name in `memory.CARDS`, if another: the A100 with the smaller memory."""
_EVALUATIONS = 102  # of the U-Net for one of these images: PNDM's 51 for 50 steps, with and without the prompt

_ENCODES = 0.39
"""VAE encodes of a picture and step: photographs of 4:3 have 171 crops at 512 px, of which 400 epochs (Table 4) show
155, each encoded once. Square pictures need none. Assumed: the plan does not know the pictures' shapes."""
_CAPTIONS = {"A100": 3.0, "H100": 3.3}
"""Device -> answers of 128 tokens a second of Qwen2.5-VL-7B: vLLM 0.7.2, Red Hat's model card. Ours have 5 to 20, from
another program."""


def _card(device: str) -> str:
    return CARD_NAMES.get(device, device)


def _rates(device: str) -> dict[tuple[str, str], Rate]:
    """(step, model) -> rate of a device; an empty model stands for all others."""
    card, faster = _card(device), roofline.seconds(roofline.DRAWN, _card("A100"))
    ratio = faster / roofline.seconds(roofline.DRAWN, card)
    images, source = _ANCHORS.get(device, (_ANCHORS["A100"][0] * ratio, ""))
    derived = f"{ratio:.2g} of an A100's, by arithmetic and bandwidth ({_ANCHORS['A100'][1]})"
    rates = {
        ("caption", ""): Rate(
            per_second=_CAPTIONS.get(device, _CAPTIONS["A100"] * ratio) / 2,
            basis="assumed",
            source="two answers a picture, at the rate of vLLM's 128 tokens on the model card, or in proportion to it",
        ),
        ("generate", ""): Rate(
            per_second=images * _EVALUATIONS, basis="measured" if source else "derived", source=source or derived
        ),
    }
    for architecture, work in roofline.FINETUNED.items():
        each = roofline.seconds(work, card) + _ENCODES * roofline.seconds(roofline.ENCODE, card)
        rates["finetune", architecture] = Rate(
            per_second=1 / each,
            basis="derived",
            source="arithmetic and bandwidth of a LoRA step of 2.2 evaluations in float32 (convolutions in TF32) and of"
            f" {_ENCODES:g} VAE encodes",
        )
    for backbone, work in roofline.TRAINED.items():
        rates["classify", backbone] = Rate(
            per_second=backbones.load(backbone).cost / roofline.seconds(work, card),
            basis="derived",
            source=f"arithmetic and bandwidth of a step of {backbone} in half precision, augmentation included",
        )
    return rates | {("finetune", ""): rates["finetune", "sd15"], ("classify", ""): rates["classify", "resnet50"]}


_SAMPLED = 64
"""Finished units of a step and model that are averaged into its rate."""

_OF_MODELS = {device: _rates(device) for device in (*CARD_NAMES, *CARDS)}
RATES: Mapping[str, Mapping[str, Rate]] = {
    device: {step: rate for (step, model), rate in found.items() if not model} for device, found in _OF_MODELS.items()
}
"""Device -> step -> rate of one device, with Stable Diffusion 1.5, Qwen2.5-VL-7B and ResNet-50."""
DEVICES = (*RATES, "cpu")
"""Devices that `--cluster 8xH100` may name; a CPU has measured rates only."""


def rate(device: str, step: str, model: str) -> Rate | None:
    """Returns the rate of a step with a model, or of the step with the model of `RATES`; None for a CPU.

    Args:
        device: one of `DEVICES`.
        step: one of `step_table.STEPS`.
        model: as `amount` names it.
    """
    found = _OF_MODELS.get(device, {})
    return found.get((step, model)) or found.get((step, ""))


def amount(step: str, work: Any, size: int, *, evaluations: float = 0.0) -> tuple[str, float]:
    """Returns the model of a unit, and its amount of work in the effort of `step_table.STEPS`.

    Args:
        step: the unit's step.
        work: the unit's work, or an object with its attributes.
        size: the unit's size.
        evaluations: U-Net evaluations for one image, if images are drawn.
    """
    if step == "caption":
        return work.captioner, size
    if step == "finetune":
        return work.checkpoint, size * min(work.settings.batch, len(work.pairs)) * weight(work)
    if step == "generate":
        return work.checkpoint, size * evaluations
    return work.coordinates.backbone, size * work.cost


def weight(work: Any) -> float:
    """Returns the arithmetic of a fine-tune's picture and step, in that of LoRA at the checkpoint's own side.

    Args:
        work: the unit's work, or an object with its attributes.
    """
    tuning = getattr(work, "tuning", None)  # manifests of earlier versions have none
    architecture = checkpoints.architecture(work.checkpoint)
    own, whole = (memory.finetune(architecture, t, FinetuneSettings()) for t in (tuning or Tuning(), Tuning()))
    return own.flops / whole.flops if own and whole else 1.0


def evaluations(rows: Iterable[Mapping[str, Any]]) -> float:
    """Returns the mean U-Net evaluations of an image, over rows with the columns of schema.REQUESTS.

    The inversions of Diff-II's sources, which its images share, are not counted.
    """
    counts = [_steps(row) * (2 if row["guidance"] > 1 else 1) for row in rows]
    return sum(counts) / max(1, len(counts))


def _steps(row: Mapping[str, Any]) -> float:
    """Evaluations of one image's sampler: PNDM, the checkpoints' own, has one more than steps."""
    return row["steps"] * (row["strength"] if row["kind"] == "img2img" else 1) + (row["scheduler"] == "default")


def measured(artefacts: store.Store) -> dict[tuple[str, str], Rate]:
    """Returns (step, model) -> rate of one worker, from the manifests of a store's finished units.

    Raises:
        ValueError: if the store does not exist, or a plan or manifest is damaged.
    """
    files = artefacts.listing()
    plans = [path for path in files if path.startswith("plans/") and path.endswith(".parquet")]
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in plan_files.read(artefacts, plans).to_pylist():
        step = PLANNED[row["step"]].step
        if row["target"] in files and STEPS[step].effort:
            manifest = artefacts.manifest(row["target"])
            evaluated = _evaluations(artefacts, row["target"]) if step == "generate" else 0.0
            work = _attributes(manifest["config"])
            model, done = amount(step, work, row["size"], evaluations=evaluated)
            sample = samples.setdefault((step, model), [])
            if len(sample) < _SAMPLED:
                sample.append((done, manifest["seconds"]))
    return {key: _rate(sample, artefacts) for key, sample in samples.items() if sum(seconds for _, seconds in sample)}


def _attributes(config: Any) -> Any:
    """Returns a manifest's `config` as an object with attributes, whichever fields its version wrote."""
    return json.loads(json.dumps(config), object_hook=lambda fields: SimpleNamespace(**fields))


def _rate(sample: list[tuple[float, float]], artefacts: store.Store) -> Rate:
    done, seconds = map(sum, zip(*sample, strict=True))
    source = f"{len(sample)} units in {artefacts.place()}"
    return Rate(per_second=done / seconds, basis="measured", source=source)


def _evaluations(artefacts: store.Store, shard: str) -> float:
    columns = ["steps", "strength", "kind", "guidance", "scheduler"]
    return evaluations(artefacts.read_table(shard, columns=columns).to_pylist())
