"""Parquet export for Hugging Face *datasets*: pictures as `Image`, classes as `ClassLabel`, one file for each shard."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["CONFIG", "LOAD", "write"]

CONFIG = {"data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
LOAD = """from datasets import load_dataset

images = load_dataset("FOLDER", split="train")
images[0]["image"], images.features["label"].names"""

_LISTS = {"source_ids": pa.string(), "label_ids": pa.int32(), "label_weights": pa.float64()}
_INTEGERS = {"label": pa.int64(), "seed": pa.int64(), "steps": pa.int32()}
_FLOATS = ("strength", "guidance", "switch_at")


def write(shards: Iterable[Sequence[Mapping[str, Any]]], class_names: Sequence[str], folder: Path) -> Counter[int]:
    """Writes `data/train-00000.parquet` and so on below a folder.

    Returns:
        Class id -> images.
    """
    counts: Counter[int] = Counter()
    (folder / "data").mkdir()
    for number, rows in enumerate(rows for rows in shards if rows):
        counts.update(row["label"] for row in rows)
        pictures = [{"bytes": row["image"], "path": f"{row['request_id']}.png"} for row in rows]
        table = pa.Table.from_pylist(
            [{**row, "image": picture} for row, picture in zip(rows, pictures, strict=True)],
            schema=_schema(tuple(rows[0]), class_names),
        )
        pq.write_table(table, folder / "data" / f"train-{number:05d}.parquet", row_group_size=100)
    return counts


def _schema(names: Sequence[str], class_names: Sequence[str]) -> pa.Schema:
    columns = pa.schema([(name, _type(name)) for name in names])
    features = {name: _feature(columns.field(name).type) for name in names}
    features["label"] = {"names": list(class_names), "_type": "ClassLabel"}
    return columns.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _type(name: str) -> pa.DataType:
    if name == "image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    if name in _LISTS:
        return pa.list_(_LISTS[name])
    return _INTEGERS.get(name) or (pa.float64() if name in _FLOATS else pa.string())


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": {pa.float64(): "float64"}.get(kind, str(kind)), "_type": "Value"}
