"""Large runs: requests streamed instead of held in memory, small units, simulation in place of the model."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bob import pipeline, store
from bob.commands import verify
from bob.core.settings import Run
from bob.core.types import Unit
from bob.diffusion import checkpoints
from bob.pipeline import walk
from bob.steps import workers
from bob.steps.cell import Cell
from bob.steps.defaults import defaults
from bob.steps.workers import packed
from bob.store import Store, parquet, schema
from bob.store.images import read_images
from tests.integration.tools import SMALLEST, Bob

WORDS = pa.table({"a": range(40), "b": [f"wörd {k}" for k in range(40)], "c": [[0.5] * (k % 3) for k in range(40)]})
SIZES = (10, 0, 7, 1, 22)


def pieces(table: pa.Table) -> list[pa.Table]:
    ends = list(itertools.accumulate(SIZES))
    return [table.slice(end - size, size) for end, size in zip(ends, SIZES, strict=True)]


def simulated(**draw: Any) -> Run:
    """Real Guidance, which needs no captions; two images of each of ten classes."""
    run = defaults(
        checkpoint="simulated:0", backbone="resnet_mini", captioner="qwen_vl:skyworld", method="real_guidance"
    )
    return dataclasses.replace(
        run, draw=dataclasses.replace(run.draw, **{"per_class": 2, "unit": 7, "batch": 3} | draw)
    )


def asked(run: Run, artefacts: Store) -> tuple[Cell, list[Unit]]:
    cell = pipeline.split(run, artefacts)
    return cell, list(walk.generations(cell, artefacts))


# -- tables too long to be held -----------------------------------------------------------------


@pytest.mark.parametrize("parts", [(), (1, "x", ["y"])])
@pytest.mark.parametrize("table", [WORDS, WORDS.slice(0, 0)])
def test_the_key_of_rows_in_pieces_is_that_of_the_list(parts, table, monkeypatch):
    wanted = store.key(*parts, table.to_pylist())
    assert store.key_of_rows(parts, [table]) == wanted
    monkeypatch.setattr("bob.store.keys._ROWS", 4)
    assert store.key_of_rows(parts, pieces(table)) == wanted
    assert store.key_of_rows(parts, [table.slice(1)]) != wanted or not len(table)


def test_any_slice_is_read_from_the_groups_that_it_lies_in(store):
    store.write_tables("t.parquet", iter(pieces(WORDS)), WORDS.schema, {"k": 1})
    assert store.read_table("t.parquet").equals(WORDS)
    opened = []
    held = parquet.Groups(lambda: opened.append(1) or store.open("t.parquet"))
    assert (len(held), parquet.manifest(held.columns)) == (40, {"k": 1})
    assert [len(group) for group in held] == list(SIZES)
    for start, size in itertools.product(range(0, 44, 3), (1, 2, 8, 25, 60)):
        assert held.slice(start, size).equals(WORDS.slice(start, size))
    held.slice(0, 1)
    opened.clear()
    for start in range(18, 40, 2):
        held.slice(start, 2)
    assert len(opened) == 1


def test_a_group_that_is_damaged_is_said_to_be_and_the_others_are_read(local):
    local.write_tables("t.parquet", pieces(WORDS), WORDS.schema, {})
    data = bytearray(local.read("t.parquet"))
    column = pq.ParquetFile(pa.BufferReader(bytes(data))).metadata.row_group(2).column(0)
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    local.write("t.parquet", bytes(data))
    held = local.groups("t.parquet")
    assert held.slice(18, 9).equals(WORDS.slice(18, 9))
    with pytest.raises(ValueError, match=r"t\.parquet is damaged .*CRC.*: delete it"), local.damaged("t.parquet"):
        held.slice(9, 2)
    local.delete("t.parquet")
    with pytest.raises(FileNotFoundError), local.damaged("t.parquet"):
        held.slice(9, 2)


def test_a_temporary_folder_that_is_full_is_named(monkeypatch, tmp_path):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(parquet, "write", full)
    words = f"cannot write to the temporary folder {tmp_path} .No space left on device.: .*set TMPDIR"
    with pytest.raises(ValueError, match=words), parquet.spooled([WORDS], WORDS.schema):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_told_by_listings(store):
    wanted = [f"{folder}/{name}" for folder in ("a", "b/c", "none") for name in ("x", "y")]
    for path in ("a/x", "b/c/y", "b/x"):
        store.write(path, b"")
    assert store.present(wanted) == {"a/x", "b/c/y"}
    assert store.present([]) == set()


# -- requests -----------------------------------------------------------------------------------


def test_requests_and_images_do_not_depend_on_row_groups(tmp_path, monkeypatch):
    drawn = {}
    for rows in (1 << 14, 6):
        monkeypatch.setattr(parquet, "GROUP", rows)
        artefacts = Store(str(tmp_path / str(rows)))
        cell, todo = asked(simulated(), artefacts)
        held = artefacts.groups(f"{cell.images}/requests.parquet")
        assert [len(group) for group in held] == ([20] if rows > 20 else [6, 6, 6, 2])
        assert [unit.size for unit in todo] == [7, 7, 6]
        assert asked(simulated(), artefacts)[1] == todo  # reads what is there
        done = list(workers.inline("cpu")("generate", todo, artefacts))
        assert [receipt.target for receipt in done] == [unit.target for unit in todo]
        drawn[cell.images] = read_images(artefacts, cell.images)
        assert verify.verify(artefacts).problems == ()
    (images,) = drawn  # both in folders of the same name
    inputs = artefacts.manifest(f"{images}/requests.parquet")["inputs"]
    rows = artefacts.read_table(f"{images}/requests.parquet").to_pylist()
    assert images.endswith(f"-{store.key(*inputs, rows)}")


def test_a_unit_is_light(tmp_path):
    """Of a run of ten million images there are a hundred thousand."""
    _, todo = asked(simulated(), Store(str(tmp_path)))
    assert all(len(packed(unit)) < 800 for unit in todo)


# -- the simulation -----------------------------------------------------------------------------


def test_a_simulated_run_says_so_everywhere(tmp_path, capsys, monkeypatch):
    out, bob = tmp_path / "out", Bob(capsys, monkeypatch)
    flags = ("--checkpoint", "simulated:0.01", *SMALLEST, "--draw.batch", "4", "--draw.unit", "5", "--out", out)
    code, said, _ = bob.run(*flags)
    assert code == 0
    assert "simulated by process " in said
    assert "| resnet_mini | BOB | simulated:0.01 |" in said
    assert not (out / "adapters").exists()
    artefacts = Store(str(out))
    (folder,) = (path.relative_to(out) for path in out.glob("images/*"))
    drawn = read_images(artefacts, str(folder)).to_pylist()
    assert {row["checkpoint"] for row in drawn} == {"simulated:0.01"}
    assert len({row["sha1"] for row in drawn}) == len(drawn) == 10
    assert sorted({row["seconds"] for row in drawn}) == [0.0025, 0.01]  # of four, and of the one that is left
    assert verify.verify(artefacts).problems == ()
    assert "0 units to do" in bob.run(*flags)[1]


@pytest.mark.parametrize("name", ["simulated", "simulated:", "simulated:fast", "simulated:-1", "simulated:nan"])
def test_a_simulation_wants_its_seconds(name):
    with pytest.raises(ValueError, match=f"takes the seconds of a batch, as in simulated:1, got '{name}'"):
        checkpoints.settings(name)


def test_filtered_requests_are_judged_by_nobody(tmp_path):
    artefacts = Store(str(tmp_path))
    cell, todo = asked(dataclasses.replace(simulated(), method="diff_mix"), artefacts)
    list(workers.inline("cpu")("generate", todo, artefacts))
    assert cell.drawn > 20  # some more, to be dropped
    assert len(read_images(artefacts, cell.images)) == 20
    scores = artefacts.read_checked(store.scores(todo[0].target), schema.SCORES)
    assert set(scores["clip"].to_pylist()) == {"simulated:0"}


ACTOR = """
import json, sys
import numpy as np
from bob.cluster import data
from bob.cluster.resources import Slots
slots = Slots(count=1, now=1, gpus=1.0, cpus=0.0, threads=2, cwd=".")
actor = data._Actor(step="generate", root=sys.argv[1], slots=slots)
for text in sys.stdin:
    print(*actor({"unit": np.array([text], dtype=object)})["answer"])
print(json.dumps("torch" in sys.modules))
import torch
print(torch.get_num_threads())
"""


def test_an_actor_needs_no_torch_to_simulate_and_draws_nothing_twice(tmp_path):
    artefacts = Store(str(tmp_path))
    _, todo = asked(simulated(), artefacts)
    lines = "".join(f"{packed(unit)}\n" for unit in [*todo, todo[1]])
    done = subprocess.run(
        [sys.executable, "-c", ACTOR, str(tmp_path)], input=lines, capture_output=True, text=True, check=True
    )
    *answers, torch, threads = map(json.loads, done.stdout.splitlines())
    assert [answer["target"] for answer in answers] == [unit.target for unit in [*todo, todo[1]]]
    assert ["simulated" in answer["note"] for answer in answers] == [True, True, True, False]
    assert answers[3]["note"] == "was there"  # as for a block that an actor was lost over
    assert not torch
    assert threads == min(2, os.cpu_count() or 1)  # of a checkpoint that wants torch


@pytest.mark.parametrize(("count", "most"), [(0, 0), (1, 1), (1_999, 1_999), (40_000, 6_000), (1_000_000, 9_000)])
def test_blocks_are_bounded_and_end_with_single_units(count, most):
    from bob.cluster import data

    some = [Unit(step="generate", target=str(k), label="", size=1) for k in range(count)]
    made = [table["unit"].to_pylist() for table in data.blocks(some)]
    assert len(made) <= most
    assert [json.loads(text)["target"] for block in made for text in block] == [unit.target for unit in some]
    sizes = [len(block) for block in made]
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes[-1_000:]) <= {1}
    assert count > 1_999 or set(sizes) <= {1}
