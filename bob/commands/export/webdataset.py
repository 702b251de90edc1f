"""Export as tar shards for *webdataset* and *datasets*: IMAGE.png, IMAGE.cls (class id) and IMAGE.json in sequence."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["CONFIG", "LOAD", "write"]

CONFIG = {"data_files": [{"split": "train", "path": "train-*.tar"}]}
LOAD = """from datasets import load_dataset

images = load_dataset("webdataset", data_dir="FOLDER", split="train")
images[0]["png"], images[0]["cls"], images[0]["json"]["class_name"]"""


def write(shards: Iterable[Sequence[Mapping[str, Any]]], class_names: Sequence[str], folder: Path) -> Counter[int]:
    """Writes `train-00000.tar` and so on into a folder.

    Returns:
        Class id -> images.
    """
    counts: Counter[int] = Counter()
    for number, rows in enumerate(rows for rows in shards if rows):
        with tarfile.open(folder / f"train-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
            for row in rows:
                facts = {name: value for name, value in row.items() if name != "image"}
                _add(shard, f"{row['request_id']}.png", row["image"])
                _add(shard, f"{row['request_id']}.cls", str(row["label"]).encode())
                _add(shard, f"{row['request_id']}.json", json.dumps(facts, ensure_ascii=False).encode())
                counts[row["label"]] += 1
    return counts


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without time and owner, so that equal images give equal bytes
    entry.size = len(content)
    shard.addfile(entry, io.BytesIO(content))
