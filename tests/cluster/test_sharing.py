"""Shares of a GPU that trainings take: by backbone and card, evenly where they are few."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from bob.cluster import sharing
from bob.cluster.resources import Nodes, Resources, Share
from bob.core import memory
from bob.core.settings import SweepSettings
from bob.core.types import Unit

AUTO = Resources().classify


def node(card: str = "", *, gpus: int = 1, now: int = 1, more: int = 0) -> Nodes:
    has = {"CPU": 8.0 * gpus, "GPU": float(gpus)} | ({f"accelerator_type:{card}": 1.0} if card else {})
    return Nodes(has=has, now=now, more=more)


def unit(backbone: str, number: int, *, classes: int = 100, **settings: Any) -> Unit:
    work = SimpleNamespace(
        coordinates=SimpleNamespace(backbone=backbone), classes=classes, sweep=SweepSettings(**settings)
    )
    return Unit(step="classify", target=f"{backbone}-{number}", label="", size=10, work=work)


def units(backbone: str, count: int = 400, **changes: Any) -> list[Unit]:
    return [unit(backbone, number, **changes) for number in range(count)]


def part(of: list[Unit], nodes: list[Nodes], share: Share = AUTO) -> float:
    (slots,) = sharing.trainings(of, share, nodes).shared.values()
    return slots.gpus


def packed(of: list[Unit], nodes: list[Nodes], share: Share = AUTO) -> tuple[int, int]:
    """Processes a GPU, and points that each of them trains together."""
    trainings = sharing.trainings(of, share, nodes)
    (points,) = trainings.points.values()
    return int(1 / part(of, nodes, share)), points


def taken(footprint: memory.Footprint, *, points: int, kept: int, card: str) -> float:
    """Bytes of one process with so many models, and as much of the card as pictures and views may be kept in."""
    models = points * (footprint.weights + footprint.trained) + footprint.workspace + 64 * footprint.image
    return models + kept * memory.PICTURES * memory.CARDS[card].bytes


@pytest.mark.parametrize("backbone", ["resnet50", "mae_vit_b16", "clip_vit_b16"])
@pytest.mark.parametrize(
    ("label", "card"), [("T4", "T4"), ("L4", "L4"), ("A10G", "A10G"), ("A100", "A100-40"), ("H100", "H100")]
)
def test_what_shares_a_card_fits_it_with_its_pictures(backbone: str, label: str, card: str) -> None:
    """Sweeps keep pictures and validation views, final trainings test views as well."""
    processes, points = packed(units(backbone, classes=196), [node(label)])
    footprint, room = memory.classify(backbone, classes=196), memory.CARDS[card].bytes
    assert footprint is not None
    assert processes * taken(footprint, points=points, kept=2, card=card) < room
    assert processes * taken(footprint, points=1, kept=3, card=card) < room
    assert points in (8, memory.lockstep(footprint, free=int(room * (1 / processes - 0.2)), images=64))
    assert processes == 2 or 2 * taken(footprint, points=1, kept=3, card=card) > 0.93 * room


def test_shares_follow_backbone_and_card() -> None:
    """On a small card one process has what two do not."""
    assert packed(units("clip_vit_b16"), [node("H100")]) == (2, 8)
    assert packed(units("clip_vit_b16"), [node("L4")]) == (1, 8)
    assert packed(units("mae_vit_b16"), [node("L4")]) == (1, 8)
    assert packed(units("mae_vit_b16"), [node("T4")]) < packed(units("mae_vit_b16"), [node("L4")])
    assert packed(units("mae_vit_b16", batch=128), [node("L4")])[1] < 8
    assert packed(units("mae_vit_b16"), [node("A100")]) == (2, 4)
    assert packed(units("mae_vit_b16", precision="float32"), [node("A100")]) == (1, 8)


def test_points_of_a_sweep_with_asha_share_a_gpu_but_no_process() -> None:
    assert packed(units("resnet50", search="asha"), [node("H100")]) == (2, 1)
    both = [*units("resnet50", search="asha"), *units("resnet50")]
    assert sorted(sharing.trainings(both, AUTO, [node("H100")]).points.values()) == [1, 8]


def test_the_smallest_card_decides_unless_the_user_names_one() -> None:
    nodes = [node("T4"), node("H100")]
    assert part(units("clip_vit_b16"), nodes) == part(units("clip_vit_b16"), [node("T4")])
    named = dataclasses.replace(AUTO, resource="accelerator_type:H100")
    assert part(units("clip_vit_b16"), nodes, named) == part(units("clip_vit_b16"), [node("H100")])


@pytest.mark.parametrize(
    ("count", "together"),
    [(8, (1, 1)), (3, (1, 1)), (9, (2, 1)), (16, (2, 1)), (31, (2, 1)), (32, (2, 2)), (100, (2, 6)), (400, (2, 8))],
)
def test_few_trainings_spread_over_all_running_gpus(count: int, together: tuple[int, int]) -> None:
    nodes = [node("H100", gpus=4, now=2)]
    processes, points = packed(units("resnet50", count), nodes)
    assert (processes, points) == together
    assert sharing.trainings(units("resnet50", count), AUTO, nodes).count == min(count, 8 * processes)
    assert count >= 8 or points == 1
    assert points == 1 or count // points >= 8 * processes  # none waits while another has a group


def test_no_gpu_is_started_for_few_trainings_to_spread() -> None:
    assert packed(units("resnet50", 4), [node("H100", now=0, more=8)]) == (2, 2)
    assert packed(units("resnet50", 4), [node("H100", now=1, more=8)]) == (2, 2)


def test_backbones_of_one_call_have_shares_of_their_own() -> None:
    both = [*units("resnet50"), *units("mae_vit_b16")]
    trainings = sharing.trainings(both, AUTO, [node("L4", gpus=4)])
    shares = {name.split()[0]: slots.gpus for name, slots in trainings.shared.items()}
    assert shares == {"resnet50": part(both[:400], [node("L4")]), "mae_vit_b16": part(both[400:], [node("L4")])}
    assert trainings.count == max(slots.count for slots in trainings.shared.values())
    assert {sharing.kind(one) for one in both} == trainings.shared.keys()


@pytest.mark.parametrize(
    ("backbone", "label", "words"),
    [
        ("resnet50", "", "the memory of a GPU is not known"),
        ("resnet50", "B200", "the memory of a GPU is not known"),
        ("timm:convnext_tiny", "H100", "the memory of a training of timm:convnext_tiny is not known"),
    ],
)
def test_what_the_model_does_not_know_takes_a_whole_gpu_and_says_so(backbone: str, label: str, words: str) -> None:
    trainings = sharing.trainings(units(backbone), AUTO, [node(label)])
    assert [slots.gpus for slots in trainings.shared.values()] == [1.0]
    assert trainings.notice == (
        f"{words}, so each training takes a whole GPU: --resources.classify.gpus 0.25 makes four share"
    )
    assert not sharing.trainings(units(backbone, 1), AUTO, [node(label)]).notice  # it would have one anyway


@pytest.mark.parametrize("gpus", [0.25, 0.5, 1.0, 0.0])
def test_a_share_that_the_user_gives_is_that_of_one_training(gpus: float) -> None:
    assert part(units("mae_vit_b16"), [node("L4")], Share(gpus=gpus)) == gpus
    assert set(sharing.trainings(units("mae_vit_b16"), Share(gpus=gpus), [node("L4")]).points.values()) == {1}


def test_a_cpu_trains_one_point_at_a_time() -> None:
    (points,) = sharing.trainings(units("resnet50"), AUTO, [Nodes(has={"CPU": 8.0}, now=2)]).points.values()
    assert points == 1


def test_alone_is_a_whole_gpu_or_all_cpus_of_a_node() -> None:
    assert sharing.trainings(units("resnet50"), AUTO, [node("L4", gpus=4)]).alone.gpus == 1.0
    assert sharing.trainings(units("resnet50"), AUTO, [node("L4", gpus=4)]).alone.count == 4
    for share in (AUTO, Share(gpus=0)):
        alone = sharing.trainings(units("resnet50"), share, [Nodes(has={"CPU": 8.0}, now=2)]).alone
        assert (alone.gpus, alone.cpus, alone.count, alone.threads) == (0.0, 8.0, 1, 1)  # threads as beside others


def test_only_trainings_have_an_automatic_share() -> None:
    with pytest.raises(ValueError, match="gpus of step generate must be a number: only classify's can be auto"):
        Resources(generate=Share(gpus="auto"))


def test_rays_names_of_cards_are_known() -> None:
    """Those of Ray itself, and the name that it makes of a consumer card's."""
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager
    from ray.util.accelerators import accelerators

    named = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA")}
    named.add(NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type("NVIDIA GeForce RTX 4090") or "")
    ours = {name.removeprefix("accelerator_type:") for name in sharing._CARDS}
    assert ours <= named
    assert set(sharing._CARDS.values()) == set(memory.CARDS)
