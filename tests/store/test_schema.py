"""Table schemas: every column documented, matching record types, and everything else refused."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bob.core.types import Request, Shot
from bob.store import schema, tables

NAMES = [name for name in schema.__all__ if name.isupper()]
SHOT = Shot(
    image_id="a/1.jpg", sha1="0" * 40, path="a/1.jpg", class_id=0, class_name="a", split="train", width=3, height=2
)


@pytest.mark.parametrize("name", NAMES)
def test_every_column_says_what_it_means(name: str) -> None:
    for column in getattr(schema, name):
        assert (column.metadata or {}).get(b"meaning"), f"{name}.{column.name}"


@pytest.mark.parametrize(("record", "columns"), [(Shot, schema.SHOTS), (Request, schema.REQUESTS)])
def test_a_record_is_a_row(record: type, columns: pa.Schema) -> None:
    assert {field.name for field in dataclasses.fields(record)} == set(columns.names)


def test_an_image_is_a_request_that_was_drawn() -> None:
    assert schema.IMAGES.names[: len(schema.REQUESTS.names)] == schema.REQUESTS.names


def test_meanings_and_units_survive_parquet(tmp_path: Path) -> None:
    pq.write_table(tables.from_rows([dataclasses.asdict(SHOT)], schema.SHOTS), tmp_path / "shots.parquet")
    read = pq.read_table(tmp_path / "shots.parquet")
    assert read.schema.equals(schema.SHOTS, check_metadata=True)
    assert read.to_pylist() == [dataclasses.asdict(SHOT)]
    assert read.schema.field("width").metadata[b"unit"] == b"pixel"


def test_a_request_fits_its_table() -> None:
    request = Request(request_id="0-0", class_id=0, index=0, prompt="a photo", seed=2**63 - 1, label_ids=(1,))
    row = tables.from_rows([dataclasses.asdict(request)], schema.REQUESTS).to_pylist()[0]
    assert row["seed"] == 2**63 - 1
    assert row["label_ids"] == [1]


def test_no_rows_make_an_empty_table() -> None:
    assert tables.from_rows([], schema.SHOTS).schema.equals(schema.SHOTS, check_metadata=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"missing or unknown: \['colour'\]"),
        ({"sha1": None}, "column 'sha1' must not hold nulls, found 1"),
        ({"width": "wide"}, "a row does not fit its table"),
        ({"width": 2**40}, "a row does not fit its table"),
        ({"path": 3}, "a row does not fit its table"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables.from_rows([dataclasses.asdict(SHOT) | change], schema.SHOTS)


def test_a_missing_column_is_named() -> None:
    row = dataclasses.asdict(SHOT)
    del row["split"]
    with pytest.raises(ValueError, match=r"missing or unknown: \['split'\]"):
        tables.from_rows([row], schema.SHOTS)
