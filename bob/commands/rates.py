"""How fast a step goes on a device, as far as is known without having run it: the table that `bob plan` reckons with.

None of the GPU figures was measured by this project. A store that holds finished units tells better (`measured`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bob import store
from bob.core.step_table import PLANNED, STEPS
from bob.pipeline import plan_files
from bob.steps.caption import CaptionWork
from bob.steps.finetune import FinetuneWork
from bob.steps.generate import GenerateWork
from bob.steps.workers import work_of

__all__ = ["DEVICES", "RATES", "Rate", "amount", "evaluations", "measured"]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One figure."""

    per_second: float
    source: str


_ANCHORS = {
    "A100": (1.15, "diffusers' documentation (fp16, torch 2.0, batch 16): 3.60 it/s"),
    "V100": (0.53, "diffusers' documentation (fp16, torch 2.0, batch 16): 1.66 it/s"),
    "T4": (0.14, "diffusers' documentation (fp16, torch 2.0, batch 4): 1.79 it/s"),
    "A10G": (0.50, "taken for an RTX A5000, of the same chip: diffusers' documentation of DeepCache, 15.96 s for 8"),
    "H100": (1.75, "ONNX Runtime, change 22834 (fp16, batch 1): 572 ms; larger batches are faster"),
}
"""Device -> images of Stable Diffusion 1.5 a second at 512 px, 50 steps, with guidance; where that is from."""
_EVALUATIONS = 100  # of such an image: 50 steps, with and without the prompt

_FLOAT32 = {"A100": 4.0, "V100": 4.0, "T4": 6.0, "A10G": 3.0, "H100": 4.0}
"""Device -> how many times longer float32 takes than half precision: assumed from the data sheets' peaks, softened by
what memory takes."""
_CAPTIONS = {"A100": 3.0, "H100": 3.3}
"""Device -> answers of 128 tokens a second of Qwen2.5-VL-7B: vLLM 0.7.2, Red Hat's model card. Ours are of 5 to 20."""
_PASSES = 1_200.0
"""Trained pictures of ViT-B a second on an A100 in half precision: an order of magnitude, assumed."""
_VIT = 3.0  # in ResNet-50's time: `Backbone.cost` of mae_vit_b16


def _table() -> dict[str, dict[str, Rate]]:
    found: dict[str, dict[str, Rate]] = {}
    for device, (images, source) in _ANCHORS.items():
        evaluations, against = images * _EVALUATIONS, images / _ANCHORS["A100"][0]
        answers = _CAPTIONS.get(device, _CAPTIONS["A100"] * against)
        found[device] = {
            "caption": Rate(
                per_second=answers / 2, source="two answers a picture; vLLM's on the model card, or in proportion to it"
            ),
            "finetune": Rate(
                per_second=evaluations / 3 / _FLOAT32[device],
                source="reckoned: a step costs three evaluations, in float32, of the images a second",
            ),
            "generate": Rate(per_second=evaluations, source=source),
            "classify": Rate(
                per_second=_PASSES * _VIT * against, source="assumed: 1,200 of ViT-B a second on an A100, in proportion"
            ),
        }
    return found


_SAMPLED = 64
"""Finished units of a step and model that are looked at to know its rate."""

RATES: Mapping[str, Mapping[str, Rate]] = _table()
"""Device -> step -> rate of one device, with Stable Diffusion 1.5 or 2.1-base and Qwen2.5-VL-7B."""
DEVICES = (*RATES, "cpu")
"""What `--cluster 8xH100` may name; nothing is known of a CPU but what was measured."""


def amount(work: Any, size: int, *, evaluations: float = 0.0) -> tuple[str, float]:
    """Which model a unit is done with, and how much work it is, in the effort of `step_table.STEPS`.

    Args:
        work: of the unit.
        size: of the unit.
        evaluations: of the U-Net for one image, where images are drawn.
    """
    if isinstance(work, CaptionWork):
        return work.captioner, size
    if isinstance(work, FinetuneWork):
        return work.checkpoint, size * min(work.settings.batch, len(work.pairs))
    if isinstance(work, GenerateWork):
        return work.checkpoint, size * evaluations
    return work.coordinates.backbone, size * work.cost


def evaluations(rows: Iterable[Mapping[str, Any]]) -> float:
    """Evaluations of the U-Net for an image, on average over rows of schema.REQUESTS or their like."""
    counts = [
        row["steps"] * (row["strength"] if row["kind"] == "img2img" else 1) * (2 if row["guidance"] > 1 else 1)
        for row in rows
    ]
    return sum(counts) / max(1, len(counts))


def measured(artefacts: store.Store) -> dict[tuple[str, str], Rate]:
    """(step, model) -> the rate of one worker of this store, by the manifests of some finished units of each.

    Raises:
        ValueError: if there is no such store, or something in it is damaged.
    """
    files = artefacts.listing()
    noted = [path for path in files if path.startswith("plans/") and path.endswith(".parquet")]
    seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in plan_files.read(artefacts, noted).to_pylist():
        step = PLANNED[row["step"]].step
        if row["target"] in files and STEPS[step].effort:
            manifest = artefacts.manifest(row["target"])
            of_image = _evaluations(artefacts, row["target"]) if step == "generate" else 0.0
            work = work_of(step, manifest["config"])
            model, done = amount(work, row["size"], evaluations=of_image)
            some = seen.setdefault((step, model), [])
            if len(some) < _SAMPLED:
                some.append((done, manifest["seconds"]))
    return {which: _rate(some, artefacts) for which, some in seen.items() if sum(seconds for _, seconds in some)}


def _rate(some: list[tuple[float, float]], artefacts: store.Store) -> Rate:
    done, seconds = map(sum, zip(*some, strict=True))
    return Rate(per_second=done / seconds, source=f"measured in {artefacts.place()}, by {len(some)} units")


def _evaluations(artefacts: store.Store, shard: str) -> float:
    columns = ["steps", "strength", "kind", "guidance"]
    return evaluations(artefacts.read_table(shard, columns=columns).to_pylist())
