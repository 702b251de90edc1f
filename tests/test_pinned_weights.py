"""Weights on the hub: each is pinned by a commit, is loaded at that commit, and another commit changes the keys."""

import dataclasses
import functools
import re
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from diffusers import StableDiffusionPipeline
from huggingface_hub.errors import OfflineModeIsEnabled

from bob import backbones, captioners
from bob.captioners import qwen_vl
from bob.commands import doctor, estimate
from bob.core import registry
from bob.core.settings import Run
from bob.diffusion import checkpoints, clip_filter
from bob.pipeline import walk
from bob.pipeline.splits import Splits, begin
from bob.steps import caption, classify, finetune
from bob.store import Store

OTHER = "0123456789abcdef0123456789abcdef01234567"

UNPINNED = {"timm/vit_base_patch16_224.mae"}
"""Repositories whose commit nobody has looked up yet; `main` of each is loaded, as the backbone's file says."""


def backbones_on_the_hub() -> list[str]:
    found = [(name, registry.load("backbone", name)) for name in registry.names("backbone")]
    return [name for name, backbone in found if isinstance(backbone, backbones.Backbone) and backbone.hub]


def origins() -> dict[str, str]:
    """Repository -> revision, over all registries."""
    found = {entry.repository: entry.revision for entry in checkpoints.CHECKPOINTS.values() if entry.repository}
    found |= dict(clip_filter.HUBS.values())
    for name in registry.names("captioner"):
        loader: captioners.Loader = registry.load("captioner", name)
        found |= {hub: revision for hub, revision, _ in loader.origins.values() if hub}
    for name in backbones_on_the_hub():
        backbone = backbones.load(name)
        found[backbone.hub] = backbone.commit
    return found


def test_the_registries_name_these_repositories() -> None:
    assert len(origins()) == 8


@pytest.mark.parametrize("repository", origins())
def test_weights_are_pinned_by_a_commit(repository: str) -> None:
    if repository in UNPINNED:
        assert origins()[repository] == "main"
    else:
        assert re.fullmatch("[0-9a-f]{40}", origins()[repository])


def keys(run: Run) -> dict[str, str]:
    """Step -> target of the run's first unit."""
    cell = begin(run, Splits(functools.partial(estimate.dataset_or_stand_in, {}))(run))
    walk._fill_placeholders(cell)
    steps = {"caption": list(caption.units(cell)), "finetune": [unit for unit in [finetune.unit(cell)] if unit]}
    cell.adapter = finetune.adapter(*steps["finetune"], after=0)
    steps["generate"] = list(walk.generations(cell, Store("/nowhere"), writes=False))
    steps["sweep"] = classify.sweep(cell)
    return {step: made[0].target for step, made in steps.items() if made}


RUN = Run(
    dataset="pets", method="diff_mix", checkpoint="sd21", captioner="qwen_vl:7b", backbone="clip_vit_b16", shots=5
)


@pytest.mark.parametrize(
    ("replaced", "steps"),
    [
        ("checkpoint", {"finetune", "generate", "sweep"}),
        ("captioner", {"caption"}),  # the steps after it depend on the captions' words
        ("filter", {"generate", "sweep"}),
        ("backbone", {"sweep"}),
    ],
)
def test_another_commit_gives_other_keys(replaced: str, steps: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUN if replaced != "captioner" else dataclasses.replace(RUN, method="bob")
    before = keys(run)
    if replaced == "checkpoint":
        entry = dataclasses.replace(checkpoints.CHECKPOINTS["sd21"], revision=OTHER)
        monkeypatch.setitem(checkpoints.CHECKPOINTS, "sd21", entry)
    elif replaced == "captioner":
        monkeypatch.setitem(qwen_vl.CHECKPOINTS, "7b", qwen_vl.CHECKPOINTS["7b"]._replace(revision=OTHER))
    elif replaced == "filter":
        monkeypatch.setitem(clip_filter.HUBS, "clip_vit_b32", (clip_filter.HUBS["clip_vit_b32"][0], OTHER))
    else:
        other = dataclasses.replace(backbones.load("clip_vit_b16"), commit=OTHER)
        monkeypatch.setattr(backbones, "load", lambda name: other)
    after = keys(run)
    assert {step for step in before if before[step] != after[step]} == steps


class Asked(Exception):
    """Raised in place of a download, with what would have been asked of the hub."""


def ask(name: str, *files: str, revision: str | None = None, **_: Any) -> None:
    raise Asked(name, revision)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to the hub raises `Asked`, and no weights are at hand."""
    monkeypatch.delenv("BOB_MODELS", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", ask)
    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", ask)
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", ask)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", [*backbones_on_the_hub(), f"timm:resnet50.tv_in1k@{OTHER}", f"clip:openai/x@{OTHER}"])
def test_a_backbone_is_loaded_at_its_commit(name: str) -> None:
    backbone = backbones.load(name)
    with pytest.raises(Asked) as asked:
        backbone.build(("a", "b"), descriptor="bird")
    assert asked.value.args == (backbone.hub, backbone.commit)
    assert backbone.commit == (OTHER if "@" in name else origins()[backbone.hub])


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_a_checkpoint_is_loaded_at_its_commit(name: str) -> None:
    with pytest.raises(Asked) as asked:
        checkpoints.load(name, device=torch.device("cpu"), dtype=torch.float32)
    entry = checkpoints.CHECKPOINTS[name]
    assert asked.value.args == (entry.repository, entry.revision)


@pytest.mark.usefixtures("hub")
def test_the_filter_is_loaded_at_its_commit() -> None:
    with pytest.raises(Asked) as asked:
        clip_filter.ClipScorer("sd21", torch.device("cpu"))
    assert asked.value.args == clip_filter.HUBS["clip_vit_b32"]
    assert clip_filter.revision("sd21") == f"clip_vit_b32 {asked.value.args[1]}"


@pytest.mark.parametrize("kind", ["timm:resnet50.tv_in1k", "clip:openai/clip-vit-large-patch14"])
def test_a_checkpoint_by_name_is_pinned_after_an_at(kind: str) -> None:
    assert (backbones.load(kind).commit, backbones.load(f"{kind}@{OTHER}").commit) == ("main", OTHER)
    assert backbones.load(kind).hub == backbones.load(f"{kind}@{OTHER}").hub
    for wrong in ("v1.0", OTHER[:7], ""):
        with pytest.raises(ValueError, match="pinned by the 40 hex digits of a commit on the hub, got"):
            backbones.load(f"{kind}@{wrong}")


def test_a_pinned_backbone_in_a_folder_goes_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ValueError, match=r"holds timm-resnet50\.tv_in1k/model\.safetensors, or go online"):
        backbones.load(f"timm:resnet50.tv_in1k@{OTHER}").build(("a", "b"), descriptor="bird")


def offline(*_: Any, **__: Any) -> None:
    raise OfflineModeIsEnabled("offline")


def test_doctor_names_the_commits() -> None:
    shown = [origin for finding in doctor.look() for origin in finding.origin]
    for repository, revision in origins().items():
        if repository not in dict(clip_filter.HUBS.values()):  # the filter's CLIP is none of doctor's kinds
            assert f"huggingface.co/{repository}/tree/{revision}" in shown
