"""A node's cache of decoded images: built once, never visible in part, checked before use."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bob import backbones, datasets
from bob.classifier.data import real_arrays
from bob.classifier.pixel_cache import array

SHAPE = (3, 4, 5, 3)
PICTURES = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse() -> Iterator[np.ndarray]:
    raise AssertionError("decoded again")


def files(cache: Path) -> list[str]:
    return sorted(file.name for file in cache.iterdir() if file.suffix != ".lock")


def test_pictures_are_decoded_once_and_mapped(cache: Path) -> None:
    first = array("k", SHAPE, lambda: iter(PICTURES))
    again = array("k", SHAPE, refuse)
    assert np.array_equal(first, PICTURES)
    assert np.array_equal(again, PICTURES)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    assert files(cache) == ["k.npy"]
    assert array("none", (0, 4, 5, 3), refuse).shape == (0, 4, 5, 3)


def test_a_picture_that_cannot_be_decoded_leaves_nothing(cache: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield PICTURES[0]
        raise ValueError("a/b.png cannot be read")

    with pytest.raises(ValueError, match=r"a/b\.png cannot be read"):
        array("k", SHAPE, broken)
    assert files(cache) == []


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", "half", "other"])
def test_a_file_that_is_not_whole_is_made_again(content: bytes | str, cache: Path) -> None:
    array("k", SHAPE, lambda: iter(PICTURES))
    file = cache / "k.npy"
    if content == "other":
        np.save(file, PICTURES[:2])
    else:
        file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:-9])
    assert np.array_equal(array("k", SHAPE, lambda: iter(PICTURES)), PICTURES)


def test_without_a_disk_pictures_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BOB_CACHE", str(tmp_path / "file" / "cache"))
    assert np.array_equal(array("k", SHAPE, lambda: iter(PICTURES)), PICTURES)
    assert "set BOB_CACHE to a folder that can" in capsys.readouterr().out


def test_what_nobody_used_for_weeks_goes(cache: Path) -> None:
    for key in ("old", "used"):
        array(key, SHAPE, lambda: iter(PICTURES))
    mapped = array("old", SHAPE, refuse)
    long_ago = time.time() - 20 * 86_400
    for key in ("old", "used"):
        os.utime(cache / f"{key}.npy", (long_ago, long_ago))
    array("used", SHAPE, refuse)
    array("new", SHAPE, lambda: iter(PICTURES))
    assert files(cache) == ["new.npy", "used.npy"]
    assert np.array_equal(mapped, PICTURES)  # who has it mapped keeps it


def _slow(log: Path) -> None:
    def pictures() -> Iterator[np.ndarray]:
        with log.open("a") as file:
            file.write("decoded\n")
        for picture in PICTURES:
            time.sleep(0.05)
            yield picture

    assert np.array_equal(array("k", SHAPE, pictures), PICTURES)


def test_of_many_processes_one_decodes(cache: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_slow, args=(tmp_path / "log",)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "log").read_text() == "decoded\n"
    assert files(cache) == ["k.npy"]


def test_real_pictures_are_kept_by_their_content(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, mini = datasets.load("skyworld"), backbones.load("resnet_mini")
    shots = world.split(shots=1, val=1, seed=0)[:6]
    first, labels = real_arrays(world, shots, mini)
    assert np.array_equal(first[2], mini.prepare(world.open(shots[2])))
    with monkeypatch.context() as patch:
        patch.setattr(type(world), "open", lambda *_: refuse())
        again, _ = real_arrays(world, shots, mini)
        assert np.array_equal(again, first)
        assert labels.tolist() == [shot.class_id for shot in shots]
    other, _ = real_arrays(world, shots[::-1], mini)
    assert np.array_equal(other[::-1], first)
    wide: Any = backbones.load("resnet50")
    assert real_arrays(world, shots, wide)[0].shape == (6, wide.kept, wide.kept, 3)
    assert len(files(cache)) == 3
