"""`benchmarks/gpu.py`: every line of it runs on a CPU with the mini models, so that it works on the day of a GPU."""

from pathlib import Path

import pytest
import torch

from benchmarks import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("no GPU on this machine")


@pytest.mark.slow
def test_the_minis_are_measured_beside_stock_diffusers(tmp_path: Path):
    file = tmp_path / "report.md"
    flags = ("--device", "cpu", "--experiment", "smoke", "--checkpoint", "skyworld", "--seconds", "0.05")
    gpu.main([*flags, "--report", str(file)])
    text = file.read_text()
    assert text.startswith("# smoke on cpu, 20")
    assert all(f"\n| {step} | " in text for step in ("caption", "finetune", "generate", "classify"))
    assert "By these rates smoke takes" in text
    assert "Without:" not in text
    compared = text.partition("Pairs are ours, stock diffusers.")[2]
    rows = [line.split(" | ") for line in compared.splitlines() if line.startswith(("| finetune", "| generate"))]
    assert [row[0] for row in rows] == ["| finetune", "| generate"]
    assert all(float(row[1].replace(",", "")) > 0 and float(row[3]) > 0 for row in rows)
