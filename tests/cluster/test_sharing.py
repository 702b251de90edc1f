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


@pytest.mark.parametrize("backbone", ["resnet50", "mae_vit_b16", "clip_vit_b16"])
@pytest.mark.parametrize(
    ("label", "card"), [("T4", "T4"), ("L4", "L4"), ("A10G", "A10G"), ("A100", "A100-40"), ("H100", "H100")]
)
def test_what_shares_a_card_fits_it(backbone: str, label: str, card: str) -> None:
    share = part(units(backbone, classes=196), [node(label)])
    footprint = memory.classify(backbone, classes=196)
    assert footprint is not None
    together = int(1 / share)
    assert together * footprint.bytes(64) <= (1 - memory.SPARE) * memory.CARDS[card].bytes
    one_more = (together + 1) * footprint.bytes(64) > (1 - memory.SPARE) * memory.CARDS[card].bytes
    assert one_more or together == sharing.MOST


def test_shares_follow_backbone_and_card() -> None:
    """Four of CLIP or MAE do not fit an L4, as a fixed quarter would have it."""
    assert part(units("clip_vit_b16"), [node("L4")]) > 0.25
    assert part(units("mae_vit_b16"), [node("L4")]) > 0.25
    assert part(units("mae_vit_b16"), [node("L4")]) < part(units("mae_vit_b16", batch=256), [node("L4")])
    assert part(units("clip_vit_b16"), [node("H100")]) == 0.25
    assert part(units("mae_vit_b16", precision="float32"), [node("L4")]) > part(units("mae_vit_b16"), [node("L4")])


def test_the_smallest_card_decides_unless_the_user_names_one() -> None:
    nodes = [node("T4"), node("H100")]
    assert part(units("clip_vit_b16"), nodes) == part(units("clip_vit_b16"), [node("T4")])
    named = dataclasses.replace(AUTO, resource="accelerator_type:H100")
    assert part(units("clip_vit_b16"), nodes, named) == part(units("clip_vit_b16"), [node("H100")])


@pytest.mark.parametrize(("count", "together"), [(8, 1), (3, 1), (9, 2), (16, 2), (17, 3), (24, 3), (400, 4)])
def test_few_trainings_spread_over_all_running_gpus(count: int, together: int) -> None:
    trainings = sharing.trainings(units("resnet50", count), AUTO, [node("H100", gpus=4, now=2)])
    (slots,) = trainings.shared.values()
    assert int(1 / slots.gpus) == together
    assert trainings.count == min(count, 8 * together)  # all run at once, if they can


def test_no_gpu_is_started_for_few_trainings_to_spread() -> None:
    assert part(units("resnet50", 4), [node("H100", now=0, more=8)]) == 0.25
    assert part(units("resnet50", 4), [node("H100", now=1, more=8)]) == 0.25


def test_backbones_of_one_call_have_shares_of_their_own() -> None:
    both = [*units("resnet50"), *units("mae_vit_b16")]
    trainings = sharing.trainings(both, AUTO, [node("L4", gpus=4)])
    shares = {name.split()[0]: slots.gpus for name, slots in trainings.shared.items()}
    assert shares == {"resnet50": part(both[:400], [node("L4")]), "mae_vit_b16": part(both[400:], [node("L4")])}
    assert shares["resnet50"] < shares["mae_vit_b16"]
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
def test_a_share_that_the_user_gives_is_taken(gpus: float) -> None:
    assert part(units("mae_vit_b16", 2), [node("L4")], Share(gpus=gpus)) == gpus


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
