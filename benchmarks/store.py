"""Cost of the store's guarantees: shards written by `Store.write_table`, compared with pyarrow alone.

    python benchmarks/store.py --out FOLDER [--shards 200 --images 100 --bytes 2000]

Three writers on the same disk: the store; `pyarrow.parquet.write_table` with the same fsync; the same without fsync.
Prints a Markdown row: the store's median time per shard; then for each other writer its median time and the factor by
which the store is slower: median and range of the repetitions.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bob import store
from bob.store import schema
from bob.store.tables import from_rows

PLAIN = {"string": "", "list<element: string>": [], "int32": 0, "int64": 0, "double": 0.0}
"""A value for each column type, negligible in size beside the pictures."""


def shard(images: int, size: int, seed: int) -> pa.Table:
    """Rows of schema.IMAGES whose pictures are noise, as incompressible as a PNG, of `size` bytes each."""
    rng, rows = np.random.default_rng(seed), []
    for k in range(images):
        picture = rng.bytes(size)
        row = {field.name: PLAIN.get(str(field.type), []) for field in schema.IMAGES}
        row |= {"request_id": f"0-{k}", "prompt": "a plane photo of an A320, in a city skyline, climbing to the left"}
        rows.append(row | {"index": k, "image": picture, "sha1": hashlib.sha1(picture).hexdigest(), "seconds": 0.1 * k})
    return from_rows(rows, schema.IMAGES)


def writers(root: Path) -> dict[str, Callable[[str, pa.Table], None]]:
    """Name -> writer of (path below the root, table)."""
    artefacts = store.Store(str(root))
    manifest = store.provenance({"requests": "images/x/requests.parquet", "start": 0, "batch": 10})

    def synced(path: str, table: pa.Table) -> None:
        pq.write_table(table, root / path)
        with open(root / path, "rb+") as file:
            os.fsync(file.fileno())

    return {
        "store": lambda path, table: artefacts.write_table(path, table, manifest),
        "pyarrow + fsync": synced,
        "pyarrow": lambda path, table: pq.write_table(table, root / path),
    }


def repetition(root: Path, tables: list[pa.Table], shards: int) -> dict[str, float]:
    """Name of a writer -> median seconds per shard; each writer writes all shards into its own folder.

    The two that fsync alternate shard by shard, so that they share the disk's state. The writer without fsync runs
    last, since its dirty pages would slow down the next fsync.
    """
    taken: dict[str, list[float]] = {"store": [], "pyarrow + fsync": [], "pyarrow": []}
    for turns in (("store", "pyarrow + fsync"), ("pyarrow",)):
        for name in turns:
            (root / name).mkdir(parents=True)
        chosen = {name: writers(root / name)[name] for name in turns}
        os.sync()
        for number in range(shards):
            for name in turns if number % 2 else turns[::-1]:
                start = time.perf_counter()
                chosen[name](f"part-{number:05d}.parquet", tables[number % len(tables)])
                taken[name].append(time.perf_counter() - start)
    shutil.rmtree(root)
    return {name: statistics.median(each) for name, each in taken.items()}


def main() -> None:
    """Measures one size of shard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder on the disk to measure")
    for name, default in (("shards", 200), ("images", 100), ("bytes", 2_000), ("repetitions", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    tables = [shard(given.images, given.bytes, seed) for seed in range(4)]
    root = given.out / "bob-benchmark-store"
    repetition(root, tables, max(1, given.shards // 10))  # warms up
    taken = [repetition(root, tables, given.shards) for _ in range(given.repetitions)]
    print(f"| {given.shards} shards of {given.images} x {given.bytes / 1000:g} KB |", end="")
    for name in taken[0]:
        print(f" {statistics.median(each[name] for each in taken) * 1000:.2f} ms", end=" |")
        if name != "store":
            ratios = sorted(each["store"] / each[name] for each in taken)
            print(f" {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})", end=" |")
    print()


if __name__ == "__main__":
    main()
