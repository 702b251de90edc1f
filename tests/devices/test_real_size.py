"""The instruments of `benchmarks/real_size.py`: what they count, and one of its stages."""

import pytest
import torch

from benchmarks import real_size
from benchmarks.counting.copies import Copies
from benchmarks.counting.host import Laps, Operations, meta_as_gpu
from tests.devices import installed


def test_copies_and_waits_are_counted(monkeypatch):
    gpu = Copies()
    installed.answer(monkeypatch, gpu)
    with gpu:
        there = torch.ones(5).to("cuda")
        torch.ones(3).to("cuda", non_blocking=True)
        torch.tensor([1.0, 2.0], device="cuda")
        assert gpu.now() == {"to_device": 40, "to_host": 0, "copies": 3, "blocking": 2, "waits": 0}
        there[torch.tensor([0, 1])].tolist()
        there.to("cpu", non_blocking=True)
        assert gpu.now() == {"to_device": 56, "to_host": 28, "copies": 4, "blocking": 3, "waits": 1}


def test_operations_are_counted_and_views_are_not():
    with Operations() as done:
        x = torch.empty(4, 8, device="meta")
        (x.T @ x)[0].view(2, 4)
        torch.ones(3) + 1
    assert (done.count, done.bytes) == (1, 4 * (2 * 32 + 64))


def test_a_meta_tensor_is_read_as_zeros():
    x = torch.empty(2, 2, device="meta")
    with meta_as_gpu():
        assert x.tolist() == [[0, 0], [0, 0]]
        assert (x.sum().item(), float(x.sum()), bool(x.any())) == (0.0, 0.0, False)
        assert x.to("cpu", torch.float16).dtype == torch.float16
        assert torch.ones(2).copy_(x[0]).device.type == "cpu"
        assert x.to(torch.float64).is_meta
    with pytest.raises(NotImplementedError):
        x.cpu()


def test_each_moment_counts_for_the_innermost_activity():
    laps, spent = Laps(), torch.ones(200, 200)

    def work() -> None:
        for _ in range(20):
            spent @ spent

    laps.around("outer", lambda: laps.around("inner", work)())()
    laps.cut()
    (step,) = laps.steps
    assert step["inner"] > step["outer"] >= 0
    assert set(step) == {"rest", "outer", "inner"}


@pytest.mark.slow
def test_a_stage_is_measured(tmp_path):
    file = tmp_path / "report.md"
    real_size.main(["--only", "evaluate resnet50", "--out", str(file)])
    row = next(line for line in file.read_text().splitlines() if line.startswith("| evaluate resnet50, bfloat16"))
    assert row.split(" | ")[1] == "256"
    with pytest.raises(SystemExit):
        real_size.main(["--only", "no such stage"])
