"""`bob rehearse`: what a few batches of each step and model cost, and that no run ever meets random weights."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
import torch

from bob import cli, pipeline
from bob.commands import estimate, plan, rates, rehearsed, verify
from bob.commands.rehearse import rehearse, report
from bob.commands.rehearse.kinds import kinds
from bob.commands.rehearse.meter import Peak, Rounds
from bob.commands.rehearsed import Rehearsal, Trial
from bob.core.settings import Run
from bob.diffusion import checkpoints, random_weights
from bob.paper import experiments
from bob.steps import workers
from bob.store import Store

STEPS = ("caption", "finetune", "generate", "classify")


def rehearsed_of(runs: list[Run], artefacts: Store) -> dict[str, Rehearsal]:
    found = kinds(runs, artefacts, upto="classify")
    done = rehearse(found, artefacts, device="cpu", seconds=0.01, experiment="tiny")
    return {rehearsal.step: rehearsal for rehearsal in done}


@pytest.fixture
def bob(base) -> Run:
    return dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")


@pytest.fixture
def unknown(monkeypatch) -> str:
    """A checkpoint of the hub that is not on this machine, small enough to be drawn at random in a test."""
    blocks = {"block_out_channels": (32, 32), "norm_num_groups": 8}
    crossed = {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
    plain = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    shape = {
        "unet": {"sample_size": 8, "cross_attention_dim": 32, "attention_head_dim": 4, **blocks, **crossed},
        "vae": {"sample_size": 16, **blocks, **plain},
        "text": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 3000,
        },
    }
    monkeypatch.setitem(random_weights.ARCHITECTURES, "unseen", shape)
    entry = checkpoints.Checkpoint(repository="nobody/unseen", revision="main", licence="")
    monkeypatch.setitem(checkpoints.CHECKPOINTS, "unseen", entry)
    return "unseen"


def trial(**changes) -> Trial:
    told = {"kind": "", "label": "a unit", "planned": 10.0, "work": 6.0, "seconds": 2.0, "images": 3, "bytes": 1}
    counted = {"predicted": 0, "flops": 5.0, "precision": "float32", "peak": 30.0}
    return Trial(**{**told, **counted, **changes})


def rehearsal(**changes) -> Rehearsal:
    told = {"step": "generate", "model": "skyworld", "device": "cpu", "random": False, "experiment": "smoke"}
    return Rehearsal(**{**told, "trials": (trial(),), **changes})


# -- what is measured ---------------------------------------------------------------------------


def test_each_step_is_measured_with_the_real_weights(bob, local, capsys):
    found = rehearsed_of([bob], local)
    assert tuple(found) == STEPS
    for step, measured in found.items():
        (one,) = measured.trials
        assert (measured.random, measured.device) == (False, "cpu"), step
        assert min(one.work, one.seconds, one.per_second, one.bytes, one.flops, one.peak, one.share) > 0, step
    assert found["finetune"].model == bob.checkpoint
    assert found["finetune"].trials[0].images == 3
    assert found["generate"].trials[0].work % (3 * 2 * 3) == 0  # PNDM's 3 for 2 steps, guidance, batch
    report.show(list(found.values()))
    assert "RANDOM" not in capsys.readouterr().out
    assert verify.verify(local).problems == ()
    assert {path.partition("/")[0] for path in local.listing()} == {"rehearsal"}


def test_the_planned_work_is_that_of_the_plan(bob, base, local):
    """Units that runs share count once, and each unit for one kind."""
    runs = [bob, base, dataclasses.replace(base, method="diff_mix"), dataclasses.replace(base, method="real_only")]
    made = estimate.make(runs, local, cluster=estimate.Cluster.parse("2xcpu"), rates={})
    planned: dict[tuple[str, str], float] = {}
    for line in made.lines:
        step = {"sweep": "classify", "final": "classify"}.get(line.step, line.step)
        planned[step, line.model] = planned.get((step, line.model), 0.0) + line.todo
    found: dict[tuple[str, str], float] = {}
    all_kinds = kinds(runs, local, upto="classify")
    for kind in all_kinds:
        found[kind.step, kind.model] = found.get((kind.step, kind.model), 0.0) + kind.planned
    assert found == pytest.approx(planned)
    assert [kind.name for kind in all_kinds if kind.step == "finetune"] == [
        "U-Net + text encoder",
        "U-Net + new words at 224 px",
    ]


def test_a_data_set_that_is_missing_is_no_obstacle(local, monkeypatch):
    monkeypatch.delenv("BOB_DATA", raising=False)
    found = kinds(experiments.load("table3", (0,)), local, upto="classify")
    assert [(kind.step, kind.model) for kind in found] == [
        ("caption", "qwen_vl:7b"),
        ("finetune", "sd21"),
        ("generate", "sd21"),
        ("classify", "resnet50"),
    ]
    assert all(kind.dataset is None for kind in found)
    assert local.names("") == []


@pytest.mark.parametrize("method", ["diff_ii", "da_fusion", "diff_mix"])
def test_images_that_start_from_real_ones_are_drawn(base, local, method):
    runs = [dataclasses.replace(base, method=method, captioner="blind")]
    chosen = [kind for kind in kinds(runs, local, upto="generate") if kind.step == "generate"]
    assert {kind.name.partition(",")[0] for kind in chosen} <= {"circle", "img2img"}
    assert "generate" in rehearsed_of(runs, local)


@pytest.mark.parametrize("counted", [1, 2])
def test_rounds_are_timed_after_the_one_that_counts_operations(counted):
    square, done, over = torch.ones(8, 8), 0, False
    with Rounds("cpu", seconds=1e-9, counted=counted) as rounds:
        while not over:
            torch.mm(square, square)
            done += 1
            over = rounds.tick(4.0)
    assert (done, rounds.work, rounds.flops) == (counted + 1, 4.0, 2 * 8**3 / 4)


def test_attention_on_a_cpu_is_counted():
    query = torch.ones(1, 2, 16, 8, requires_grad=True)
    key = torch.ones(1, 2, 32, 8)
    product = 2 * 2 * 16 * 32 * 8
    with Rounds("cpu", seconds=1e-9) as rounds:
        for _ in range(3):
            torch.nn.functional.scaled_dot_product_attention(query, key, key).sum().backward()
            rounds.tick(1.0)
    assert rounds.flops == (2 + 5) * product


def test_peak_memory_is_that_of_the_context():
    with Peak("cpu") as before:
        torch.ones(1)
    with Peak("cpu") as peak:
        held = torch.ones(50_000_000)
    assert peak.bytes - before.bytes > 0.9 * held.nbytes


# -- random weights -----------------------------------------------------------------------------


def test_random_weights_stand_in_and_are_marked(bob, local, unknown, capsys, monkeypatch, tmp_path):
    own = tmp_path / "models"
    monkeypatch.setenv("BOB_MODELS", str(own))
    run = dataclasses.replace(bob, checkpoint=unknown, backbone="timm:test_resnet.r160_in1k")
    found = rehearsed_of([run], local)
    assert {step: found[step].random for step in STEPS} == {
        "caption": False,
        "finetune": True,
        "generate": True,
        "classify": True,
    }
    report.show(list(found.values()))
    assert capsys.readouterr().out.count("RANDOM") == 3 + 1
    files = local.listing()
    assert all(path.startswith("rehearsal/") and path.endswith(".json") for path in files), "weights are deleted"
    marked = [json.loads(local.read(path))["config"] for path in files]
    assert {entry["step"]: entry["random"] for entry in marked} == {step: found[step].random for step in STEPS}
    assert os.environ["BOB_MODELS"] == str(own)
    assert not own.exists()


def test_a_run_never_uses_random_weights(bob, local, unknown):
    run = dataclasses.replace(bob, checkpoint=unknown)
    before = [(kind.unit.target, checkpoints.source(unknown)) for kind in kinds([run], local, upto="classify")]
    rehearsed_of([run], local)
    assert [(k.unit.target, checkpoints.source(unknown)) for k in kinds([run], local, upto="classify")] == before
    with pytest.raises(ValueError, match="the weights of checkpoint 'unseen' cannot be loaded"):
        pipeline.execute(
            [run],
            artefacts=local,
            executor=workers.inline("cpu"),
            report=lambda step, todo, done, receipts: receipts,
        )
    assert not [path for path in local.listing() if path.startswith(("adapters/", "images/", "results/"))]


def test_architectures_have_their_published_size():
    with torch.device("meta"):
        sizes = {
            name: {part: sum(p.numel() for p in model.parameters()) for part, model in modules.items()}
            for name in ("sd15", "sd21")
            for modules in [random_weights.modules(name)]
        }
    assert sizes["sd15"] == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert sizes["sd21"] == {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}


# -- what fails ---------------------------------------------------------------------------------


def test_a_step_that_fails_does_not_end_the_rehearsal(bob, local, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text("{}")
    found = rehearsed_of([dataclasses.replace(bob, checkpoint=f"path:{broken}")], local)
    assert tuple(found) == ("caption", "classify")
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if "NOT REHEARSED" in line]
    assert [line.split()[0] for line in failed] == ["finetune", "generate"]


def test_what_a_cpu_cannot_do_is_said_before_anything_is_written(local, capsys):
    """At the real size: weights of 20 GB are not made for it."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["rehearse", "figure6", "--out", local.root, "--device", "cpu"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert "bob: nothing of figure6 could be rehearsed" in printed.err
    failed = [line for line in printed.out.splitlines() if "NOT REHEARSED" in line]
    assert len(failed) >= 3
    assert all("one round of it takes about" in line or "of memory are free" in line for line in failed)
    assert not local.listing()


@pytest.mark.parametrize("flags", [["--seconds", "0"], ["--device", "tpu"], ["--seconds", "-1"]])
def test_flags_that_mean_nothing_are_refused(flags, local):
    with pytest.raises(SystemExit) as ended:
        cli.main(["rehearse", "smoke", "--out", local.root, *flags])
    assert ended.value.code == 2


# -- bob plan -----------------------------------------------------------------------------------


def test_a_plan_takes_the_rates_of_a_rehearsal(local, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["rehearse", "smoke", "--out", local.root, "--device", "cpu", "--seconds", "0.05"])
    assert ended.value.code == 0
    assert "of peak" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["plan", "smoke", "--cluster", "2xcpu", "--out", f"{local.root}-none", "--measured", local.root])
    printed = capsys.readouterr().out
    assert f"(1) measured: rehearsed in {local.root} on cpu\n" in printed
    assert "device-hours" in printed
    with pytest.raises(SystemExit):
        cli.main(["plan", "smoke", "--cluster", "1xH100", "--out", f"{local.root}-none", "--measured", local.root])
    assert "rehearsed on cpu, which is no H100: these rates are not used" in capsys.readouterr().out


def test_finished_units_take_precedence(artefacts, base):
    model = base.checkpoint
    for step in ("generate", "finetune"):
        rehearsed.write(rehearsal(step=step, model=model, random=True), artefacts)
    rehearsed.write(rehearsal(model="sd15", random=True), artefacts)
    found = plan._measured(artefacts, "cpu")
    assert found["generate", model] == rates.measured(artefacts)["generate", model]
    assert found["generate", "sd15"].per_second == 3.0
    assert found["generate", "sd15"].source == f"rehearsed in {artefacts.root} on cpu, with random weights"


def test_the_rate_of_several_kinds_is_that_of_the_experiments_mix(local):
    """600 of a kind at 3 a second take 200 s, 100 of another at 1 a second 100 s: 700 in 300 s."""
    mixed = (trial(planned=600.0), trial(planned=100.0, work=1.0, seconds=1.0))
    rehearsed.write(rehearsal(trials=mixed), local)
    (rate,) = rehearsed.rates(local, "cpu").values()
    assert rate.per_second == pytest.approx(700 / 300)


def test_the_latest_rehearsal_of_a_device_counts(local):
    rehearsed.write(rehearsal(device="NVIDIA H100 80GB HBM3"), local)
    rehearsed.write(rehearsal(), local)
    rehearsed.write(rehearsal(trials=(trial(work=8.0),)), local)
    assert [rate.per_second for rate in rehearsed.rates(local, "cpu").values()] == [4.0]
    assert [rate.per_second for rate in rehearsed.rates(local, "H100").values()] == [3.0]
    assert rehearsed.others(local, "T4") == ["NVIDIA H100 80GB HBM3", "cpu"]


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("NVIDIA H100 80GB HBM3", {"H100"}),
        ("NVIDIA A100-SXM4-40GB", {"A100", "A100-40"}),
        ("NVIDIA A100 80GB PCIe", {"A100", "A100-80"}),
        ("Tesla V100-SXM2-16GB", {"V100"}),
        ("NVIDIA GeForce RTX 4090", {"RTX4090"}),
        ("NVIDIA L4", {"L4"}),
        ("NVIDIA L40S", {"L40S"}),
        ("Tesla T4", {"T4"}),
        ("cpu", {"cpu"}),
    ],
)
def test_devices_are_known_by_the_names_they_give_themselves(name, devices):
    known = ("L4", "L40S", "A10G", "A100", "A100-40", "A100-80", "H100", "H200", "RTX4090", "T4", "V100", "cpu")
    assert {device for device in known if rehearsed.is_of(name, device)} == devices


def test_a_share_needs_a_known_peak():
    assert trial().share == 0.5
    assert math.isnan(trial(peak=0.0).share)


def test_a_damaged_rehearsal_is_reported(local):
    rehearsed.write(rehearsal(), local)
    assert verify.verify(local).problems == ()
    (path,) = local.listing()
    content = json.loads(local.read(path))
    del content["config"]["trials"]
    local.write_json(path, content)
    (problem,) = verify.verify(local).problems
    assert "holds no rehearsal: delete it and rehearse again" in problem.wrong
    with pytest.raises(ValueError, match="holds no rehearsal"):
        rehearsed.rates(local, "cpu")


# -- full size ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_resnet50_at_full_size(local, monkeypatch):
    """25.6 M random parameters, 64 pictures of 224 x 224 a step, on one CPU."""
    monkeypatch.delenv("BOB_DATA", raising=False)
    runs = [r for r in experiments.load("table1", (0,)) if (r.method, r.backbone) == ("real_only", "resnet50")]
    chosen = kinds(runs[:1], local, upto="classify")
    (found,) = rehearse(chosen, local, device="cpu", seconds=35.0, experiment="table1")
    (one,) = found.trials
    assert (found.step, found.model, found.random, one.images) == ("classify", "resnet50", True, 64)
    assert one.flops == pytest.approx(24.3e9, rel=0.1)
    assert not list(Path(local.root).rglob("*.safetensors"))
