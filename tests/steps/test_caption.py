"""Step 1 with scripted answers: the captions table."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bob import captioners
from bob.captioners import Answer, Captioner
from bob.captioners._cleaning import PROMPT_VERSION
from bob.core.types import Shot, Unit
from bob.datasets import load
from bob.paper.experiments import mini
from bob.pipeline import splits
from bob.steps import caption
from bob.steps.caption import CaptionStep
from bob.store import Store, schema, tables


class Toy(Captioner):
    """Answers with the size of the batch it got, to show that there is no other picture in it."""

    def caption(self, images: Sequence[Image.Image], *, descriptor: str) -> list[Answer]:
        return [
            Answer(background_raw=f"The background is {descriptor} land.", pose_raw=f"A Zephyr flying {i.size}")
            for i in images
        ]


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """The names that `captioners.load` has been called with; it gives the toy."""
    names: list[str] = []

    def load(name: str, *, device: str) -> Captioner:
        names.append(f"{name} on {device}")
        return Toy(name="toy:1", revision="abc")

    monkeypatch.setattr(captioners, "load", load)
    return names


def test_a_reader_fills_the_table_and_loads_its_captioner_once(loaded):
    shots = load("skyworld").split(shots=4, val=1, seed=0)[:40]
    reader = CaptionStep(captioner="toy", dataset="skyworld", device="cuda:1")
    assert loaded == []
    (rows, rejected), (again, _) = reader(shots), reader(shots[:1])
    assert loaded == ["toy on cuda:1"]
    assert rejected == []
    assert tables.from_rows(rows, schema.CAPTIONS)["image_id"].to_pylist() == [shot.image_id for shot in shots]
    assert again == [
        {
            "image_id": shots[0].image_id,
            "background": "aircraft land",
            "pose": "flying (32, 32)",
            "background_raw": "The background is aircraft land.",
            "pose_raw": "A Zephyr flying (32, 32)",
            "leaked": True,
            "captioner": "toy:1",
            "revision": "abc",
            "prompt_version": PROMPT_VERSION,
        }
    ]
    assert reader([]) == ([], [])


def test_the_descriptor_of_the_user_goes_before_the_data_sets(loaded):
    shots = load("skyworld").split(shots=1, val=1, seed=0)[:1]
    ((row,), _) = CaptionStep(captioner="toy", dataset="skyworld", descriptor="machine")(shots)
    assert row["background"] == "machine land"


def test_answers_enter_as_they_are_where_cleaning_is_off(loaded):
    shots = load("skyworld").split(shots=1, val=1, seed=0)[:1]
    ((row,), _) = CaptionStep(captioner="toy", dataset="skyworld", cleaning="off")(shots)
    assert (row["background"], row["pose"]) == ("The background is aircraft land.", "A Zephyr flying (32, 32)")
    assert row["leaked"]


def test_cleaning_is_part_of_the_key_and_reaches_the_worker(tmp_path, loaded):
    def unit(cleaning: Any) -> Unit:
        run = mini("bob", captioner_cleaning=cleaning)
        return next(caption.units(splits.split(run, Store(str(tmp_path)))))

    standard, off = unit("standard"), unit("off")
    assert standard.target != off.target
    caption.CaptionWorker(str(tmp_path), device="cpu")(off)
    rows = Store(str(tmp_path)).read_checked(off.target, schema.CAPTIONS).to_pylist()
    assert {row["background"] for row in rows} == {"The background is aircraft land."}


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path) -> tuple[str, list[Shot]]:
    """A folder of pictures that can be broken, and the shots of it."""
    for name in ("Egret", "Heron"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(5):
            pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    dataset = f"folder:{tmp_path / 'photos'}"
    return dataset, [shot for shot in load(dataset).split(shots=3, val=1, seed=0) if shot.split == "train"]


def file(dataset: str, shot: Shot) -> Path:
    return Path(dataset.removeprefix("folder:"), shot.path)


def test_a_shot_that_cannot_be_read_is_set_apart_with_the_reason(photos, untrained_qwen, monkeypatch):
    monkeypatch.setattr("bob.datasets._pictures._RATIO", 1000)  # so that the picture comes as far as the model
    dataset, shots = photos
    shots = [dataclasses.replace(shot, sha1="" if k == 2 else shot.sha1) for k, shot in enumerate(shots)]
    vanished, long, cut = (file(dataset, shots[k]) for k in (0, 2, 5))
    reader = CaptionStep(captioner=f"qwen_vl:path:{untrained_qwen}", dataset=dataset)
    wanted, none = reader(shots)
    assert none == []
    vanished.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    Image.new("RGB", (1, 300)).save(long)  # Qwen refuses a picture that is 200 times as long as wide
    rows, rejected = reader(shots)
    assert rows == [wanted[k] for k in (1, 3, 4)]
    table = tables.from_rows(rejected, schema.REJECTED).to_pylist()
    assert [(row["row_id"], row["step"], row["error"]) for row in table] == [
        (shots[k].image_id, "caption", "ValueError") for k in (0, 2, 5)
    ]
    assert f"{vanished} cannot be read (No such file" in table[0]["message"]
    assert "aspect ratio" in table[1]["message"]
    assert f"{cut} has changed since the split was drawn" in table[2]["message"]


def test_where_no_picture_is_there_none_is_to_blame(photos, untrained_qwen):
    dataset, shots = photos
    reader = CaptionStep(captioner=f"qwen_vl:path:{untrained_qwen}", dataset=dataset)
    reader(shots[:1])
    for shot in shots:
        file(dataset, shot).unlink()
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        reader(shots)


def test_weights_that_are_missing_are_no_shots_fault(photos, tmp_path):
    dataset, shots = photos
    with pytest.raises(ValueError, match=r"no Qwen2\.5-VL checkpoint"):
        CaptionStep(captioner=f"qwen_vl:path:{tmp_path}", dataset=dataset)(shots[:1])


def test_too_many_pictures_at_once_become_fewer(untrained_qwen):
    """The model itself runs out of memory; a picture has two questions, so two sequences."""
    shots = load("skyworld").split(shots=4, val=1, seed=0)[:19]
    reader, sizes = CaptionStep(captioner=f"qwen_vl:path:{untrained_qwen}", dataset="skyworld"), []
    wanted, _ = reader(shots)
    assert reader.note() == ""

    def full(_, args, given) -> None:
        if given["input_ids"].shape[1] > 1:  # a prompt, not the tokens that are written after it
            sizes.append(len(given["input_ids"]) // 2)
            if sizes[-1] > 5:
                raise torch.OutOfMemoryError("no room")

    model: Any = reader._model
    model.model.register_forward_pre_hook(full, with_kwargs=True)
    assert reader(shots) == (wanted, [])
    assert sizes == [16, 8, 4, 4, 4, 4, 3]
    assert reader.note() == "out of memory, so captioning 4 at once from here on"
    sizes.clear()
    assert reader(shots[:6]) == (wanted[:6], [])
    assert sizes == [4, 2]
    assert reader.note() == ""
