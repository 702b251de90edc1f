"""Tables and the contact sheet: means over seeds, missing cells, placement."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bob import datasets
from bob.core.settings import Run
from bob.paper import layouts, render, tabulate
from bob.paper.contact_sheet import contact_sheet
from bob.store import schema, tables

COORDINATES = ("dataset", "shots", "method", "checkpoint", "backbone", "seed")


def result(run: Run, value: float, *, split: str = "test", metric: str = "accuracy") -> dict[str, Any]:
    fixed = {"run": "k", "phase": "final", "lr": 1e-3, "weight_decay": 0.0, "lambda": 0.5, "layer_decay": 1.0}
    measured = {"epoch": 1, "split": split, "metric": metric, "value": value, "n": 10}
    return {**{name: getattr(run, name) for name in COORDINATES}, **fixed, **measured}


def run(method: str, **changes: Any) -> Run:
    return Run(**{"dataset": "cub", "method": method, "shots": 5, "checkpoint": "sd21", **changes})


def finals(runs: list[Run], rows: list[dict[str, Any]]) -> list[tuple[Run, pa.Table | None]]:
    """Each run with those of the rows that are its own."""
    own = [[row for row in rows if all(row[name] == getattr(of, name) for name in COORDINATES)] for of in runs]
    return [(of, tables.from_rows(some, schema.RESULTS) if some else None) for of, some in zip(runs, own, strict=True)]


def test_a_table_holds_mean_and_deviation_over_seeds_and_shows_what_is_missing():
    runs = [
        run(method, seed=seed, shots=shots) for shots in (5, 10) for method in ("datadream", "bob") for seed in (0, 1)
    ]
    rows = [
        result(runs[0], 0.50),
        result(runs[1], 0.54),
        result(runs[2], 0.6),
        result(runs[4], 0.25),
        result(runs[0], 0.99, metric="accuracy_class_mean"),
        result(runs[0], 0.98, split="val"),
    ]
    table = tabulate.rows(finals(runs, rows), layouts.PLAIN, name="t")
    assert table.schema.equals(schema.TABLES)
    found = {(row["row"], row["column"]): row for row in table.to_pylist()}
    datadream, bob = "ImageNet / DataDream / v2.1", "ImageNet / BOB / v2.1"
    assert list(found) == [(name, f"cub {shots}-shot") for name in (datadream, bob) for shots in (5, 10)]
    first = found[datadream, "cub 5-shot"]
    assert (first["ours"], first["seeds"]) == (pytest.approx(52.0), 2)
    assert first["ours_std"] == pytest.approx(8**0.5)  # of a sample: divided by n - 1
    single = found[bob, "cub 5-shot"]
    assert (single["ours"], single["ours_std"], single["seeds"]) == (pytest.approx(60.0), None, 1)
    missing = found[bob, "cub 10-shot"]
    assert (missing["ours"], missing["ours_std"], missing["seeds"]) == (None, None, 0)
    assert render.markdown(table, layouts.PLAIN) == (
        "| backbone | method | SD | cub 5-shot | cub 10-shot |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| ImageNet | DataDream | v2.1 | <u>52.00 ± 2.83 (2 seeds)</u> | 25.00 |\n"
        "| ImageNet | BOB | v2.1 | **60.00** | - |\n"
    )
    lines = render.csv_text(table).splitlines()
    assert lines[0] == ",".join(schema.TABLES.names)
    assert len(lines) == 5


def test_checkpoints_are_not_averaged_as_if_they_were_seeds():
    runs = [run("bob", checkpoint=checkpoint) for checkpoint in ("sd15", "sd21")]
    rows = [result(of, value) for of, value in zip(runs, (0.4, 0.6), strict=True)]
    table = tabulate.rows(finals(runs, rows), layouts.PLAIN, name="t")
    assert [(row["ours"], row["seeds"]) for row in table.to_pylist()] == [
        (pytest.approx(40), 1),
        (pytest.approx(60), 1),
    ]


@pytest.mark.parametrize("lost", [None, "pets"])
def test_a_missing_cell_spoils_its_average(lost):
    runs = [run("bob", dataset=name) for name in ("cub", "cars", "pets")]
    rows = [result(of, value) for of, value in zip(runs, (0.4, 0.6, 0.8), strict=True) if of.dataset != lost]
    cells = {row["column"]: row for row in tabulate.rows(finals(runs, rows), layouts.TABLE1, name="t").to_pylist()}
    assert cells["mean 5-shot"]["ours"] == (None if lost else pytest.approx(60))
    assert cells["mean 5-shot"]["paper"] == pytest.approx((71.38 + 88.64 + 87.00) / 3)


def test_a_contact_sheet_shows_each_class_in_a_row():
    data = datasets.load("skyworld")
    shots = [shot for shot in data.split(shots=3, val=1, seed=0) if shot.split == "train"]
    colours = {(c, k): (20 * c, 60 * k, 7) for c in range(1, 10) for k in range(3)}  # nothing of the first class
    drawn = pa.Table.from_pylist([{"class_id": c, "image": png(colours[c, k])} for c, k in colours])
    sheet = contact_sheet(run("bob", dataset="skyworld"), shots, {"one": drawn, "other": drawn[:3]}, each=2, side=64)
    with Image.open(io.BytesIO(sheet)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (130 + 3 * (2 * 64 + 14), 28 + 10 * 64))
        pixels = np.asarray(picture)

    def place(block: int, column: int, row: int) -> np.ndarray:
        left, top = 130 + block * (2 * 64 + 14) + column * 64, 28 + row * 64
        return pixels[top : top + 64, left : left + 64]

    for c in range(10):
        for k in range(2):
            real = np.asarray(data.open(shots[3 * c + k])).repeat(2, 0).repeat(2, 1)
            assert (place(0, k, c) == real).all()
            assert (place(1, k, c) == colours.get((c, k), (255, 255, 255))).all()
            assert (place(2, k, c) == (colours[c, k] if c == 1 else (255, 255, 255))).all()


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "png")
    return file.getvalue()
