"""Processes that share a fine-tune's batches: the adapter of one process, up to the order of sums."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from bob.core.types import Tuning
from bob.diffusion import parallel
from bob.diffusion.training import Callbacks, adapter, train
from tests.diffusion.test_micro_batches import SETTINGS, TUNINGS, apart, fresh, loaded, pairs

BATCHES_OF_ONE = dataclasses.replace(SETTINGS, total_steps=4, batch=4)
"""Five pairs in fours: in each second batch a process of two has nothing to do."""


def run(checkpoint: str, tuning: Tuning, state: bytes | None = None) -> tuple[Any, list[float], dict[int, bytes]]:
    """Adapter, reported losses and saved states of a fine-tune."""
    losses, states = list[float](), dict[int, bytes]()
    callbacks = Callbacks(
        save=states.__setitem__, report=lambda done, loss: losses.append(loss), tell=lambda words: None
    )
    pipeline = fresh(checkpoint)
    train(pipeline, pairs(5), settings=BATCHES_OF_ONE, seed=0, tuning=tuning, state=state, callbacks=callbacks)
    return loaded(adapter(pipeline, tuning)), losses, states


def share(rank: int, count: int, folder: str, checkpoint: str) -> None:
    """One process of a group: does each fine-tune that the folder describes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    for name, state in torch.load(Path(folder, "work")).items():
        torch.save(run(checkpoint, TUNINGS[name], state), Path(folder, f"{name}-{rank}"))
    dist.destroy_process_group()


def shared(folder: Path, checkpoint: str, states: Mapping[str, bytes | None]) -> Iterator[tuple[str, Any, Any]]:
    """(name of the tuning, what process 0 made, what process 1 made) of fine-tunes by two processes."""
    folder.mkdir()
    torch.save(dict(states), folder / "work")
    torch.multiprocessing.spawn(share, (2, str(folder), checkpoint), nprocs=2)  # pyright: ignore
    for name in states:
        yield name, *(torch.load(folder / f"{name}-{rank}") for rank in range(2))


def test_two_processes_make_the_adapter_of_one(untrained_sd, tmp_path):
    checkpoint = f"path:{untrained_sd}"
    alone = {name: run(checkpoint, tuning) for name, tuning in TUNINGS.items()}
    begun: dict[str, bytes] = {}
    for name, (one, losses, states), (other, _, _) in shared(tmp_path / "new", checkpoint, dict.fromkeys(TUNINGS)):
        wanted, wanted_losses, _ = alone[name]
        assert apart(one, other) == 0
        assert 0 < apart(wanted, one) < 1e-5
        assert losses == pytest.approx(wanted_losses, rel=1e-5)
        begun[name] = states[2]
    saved = {name: states[2] for name, (_, _, states) in alone.items()}
    for name, (one, _, _), _ in shared(tmp_path / "resumed", checkpoint, saved):  # one began, two end
        assert 0 < apart(alone[name][0], one) < 1e-5
    for name, state in begun.items():  # two began, one ends
        assert 0 < apart(alone[name][0], run(checkpoint, TUNINGS[name], state)[0]) < 1e-5


@pytest.mark.parametrize(("size", "count"), [(80, 3), (1, 2), (0, 2), (7, 7)])
def test_parts_of_a_batch_cover_it_once(monkeypatch, size, count):
    rows = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: count)
    for rank in range(count):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        part = range(size)[parallel.part(size)]
        assert len(part) in (size // count, -(-size // count))
        rows += part
    assert rows == list(range(size))
