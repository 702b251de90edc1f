"""Units of fine-tunes: what their keys depend on, and what changes no result."""

import dataclasses

import pytest
import torch

from bob import pipeline
from bob.core.types import Unit
from bob.steps import finetune
from bob.steps.finetune import FinetuneWorker


def unit(base, store, **changes) -> Unit:
    run = dataclasses.replace(base, finetune=dataclasses.replace(base.finetune, **changes))
    made = finetune.unit(pipeline.split(run, store))
    assert made is not None
    return made


@pytest.mark.parametrize("change", [{"micro_batch": 2}, {"checkpoint_every": 7}, {"precision": "float32"}])
def test_what_changes_no_result_is_no_part_of_the_key(base, local, change):
    assert unit(base, local, **change).target == unit(base, local).target


def test_each_precision_has_a_key_of_its_own(base, local):
    targets = {unit(base, local, precision=name).target for name in ("float32", "tf32", "bfloat16")}
    assert len(targets) == 3


@pytest.mark.parametrize("change", [{"micro_batch": -1}, {"precision": "float8"}])
def test_a_setting_that_means_nothing_is_refused(base, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(base.finetune, **change)


def test_bfloat16_trains_another_adapter_and_tf32_on_a_cpu_the_same(base, local):
    made = {}
    for name in ("float32", "tf32", "bfloat16"):
        one = unit(base, local, precision=name)
        FinetuneWorker(local.root, device="cpu")(one)
        made[name] = local.manifest(one.target)["sha256"]
    assert made["float32"] == made["tf32"] != made["bfloat16"]


def test_where_memory_runs_out_the_receipt_says_in_which_micro_batches_it_went_on(base, local, monkeypatch):
    attend = torch.nn.functional.scaled_dot_product_attention

    def small(query: torch.Tensor, *others, **options):
        if len(query) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return attend(query, *others, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", small)
    made = unit(dataclasses.replace(base, seed=3), local)
    receipt = FinetuneWorker(local.root, device="cpu")(made)
    assert receipt.note == "out of memory, so micro-batches of 1 of 3 images from here on"
    assert local.exists(made.target)
