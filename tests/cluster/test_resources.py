"""Number of units that a cluster gets at once, and the message where not even one fits."""

import dataclasses
import math

import pytest

from bob.cluster.resources import FinetuneShare, Nodes, Share, fit

LAPTOP = [Nodes(has={"CPU": 8.0, "memory": 1e10, "node:10.0.0.1": 1.0}, now=1)]
GPUS = [
    Nodes(has={"CPU": 0.0}, now=1),
    Nodes(has={"CPU": 8.0}, now=2),
    Nodes(has={"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}, now=1),
    Nodes(has={"CPU": 4.0, "GPU": 1.0, "accelerator_type:L4": 1.0}, now=3),
]
EMPTY = [Nodes(has={"CPU": 0.0}, now=1), Nodes(has={"CPU": 8.0, "GPU": 1.0}, now=0, more=5)]
"""A head, and what an autoscaler may start."""


@pytest.mark.parametrize("step", ["caption", "finetune", "generate", "classify"])
@pytest.mark.parametrize("nodes", [LAPTOP, [Nodes(has={"CPU": 2.0}, now=1)]])
def test_a_unit_has_one_thread_whatever_the_machine_unless_the_user_says_so(step: str, nodes: list[Nodes]):
    """The last bits of what torch computes depend on its threads."""
    for units in (1, 2, 100):
        slots = fit(step, units, Share(), nodes)
        assert (slots.threads, slots.device) == (1, "cpu")
        assert slots.count == min(units, nodes[0].has["CPU"])
    assert fit(step, 2, Share(cpus=2), nodes).threads == 2


def test_actors_leave_cpus_to_ray_data():
    slots = fit("generate", 100, Share(), LAPTOP)
    assert slots.count * slots.cpus == 4


def test_where_there_are_gpus_they_are_used():
    slots = fit("generate", 100, Share(), GPUS)
    assert (slots.count, slots.now, slots.device) == (7, 7, "cuda")
    assert slots.bundle == {"CPU": 0.0, "GPU": 1.0}


def test_parts_of_a_gpu():
    slots = fit("classify", 100, Share(gpus=0.25), GPUS)
    assert slots.count == 4 * 4 + 3 * 4
    assert slots.bundle == {"CPU": 0.5, "GPU": 0.25}


def test_a_step_may_ask_for_a_kind_of_node():
    slots = fit("caption", 100, Share(resource="accelerator_type:A100"), GPUS)
    assert slots.count == 4
    assert slots.bundle == {"CPU": 0.0, "GPU": 1.0, "accelerator_type:A100": 0.001}


def test_a_step_may_stay_on_cpus_beside_gpus():
    slots = fit("classify", 100, Share(gpus=0, cpus=4), GPUS)
    assert slots.count == 2 + 2 + 2 + 3
    assert (slots.device, slots.threads, slots.bundle) == ("cpu", 4, {"CPU": 4.0})


def test_an_autoscaler_is_asked_for_more_than_there_is():
    slots = fit("generate", 100, Share(), EMPTY)
    assert (slots.now, slots.count, slots.device) == (1, 5, "cuda")
    assert fit("generate", 3, Share(), EMPTY).count == 3
    assert fit("generate", 100, Share(most=2), EMPTY).count == 2


@pytest.mark.parametrize(
    ("share", "nodes", "expected"),
    [
        (Share(cpus=9), LAPTOP, r"generate needs 9 CPUs on one node, .* \(its nodes: 8 CPU\)"),
        (Share(), EMPTY[:1], "generate needs 1 CPUs on one node"),
        (Share(cpus=16), EMPTY, "generate needs 1 GPUs and 16 CPUs on one node"),
        (Share(resource="big_gpu"), GPUS, r"needs 1 CPUs and big_gpu .* by --resources\.generate\.gpus"),
    ],
)
def test_what_would_wait_for_ever_is_refused(share, nodes, expected):
    with pytest.raises(ValueError, match=expected):
        fit("generate", 10, share, nodes)


@pytest.mark.parametrize("share", [{"gpus": -1.0}, {"gpus": 1.5}, {"cpus": math.nan}, {"cpus": math.inf}, {"most": -1}])
def test_shares_that_cannot_be(share):
    with pytest.raises(ValueError, match=next(iter(share))):
        dataclasses.replace(Share(), **share)


def test_a_fine_tune_by_several_processes_takes_a_place_for_each():
    slots = fit("finetune", 100, FinetuneShare(workers=3), GPUS)
    assert (slots.count, slots.now, slots.workers) == (2, 2, 3)  # seven GPUs
    laptop = fit("finetune", 1, FinetuneShare(workers=2), LAPTOP)
    assert (laptop.count, laptop.threads, laptop.workers) == (1, 1, 2)
    with pytest.raises(ValueError, match="needs 8 workers, each with 1 GPUs and 1 CPUs on one node"):
        fit("finetune", 1, FinetuneShare(workers=8), GPUS)
    with pytest.raises(ValueError, match="workers of a fine-tune must lie in"):
        FinetuneShare(workers=0)
