"""The image generator on an untrained mini Stable Diffusion: rows, batches, adapter swaps, quarantine."""

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bob.core.types import Request
from bob.diffusion import checkpoints, lora
from bob.diffusion.image_generator import ImageGenerator
from bob.store import schema, tables


def request(k: int, **changes: Any) -> Request:
    fields: dict[str, Any] = {"prompt": "a aircraft photo of a Heron", "steps": 2, "label_ids": (k,)}
    fields |= {"request_id": f"{k}-0", "class_id": k, "index": 0, "seed": 50 + k, "label_weights": (1.0,)}
    return Request(**fields | changes)


def never() -> dict[str, bytes]:
    raise AssertionError("the adapter was read")


@pytest.fixture
def painter(untrained_sd: Path) -> ImageGenerator:
    made = ImageGenerator("cpu")
    made.use(f"path:{untrained_sd}", "", never)
    return made


@pytest.fixture(scope="module")
def adapters(untrained_sd: Path) -> dict[str, dict[str, bytes]]:
    """Two adapters that draw otherwise than the bare checkpoint, and than one another."""
    made = {}
    for seed, name in enumerate(("one", "other")):
        pipeline = checkpoints.load(f"path:{untrained_sd}", device=torch.device("cpu"), dtype=torch.float32)
        lora.add(pipeline.unet, pipeline.text_encoder, rank=2)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in lora.parameters(pipeline.unet, pipeline.text_encoder).values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        made[name] = {lora.FILE: lora.serialize(pipeline.unet, pipeline.text_encoder)}
    return made


def changed(folder: Path, copy: Path, part: str, change: Callable[[dict[str, torch.Tensor]], None]) -> str:
    """A copy of a checkpoint with some tensors of one part changed in place."""
    shutil.copytree(folder, copy)
    (file,) = (copy / part).glob("*.safetensors")
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})
    return f"path:{copy}"


def pictures(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows]).astype(int)


def test_a_row_is_its_request_and_its_picture(painter, untrained_sd):
    asked = request(3, background="pink dawn", pose="level left", bank_row=2, adapter="adapters/x")
    rows, rejected = painter.draw([asked, request(4)], batch=2)
    assert rejected == []
    table = tables.from_rows(rows, schema.IMAGES)
    assert table.schema.equals(schema.IMAGES, check_metadata=True)
    row = rows[0]
    assert {name: row[name] for name in schema.REQUESTS.names} == {
        name: getattr(asked, name) for name in schema.REQUESTS.names
    }
    assert row["sha1"] == hashlib.sha1(row["image"]).hexdigest()
    with Image.open(io.BytesIO(row["image"])) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (32, 32))
    assert (row["format"], row["width"], row["height"]) == ("png", 32, 32)
    assert row["checkpoint"] == f"path:{untrained_sd}"
    assert 0 < row["seconds"] < 60


def test_a_batch_holds_those_that_agree_and_no_more_than_it_may(painter):
    wanted = [2.0, 2.0, 2.0, 1.0, 2.0, 2.0]
    asked = [request(k, guidance=guidance) for k, guidance in enumerate(wanted)]
    asked.append(request(6, steps=3))
    rows, _ = painter.draw(asked, batch=2)
    assert [row["class_id"] for row in rows] == list(range(7))
    times = [row["seconds"] for row in rows]  # of a batch, divided by its size
    groups = {time: [k for k in range(7) if times[k] == time] for time in times}
    assert sorted(groups.values()) == [[0, 1], [2, 4], [3], [5], [6]]
    alone = [painter.draw([one], batch=1)[0][0] for one in asked]
    assert np.abs(pictures(rows) - pictures(alone)).max() <= 1


def test_the_same_requests_give_the_same_bytes(painter):
    asked = [request(k) for k in range(3)]
    one, again = (painter.draw(asked, batch=3)[0] for _ in range(2))
    assert [row["image"] for row in one] == [row["image"] for row in again]
    assert len({row["sha1"] for row in one}) == 3


def test_adapters_are_swapped_from_clean_weights(untrained_sd, adapters):
    painter, reads = ImageGenerator("cpu"), []

    def drawn(name: str) -> bytes:
        painter.use(f"path:{untrained_sd}", name, lambda: reads.append(name) or adapters[name])
        return painter.draw([request(0)], batch=1)[0][0]["image"]

    order = ("one", "one", "other", "one", "", "other", "")
    first: dict[str, bytes] = {}
    for name in order:
        assert drawn(name) == first.setdefault(name, drawn(name))
    assert len(set(first.values())) == 3
    assert reads == ["one", "other", "one", "other"]


@pytest.mark.parametrize("broken", [b"no safetensors", None])
def test_an_adapter_that_cannot_be_loaded_leaves_nothing_behind(untrained_sd, adapters, broken):
    painter, name = ImageGenerator("cpu"), f"path:{untrained_sd}"

    def read() -> dict[str, bytes]:
        if broken is None:
            raise OSError("the store is gone")
        return {lora.FILE: broken}

    painter.use(name, "one", lambda: adapters["one"])
    wanted = painter.draw([request(0)], batch=1)[0][0]["image"]
    with pytest.raises(Exception, match=r"the store is gone|is damaged"):
        painter.use(name, "broken", read)
    with pytest.raises(AssertionError, match="use"):
        painter.draw([request(0)], batch=1)
    painter.use(name, "one", lambda: adapters["one"])
    assert painter.draw([request(0)], batch=1)[0][0]["image"] == wanted


def test_another_checkpoint_is_loaded(untrained_sd, tmp_path, painter):
    def double(state: dict[str, torch.Tensor]) -> None:
        state["conv_out.weight"] *= 2

    other = changed(untrained_sd, tmp_path / "sd", "unet", double)
    one = painter.draw([request(0)], batch=1)[0][0]
    painter.use(other, "", never)
    two = painter.draw([request(0)], batch=1)[0][0]
    assert two["image"] != one["image"]
    assert two["checkpoint"] == other


def test_pictures_of_one_colour_are_rejected(untrained_sd, tmp_path):
    def flatten(state: dict[str, torch.Tensor]) -> None:
        state["decoder.conv_out.weight"] *= 0

    painter = ImageGenerator("cpu")
    painter.use(changed(untrained_sd, tmp_path / "sd", "vae", flatten), "", never)
    rows, rejected = painter.draw([request(0), request(1)], batch=2)
    assert rows == []
    table = tables.from_rows(rejected, schema.REJECTED).to_pylist()
    assert [row["row_id"] for row in table] == ["0-0", "1-0"]
    assert {row["step"] for row in table} == {"generate"}
    assert all("one colour all over" in row["message"] for row in table)


def test_a_picture_that_is_not_finite_is_rejected_and_its_batch_kept(untrained_sd, tmp_path, painter):
    pipeline = checkpoints.load(f"path:{untrained_sd}", device=torch.device("cpu"), dtype=torch.float32)
    (token,) = set(pipeline.tokenizer("Teal")["input_ids"]) - set(pipeline.tokenizer("Heron")["input_ids"])

    def poison(state: dict[str, torch.Tensor]) -> None:
        (name,) = (name for name in state if name.endswith("token_embedding.weight"))
        state[name][token] = torch.nan

    asked = [request(0), request(1, prompt="a Teal"), request(2)]
    wanted = painter.draw(asked, batch=3)[0]
    painter.use(changed(untrained_sd, tmp_path / "sd", "text_encoder", poison), "", never)
    rows, rejected = painter.draw(asked, batch=3)
    assert [row["request_id"] for row in rows] == ["0-0", "2-0"]
    assert [row["row_id"] for row in rejected] == ["1-0"]
    assert "not finite" in rejected[0]["message"]
    assert [row["image"] for row in rows] == [wanted[0]["image"], wanted[2]["image"]]


def test_a_request_that_the_pipeline_refuses_is_rejected_with_what_it_raised(painter):
    asked = [request(k) for k in range(4)]
    wanted = painter.draw(asked, batch=4)[0]
    asked[2] = request(2, prompt="\ud800")  # half a character, which no tokenizer takes
    rows, rejected = painter.draw(asked, batch=4)
    assert [row["request_id"] for row in rows] == ["0-0", "1-0", "3-0"]
    assert np.abs(pictures(rows) - pictures([wanted[k] for k in (0, 1, 3)])).max() <= 1
    (row,) = tables.from_rows(rejected, schema.REJECTED).to_pylist()
    assert (row["row_id"], row["step"], row["error"]) == ("2-0", "generate", "TypeError")
    assert "TextEncodeInput" in row["message"]


def test_a_pipeline_that_refuses_everything_is_no_requests_fault(painter):
    with pytest.raises(TypeError, match="TextEncodeInput"):
        painter.draw([request(k, prompt="\ud800") for k in range(3)], batch=2)


def small(painter: ImageGenerator, *, holds: int) -> list[int]:
    """Lets the U-Net run out of memory over more than `holds` pictures; returns how many it was given."""
    sizes: list[int] = []

    def full(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(args[0]) // 2)  # guidance: once with the prompt, once without
        if sizes[-1] > holds:
            raise torch.OutOfMemoryError("no room")

    painter._pipeline.unet.register_forward_pre_hook(full)
    return sizes


def test_where_memory_runs_out_fewer_are_drawn_at_once_and_the_same(painter, untrained_sd):
    asked = [request(k) for k in range(7)]
    wanted = painter.draw(asked, batch=6)[0]
    assert painter.note() == ""
    sizes = small(painter, holds=2)
    rows, rejected = painter.draw(asked, batch=6)
    assert rejected == []
    assert [row["request_id"] for row in rows] == [row["request_id"] for row in wanted]
    assert np.abs(pictures(rows) - pictures(wanted)).max() <= 1
    tried = [size for k, size in enumerate(sizes) if k == 0 or size != sizes[k - 1]]
    assert tried == [6, 3, 1]
    assert painter.note() == "out of memory, so drawing 1 at once from here on"
    sizes.clear()
    painter.draw(asked[:2], batch=6)
    assert set(sizes) == {1}
    assert painter.note() == ""
    painter.use(f"path:{untrained_sd}/", "", never)  # another checkpoint may be smaller
    sizes = small(painter, holds=9)
    painter.draw(asked, batch=6)
    assert sizes[0] == 6


def test_where_memory_does_not_hold_one_picture_it_says_so(painter):
    small(painter, holds=0)
    with pytest.raises(ValueError, match=r"drawing runs out of memory even one at a time \(no room\)"):
        painter.draw([request(0), request(1)], batch=2)
