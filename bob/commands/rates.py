"""Rates of each step on each device, published or measured, for `bob plan`.

None of the GPU figures was measured by this project. The rates of a store's finished units are better (`measured`).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from bob import store
from bob.core.memory import CARDS
from bob.core.step_table import PLANNED, STEPS
from bob.pipeline import plan_files

__all__ = ["CARD_NAMES", "DEVICES", "RATES", "Rate", "amount", "evaluations", "measured"]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Rate of one step on one device."""

    per_second: float
    source: str


_ANCHORS = {
    "A100": (1.15, "diffusers' documentation (fp16, torch 2.0, batch 16): 3.60 it/s"),
    "V100": (0.53, "diffusers' documentation (fp16, torch 2.0, batch 16): 1.66 it/s"),
    "T4": (0.14, "diffusers' documentation (fp16, torch 2.0, batch 4): 1.79 it/s"),
    "A10G": (0.50, "taken for an RTX A5000, of the same chip: diffusers' documentation of DeepCache, 15.96 s for 8"),
    "H100": (1.75, "ONNX Runtime, change 22834 (fp16, batch 1): 572 ms; larger batches are faster"),
}
"""Device -> images of Stable Diffusion 1.5 a second at 512 px, 50 steps, with guidance; source of the figure."""
_DERIVED = {"A100-40": "A100", "A100-80": "A100", "H200": "H100", "RTX4090": "A100", "L40S": "A100", "L4": "A100"}
"""Device without a published figure -> device of `_ANCHORS` whose figure is taken in proportion to the peaks of half
precision on the data sheets. Memory, power and other bounds are left out."""
CARD_NAMES = {"A100": "A100-40"}
"""Device -> its name in `memory.CARDS`, if another: the A100 with the smaller memory."""
_EVALUATIONS = 100  # of the U-Net for one of these images: 50 steps, with and without the prompt

_FLOAT32 = {"A100": 4.0, "V100": 4.0, "T4": 6.0, "A10G": 3.0, "H100": 4.0}
"""Device -> time of float32 / time of half precision: assumed from the data sheets' peaks, reduced for the share
of time that memory takes."""
_CAPTIONS = {"A100": 3.0, "H100": 3.3}
"""Device -> answers of 128 tokens a second of Qwen2.5-VL-7B: vLLM 0.7.2, Red Hat's model card. Ours have 5 to 20."""
_PASSES = 1_200.0
"""Training images of ViT-B a second on an A100 in half precision: an assumed order of magnitude."""
_VIT = 3.0  # in ResNet-50's time: `Backbone.cost` of mae_vit_b16


def _table() -> dict[str, dict[str, Rate]]:
    table: dict[str, dict[str, Rate]] = {}
    for device, (images, source) in _ANCHORS.items():
        evaluations, ratio = images * _EVALUATIONS, images / _ANCHORS["A100"][0]
        answers = _CAPTIONS.get(device, _CAPTIONS["A100"] * ratio)
        table[device] = {
            "caption": Rate(
                per_second=answers / 2, source="two answers a picture; vLLM's on the model card, or in proportion to it"
            ),
            "finetune": Rate(
                per_second=evaluations / 3 / _FLOAT32[device],
                source="reckoned: a step costs three evaluations, in float32, of the images a second",
            ),
            "generate": Rate(per_second=evaluations, source=source),
            "classify": Rate(
                per_second=_PASSES * _VIT * ratio, source="assumed: 1,200 of ViT-B a second on an A100, in proportion"
            ),
        }
    return table | {device: _derived(device, of, table[of]) for device, of in _DERIVED.items()}


def _derived(device: str, of: str, rates: Mapping[str, Rate]) -> dict[str, Rate]:
    """Rates of a device in proportion to those of another."""
    peaks = {name: CARDS[name].peaks["float16"] for name in (device, CARD_NAMES.get(of, of))}
    factor = peaks[device] / peaks[CARD_NAMES.get(of, of)]
    return {
        step: Rate(
            per_second=factor * rate.per_second,
            source=f"derived: {factor:.2g} of an {of}'s, as their peaks of half precision ({rate.source})",
        )
        for step, rate in rates.items()
    }


_SAMPLED = 64
"""Finished units of a step and model that are averaged into its rate."""

RATES: Mapping[str, Mapping[str, Rate]] = _table()
"""Device -> step -> rate of one device, with Stable Diffusion 1.5 or 2.1-base and Qwen2.5-VL-7B."""
DEVICES = (*RATES, "cpu")
"""Devices that `--cluster 8xH100` may name; a CPU has measured rates only."""


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
        return work.checkpoint, size * min(work.settings.batch, len(work.pairs))
    if step == "generate":
        return work.checkpoint, size * evaluations
    return work.coordinates.backbone, size * work.cost


def evaluations(rows: Iterable[Mapping[str, Any]]) -> float:
    """Returns the mean U-Net evaluations of an image, over rows with the columns of schema.REQUESTS."""
    counts = [
        row["steps"] * (row["strength"] if row["kind"] == "img2img" else 1) * (2 if row["guidance"] > 1 else 1)
        for row in rows
    ]
    return sum(counts) / max(1, len(counts))


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
    return Rate(per_second=done / seconds, source=f"measured in {artefacts.place()}, by {len(sample)} units")


def _evaluations(artefacts: store.Store, shard: str) -> float:
    columns = ["steps", "strength", "kind", "guidance"]
    return evaluations(artefacts.read_table(shard, columns=columns).to_pylist())
