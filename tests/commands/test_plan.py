"""`bob plan`: the estimated cost of an experiment before it runs."""

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from bob import backbones, cli, datasets, pipeline
from bob.commands import estimate, needs, plan, rates, roofline
from bob.commands.rates import RATES, Rate
from bob.core.settings import Run
from bob.core.types import Token, Tuning
from bob.datasets import _standin
from bob.paper import experiments
from bob.steps import workers
from bob.store import Store


def lines(made: estimate.Plan) -> dict[tuple[str, str], estimate.Line]:
    return {(line.step, line.model): line for line in made.lines}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("BOB_DATA", raising=False)
    return Store(str(tmp_path / "nothing"))


@pytest.mark.parametrize("text", ["8", "H100", "0xH100", "8xH1000", "-1xA100", "8 x H100", "1.5xT4", ""])
def test_a_cluster_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="as in 8xH100"):
        estimate.Cluster.parse(text)


def test_a_cluster_is_a_number_of_devices():
    assert estimate.Cluster.parse("8xh100") == estimate.Cluster(count=8, device="H100")


@pytest.mark.parametrize(
    ("name", "train", "drawn"),
    [("cub_lt:100", 1_242, 32_548), ("cub_lt:50", 1_427, 31_438), ("cub_lt:10", 2_238, 26_572)],
)
def test_the_stand_in_of_a_long_tail_has_its_numbers(name, train, drawn):
    """The numbers of Diff-Mix's formula, which the exact spread of pictures over classes does not change for CUB."""
    dataset = _standin.stand_in(name)
    shots = dataset.split(shots=5, val=dataset.val, seed=0)
    assert sum(shot.split == "train" for shot in shots) == train
    assert 200 * len(dataset.class_names) - 6 * train == drawn


@pytest.mark.parametrize(
    "device", ["L4", "A10G", "A100", "A100-40", "A100-80", "H100", "H200", "RTX4090", "L40S", "T4", "V100"]
)
def test_a_known_device_has_rates_and_memory(device):
    cluster = estimate.Cluster.parse(f"2x{device.lower()}")
    assert cluster.device == device
    assert {step: rate.per_second > 0 for step, rate in RATES[device].items()} == dict.fromkeys(
        ("caption", "finetune", "generate", "classify"), True
    )
    card = needs.card(device)
    assert card is not None
    assert 14e9 < card.bytes < 151e9


def test_a_published_rate_stays_and_others_are_derived_from_counts():
    assert RATES["A100"]["generate"].per_second == pytest.approx(1.15 * 102)
    assert RATES["A100"]["generate"].basis == "measured"
    h100 = RATES["H100"]["generate"]
    assert h100.basis == "derived"
    assert 1.75 < h100.per_second / 102 < 6.8, "between ONNX Runtime at batch 1 and MLPerf"
    assert h100.source.startswith("2.8 of an A100's, by arithmetic and bandwidth (diffusers' documentation")
    assert RATES["A100-80"]["generate"].per_second > RATES["A100-40"]["generate"].per_second, "its memory is faster"
    assert needs.card("A100") == needs.card("A100-40")
    assert needs.card("cpu") is None
    assert rates.rate("cpu", "generate", "sd15") is None


def test_classifiers_differ_by_arithmetic_and_bandwidth():
    """ResNet-50 moves bytes and a ViT multiplies, so how much slower the ViT is depends on the card."""

    def times(device: str) -> float:
        each = {name: roofline.seconds(roofline.TRAINED[name], device) for name in ("mae_vit_b16", "resnet50")}
        return each["mae_vit_b16"] / each["resnet50"]

    assert times("T4") > times("H200") > 1
    cost = backbones.load("mae_vit_b16").cost
    of_vit, of_resnet = (rates.rate("T4", "classify", name) for name in ("mae_vit_b16", "resnet50"))
    assert of_vit is not None
    assert of_resnet is not None
    assert cost * of_resnet.per_second / of_vit.per_second == pytest.approx(times("T4"))
    assert rates.rate("T4", "classify", "timm:any") == of_resnet


def test_time_is_that_of_products_and_then_of_bytes():
    work = roofline.Work(convolutions=494.7e12, products=66.9e12, bytes=3.35e12, precision="float32")
    assert roofline.seconds(work, "H100") == pytest.approx(2 + 2 + 1.25)
    no_tf32 = roofline.Work(convolutions=8.1e12, products=0.0, bytes=0.0, precision="float32")
    assert roofline.seconds(no_tf32, "T4") == pytest.approx(2)


def test_evaluations_of_a_sampler_are_counted():
    row = {"steps": 50, "strength": 0.5, "kind": "text2img", "guidance": 2.0, "scheduler": "default"}
    assert rates.evaluations([row]) == 2 * 51
    assert rates.evaluations([row | {"scheduler": "ddim"}]) == 2 * 50
    assert rates.evaluations([row | {"kind": "img2img", "guidance": 1.0}]) == 26
    assert rates.evaluations([row, row | {"scheduler": "dpm"}]) == 101


def test_small_pictures_of_a_finetune_weigh_less():
    def weight(tuning: Tuning) -> float:
        return rates.weight(SimpleNamespace(checkpoint="sd15", tuning=tuning))

    word = Token(name="<w>", begins_as="sky")
    assert weight(Tuning()) == 1
    assert weight(Tuning(text_encoder=False, tokens=(word,), side=224)) == pytest.approx(0.17, abs=0.01)
    assert weight(Tuning(unet=False, text_encoder=False, tokens=(word,))) == pytest.approx(0.96, abs=0.01)
    assert rates.weight(SimpleNamespace(checkpoint="sd15")) == 1, "a manifest of an earlier version"


def test_memory_of_each_step_is_told(nowhere, capsys):
    made = estimate.make(experiments.load("table3", (0,)), nowhere, cluster=estimate.Cluster.parse("8xL4"), rates={})
    found = {(need.step, need.model): need for need in made.needs}
    assert found.keys() == {
        ("caption", "qwen_vl:7b"),
        ("finetune", "sd21"),
        ("generate", "sd21"),
        ("classify", "resnet50"),
    }
    tuned, trained = found["finetune", "sd21"], found["classify", "resnet50"]
    assert (tuned.batch, tuned.checkpointing) == (80, False)
    assert tuned.images < 80
    assert trained.images == trained.batch == 64
    assert trained.sharing == 8  # in lockstep, by one process: two of them with their pictures do not fit
    plan.show(made)
    shown = capsys.readouterr().out
    assert "memory on one L4, 23.6 GB, 10 % to spare" in shown
    assert f"{tuned.images} of 80" in shown
    assert f"{tuned.bytes / 1e9:.1f} GB" in shown


def test_a_larger_gpu_takes_larger_micro_batches(nowhere):
    taken = []
    for device in ("L4", "A100-40", "H100"):
        cluster = estimate.Cluster.parse(f"8x{device}")
        made = estimate.make(experiments.load("table3", (0,)), nowhere, cluster=cluster, rates={})
        taken += [need.images for need in made.needs if need.step == "finetune"]
    assert taken == sorted(set(taken))


def test_a_step_that_does_not_fit_is_refused_in_one_sentence(nowhere, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", "table3", "--cluster", "8xT4", "--out", nowhere.root])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert re.search(r"step caption with qwen_vl:7b does not fit on a T4: one image needs 17\.\d GB", said)


def test_minis_on_a_gpu_and_any_model_on_a_cpu_have_their_say(nowhere, capsys):
    made = estimate.make(experiments.load("smoke", (0,)), nowhere, cluster=estimate.Cluster.parse("1xT4"), rates={})
    assert {need.model for need in made.needs} == {"skyworld", "resnet_mini"}
    on_cpu = estimate.make(experiments.load("smoke", (0,)), nowhere, cluster=estimate.Cluster.parse("2xcpu"), rates={})
    assert on_cpu.needs == ()
    plan.show(on_cpu)
    assert "memory" not in capsys.readouterr().out


def test_table_3_is_counted_without_its_data(nowhere):
    made = estimate.make(experiments.load("table3", (0,)), nowhere, cluster=estimate.Cluster.parse("8xH100"), rates={})
    found = lines(made)
    assert made.stand_ins == ("aircraft",)
    assert not made.captioned
    assert (found["caption", "qwen_vl:7b"].size, found["caption", "qwen_vl:7b"].done) == (1_000, 0)
    # Two adapters, with and without preservation, of 400 epochs x 13 steps; the cells that share one draw from it.
    assert (found["finetune", "sd21"].units, found["finetune", "sd21"].size) == (2, 2 * 400 * 13)
    assert found["finetune", "sd21"].todo == 2 * 400 * 13 * 80
    assert found["generate", "sd21"].size == 6 * 100 * 100
    assert (
        found["generate", "sd21"].todo == 6 * 100 * 100 * 2 * 51
    )  # with and without the prompt, PNDM's 51 for 50 steps
    assert (found["sweep", "resnet50"].units, found["final", "resnet50"].units) == (6 * 18, 6)
    assert found["sweep", "resnet50"].todo == 6 * 18 * 10 * (1_000 * 10 + 10_000)
    assert made.bytes == pytest.approx(60_000 * 450e3 + 2 * 17.5e6)
    one = found["finetune", "sd21"].seconds / 2
    assert made.wall > one  # two fine-tunes keep two of eight devices busy


COSTS = {
    name: found[1]
    for name, runs in experiments.EXPERIMENTS.items()
    if (found := re.search(r"([\d.,]+) GPU-hours on H100s", runs.__doc__ or ""))
}


def test_what_the_papers_experiments_cost_is_said():
    assert COSTS.keys() >= {
        "claims",
        "paper",
        "table1",
        "table2",
        "table3",
        "table6",
        *(f"figure{k}" for k in (3, 4, 5, 6)),
        "per_class",
    }


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        pytest.param(name, hours, marks=[pytest.mark.slow] * (name in ("table1", "table2", "claims", "paper")))
        for name, hours in COSTS.items()
    ],
)
def test_what_is_said_to_cost_so_much_does(name, hours, nowhere):
    cluster, ends = estimate.Cluster.parse("8xH100"), experiments.OUTPUTS[name].ends
    runs = experiments.load(name, (0,))
    made = estimate.make(runs, nowhere, cluster=cluster, rates={}, classifies=ends == "classify")
    assert float(hours.replace(",", "")) == pytest.approx(made.device_seconds / 3600, rel=0.005)


def test_a_figure_costs_no_trainings(nowhere):
    cluster = estimate.Cluster.parse("1xA100")
    made = estimate.make(experiments.load("figure6", (0,)), nowhere, cluster=cluster, rates={}, classifies=False)
    assert {line.step for line in made.lines} == {"caption", "finetune", "generate"}


def test_seeds_and_methods_that_share_are_counted_once(nowhere):
    cluster = estimate.Cluster.parse("1xA100")
    alone = estimate.make(experiments.load("figure6", (0,)), nowhere, cluster=cluster, rates={})
    runs = [*experiments.load("figure6", (0,)), *experiments.load("figure3", (0,))]
    both = estimate.make(runs, nowhere, cluster=cluster, rates={})
    assert lines(both)["generate", "sd21"] == lines(alone)["generate", "sd21"]
    assert ("generate", "sd15") in lines(both)
    assert ("generate", "sd15") not in lines(alone)


def test_what_is_there_is_done_and_a_lost_shard_is_to_do(artefacts, base):
    runs = [dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")]
    cluster, found = estimate.Cluster.parse("2xcpu"), rates.measured(artefacts)
    whole = estimate.make(runs, artefacts, cluster=cluster, rates=found)
    assert whole.captioned
    assert all((line.done, line.todo) == (line.units, 0) for line in whole.lines)
    assert (whole.wall, whole.bytes) == (0, 0)
    artefacts.delete(next(path for path in artefacts.listing() if path.endswith("/part-00000.parquet")))
    lost = estimate.make(runs, artefacts, cluster=cluster, rates=found)
    assert [line.step for line in lost.lines if line.todo] == ["generate"]
    (line,) = (line for line in lost.lines if line.todo)
    assert line.units - line.done == 1
    assert 0 < line.seconds < math.inf


def test_a_rate_that_is_not_known_is_said(nowhere, capsys):
    made = estimate.make(experiments.load("smoke", (0,)), nowhere, cluster=estimate.Cluster.parse("2xcpu"), rates={})
    assert math.isnan(made.wall)
    plan.show(made)
    assert "no rate of caption with qwen_vl:skyworld" in capsys.readouterr().out


def test_the_price_is_that_of_all_devices_for_what_they_work(nowhere, capsys):
    rate = Rate(per_second=1.0, basis="assumed", source="a test")
    steps = {"caption": "qwen_vl:skyworld", "finetune": "skyworld", "generate": "skyworld", "classify": "resnet_mini"}
    known = dict.fromkeys(steps.items(), rate)
    made = estimate.make(experiments.load("smoke", (0,)), nowhere, cluster=estimate.Cluster.parse("4xcpu"), rates=known)
    plan.show(made, price=2.0)
    hours = sum(line.todo for line in made.lines) / 3600
    assert f"{2 * hours:,.2f} at 2 for a device-hour" in capsys.readouterr().out


def test_experiments_are_listed(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{listed}" for name in experiments.EXPERIMENTS)


def planned(run: Run, artefacts: Store) -> dict[str, estimate.Line]:
    made = estimate.make([run], artefacts, cluster=estimate.Cluster.parse("2xcpu"), rates={})
    return {line.step: line for line in made.lines}


def caption(run: Run, artefacts: Store, *, max_rejected: int = 0) -> None:
    pipeline.execute(
        [run],
        artefacts=artefacts,
        executor=workers.inline("cpu"),
        report=lambda step, todo, done, receipts: receipts,
        upto="caption",
        max_rejected=max_rejected,
    )


def test_diff_ii_is_planned_once_its_captions_are_made(base, local):
    run = dataclasses.replace(base, method="diff_ii", captioner="qwen_vl:skyworld")
    caption(run, local)
    before = local.listing()
    found = planned(run, local)
    assert (found["caption"].done, found["generate"].size) == (found["caption"].units, 12)
    for path in list(before):
        if path.startswith("suffixes/"):
            local.delete(path)
    assert planned(run, local) == found, "a list of suffixes that is not there yet is made up as a run would make it"
    assert {path for path in local.listing() if not path.startswith("suffixes/")} == {
        path for path in before if not path.startswith("suffixes/")
    }, "a plan writes nothing"


def test_a_run_is_planned_without_the_shot_whose_caption_was_rejected(base, local, monkeypatch, capsys):
    run = dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")
    more, fewer = dataclasses.replace(run, shots=3), run
    lost = pipeline.split(more, local).training.shots[0]
    opened = datasets.load(run.dataset).open

    def broken(self, shot):
        if shot.image_id == lost.image_id:
            raise ValueError("a planted fault")
        return opened(shot)

    with monkeypatch.context() as patch:
        patch.setattr(type(datasets.load(run.dataset)), "open", broken)
        caption(more, local, max_rejected=1)
    capsys.readouterr()
    assert planned(more, local)["finetune"].size == 2 * 3  # 2 epochs of 8 pairs, 3 a step
    assert planned(fewer, local)["finetune"].size == 2 * 2  # of 5 pairs; the split of these shots was never written
    assert planned(fewer, local)["finetune"].todo == 4 * 3
    assert "goes on" not in capsys.readouterr().out


def test_a_plan_does_not_read_request_tables(artefacts, base):
    """They may be as long as the images are many."""
    run = dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")
    before = planned(run, artefacts)
    (path,) = (path for path in artefacts.listing() if path.endswith("/requests.parquet"))
    artefacts.write(path, artefacts.read(path)[:-9])
    assert planned(run, artefacts) == before
