"""`bob rehearse` and `benchmarks/gpu.py` on a pretended GPU."""

import dataclasses

import pytest

from benchmarks import gpu as benchmark
from bob import cli
from bob.commands import rehearsed
from bob.commands.rehearse import rehearse, trials
from bob.commands.rehearse.kinds import kinds

CARD = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    """The pretended card computes half precision on a CPU, which is slow."""
    monkeypatch.setitem(trials._BATCHES, True, 1)


def test_each_step_is_rehearsed_and_planned_with(gpu, base, local):
    run = dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")
    found = kinds([run], local, upto="classify")
    done = rehearse(found, local, device="cuda", seconds=0.01, experiment="tiny")
    assert {r.step: r.trials[0].precision for r in done} == {
        "caption": "bfloat16",
        "finetune": "tf32",
        "generate": "float16",
        "classify": "bfloat16",
    }
    assert all((r.device, r.random, len(r.trials)) == (CARD, False, 1) for r in done)
    assert all(0 < trial.share < 1 for r in done for trial in r.trials)
    assert {name for name, _ in rehearsed.rates(local, "H100")} == {r.step for r in done}
    assert rehearsed.rates(local, "cpu") == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stock_diffusers_is_measured_beside_ours(gpu, tmp_path):
    file = tmp_path / "report.md"
    flags = ("--experiment", "smoke", "--checkpoint", "skyworld", "--seconds", "0.05", "--report", str(file))
    benchmark.main(flags)
    text = file.read_text()
    assert text.startswith(f"# smoke on {CARD}, 20")
    assert "Without:" not in text
    rows = text.partition("Pairs are ours, stock diffusers.")[2]
    assert "\n| finetune | " in rows
    assert "\n| generate | " in rows


def test_a_plan_for_such_cards_takes_the_rates(gpu, base, local, capsys):
    run = dataclasses.replace(base, method="real_only")
    rehearse(kinds([run], local, upto="classify"), local, device="cuda", seconds=0.01, experiment="tiny")
    with pytest.raises(SystemExit):
        cli.main(["plan", "skyworld", "--cluster", "8xH100", "--out", f"{local.root}-none", "--measured", local.root])
    assert f"rehearsed in {local.root} on {CARD}\n" in capsys.readouterr().out
