"""The pretended GPU for models at full size: which numbers it has, and which reads give zero."""

import pytest
import torch


def test_small_integers_keep_their_numbers_and_their_waits(numberless_gpu):
    ids = torch.tensor([3, 0, 5]).to("cuda")
    more = torch.cat([ids, torch.arange(2, device="cuda")]) + 1
    more[more > 5] = 7
    assert more.is_cuda
    assert numberless_gpu.waits == []  # a mask under which all get one number is not read
    assert more.tolist() == [4, 1, 7, 1, 2]
    assert more[:3][ids > 0].tolist() == [4, 7]
    assert int(more.max()) == 7


def test_everything_else_is_read_as_zero(numberless_gpu):
    ids = torch.tensor([1, 2]).to("cuda")
    weights = torch.ones(4, 2).to("cuda")
    assert weights.sum().item() == 0
    assert weights.cpu().tolist() == [[0, 0]] * 4
    chosen = weights.argmax(0)
    assert torch.cat([ids, chosen]).tolist() == [0] * 4
    ids[0] = chosen[0]  # and forgets what it knew
    assert ids.tolist() == [0, 0]
    assert torch.zeros(1 << 17, dtype=torch.int64, device="cuda")[5].item() == 0
    assert [wait.operation for wait in numberless_gpu.waits].count("tolist") == 2


def test_memory_is_not_taken(numberless_gpu):
    weights = torch.empty(1 << 20, 1 << 20, dtype=torch.float16, device="cuda")
    assert (weights.is_cuda, weights.is_meta, weights.device.type) == (True, False, "cuda")
    assert (weights @ weights).shape == (1 << 20, 1 << 20)


def test_devices_and_dtypes_may_not_be_mixed(numberless_gpu):
    ids, weights = torch.tensor([1, 2]).to("cuda"), torch.ones(3, 2, device="cuda")
    for mixed in (lambda: ids + torch.tensor([1, 2]), lambda: weights + torch.ones(2)):
        with pytest.raises(RuntimeError, match="found cuda:0 and cpu"):
            mixed()
    with pytest.raises(RuntimeError, match=r"linear: .* found torch\.bfloat16 and torch\.float32"):
        torch.nn.functional.linear(weights, torch.ones(2, 2, dtype=torch.bfloat16, device="cuda"))
