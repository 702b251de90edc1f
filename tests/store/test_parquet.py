"""Parquet files: read back as written, manifest included, or reported as damaged."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bob.core.settings import DrawSettings
from bob.store import FORMAT

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})


def test_a_table_carries_its_manifest_and_loses_nothing(store):
    described = TABLE.replace_schema_metadata({"own": "words"})
    store.write_table("t.parquet", described, {"config": DrawSettings(steps=3), "ids": (1, 2)})
    assert store.manifest("t.parquet") == {
        "config": {"": "DrawSettings", "per_class": 100, "guidance": 2.0, "steps": 3, "batch": 10, "unit": 100},
        "ids": [1, 2],
    }
    assert store.read_table("t.parquet").equals(TABLE)
    assert store.read_table("t.parquet", columns=["b"]).column_names == ["b"]
    foreign = pq.read_table(pa.BufferReader(store.read("t.parquet")))
    assert foreign.equals(TABLE)
    assert foreign.schema.metadata[b"own"] == b"words"


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: b"text", lambda data: data[:-20], lambda data: data[:60] + data[70:]]
)
def test_a_damaged_table_says_what_to_do(store, damage):
    store.write_table("t.parquet", TABLE, {})
    store.write("t.parquet", damage(store.read("t.parquet")))
    with pytest.raises(ValueError, match=r"out/t\.parquet is damaged .*: delete it, and the same command makes it"):
        store.read_table("t.parquet")


def test_a_flipped_bit_in_a_page_is_damage(store):
    """Without checksums another picture would come back."""
    pictures = pa.table({"image": [os.urandom(500) for _ in range(20)], "k": range(20)})
    store.write_table("t.parquet", pictures, {})
    data = bytearray(store.read("t.parquet"))
    pages = pq.ParquetFile(pa.BufferReader(bytes(data))).metadata.row_group(0).column(0)
    middle = pages.data_page_offset + pages.total_compressed_size // 2
    data[middle] ^= 0x10
    assert pq.read_table(pa.BufferReader(bytes(data))).num_rows == 20  # nothing else tells
    store.write("t.parquet", bytes(data))
    with pytest.raises(ValueError, match=r"t\.parquet is damaged \(.*CRC.*\): delete it"):
        store.read_table("t.parquet")


def test_a_column_whose_name_is_no_text_is_damage(local):
    local.write_table("t.parquet", pa.table({"word": [1]}), {})
    local.write("t.parquet", local.read("t.parquet").replace(b"word", b"wor\xff"))
    with pytest.raises(ValueError, match=r"t\.parquet is damaged \(.*utf-8.*\): delete it"):
        local.read_table("t.parquet")


def test_what_another_version_wrote_is_not_read(store):
    store.write_table("t.parquet", TABLE, {"format": FORMAT + 1})
    for read in (store.read_table, store.manifest):
        words = r"out/t\.parquet was written by another version of bob \(format 2, this one reads format 1\): use that"
        with pytest.raises(ValueError, match=words):
            read("t.parquet")
    with pytest.raises(ValueError, match="another version"):  # not: a column is missing
        store.read_table("t.parquet", columns=["new"])
    store.write_json("manifest.json", {"format": FORMAT + 1})
    with pytest.raises(ValueError, match="another version"):
        store.manifest("manifest.json")


def test_a_table_of_no_manifest_is_read(store):
    store.write("t.parquet", _bare())
    assert store.read_table("t.parquet").equals(TABLE)


def _bare() -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def test_a_bit_that_flips_in_a_column_is_damage(store):
    """Arrow alone gives other words and says nothing."""
    words = pa.table({"a": ["needle"]})
    store.write_table("t.parquet", words, {})
    data = bytearray(store.read("t.parquet"))
    data[data.index(b"needle")] ^= 1
    store.write("t.parquet", bytes(data))
    assert pq.read_table(pa.BufferReader(bytes(data)))["a"].to_pylist() == ["oeedle"]
    with pytest.raises(ValueError, match=r"is damaged .*CRC"):
        store.read_table("t.parquet")


def test_a_manifest_that_cannot_be_read_says_so(store):
    store.write_json("manifest.json", {"seconds": 2})
    assert store.manifest("manifest.json") == {"seconds": 2}
    for broken, words in ((b"", "missing or cannot be read"), (b"{", "cannot be read"), (b"[1]", "no JSON object")):
        store.write("manifest.json", broken)
        with pytest.raises(ValueError, match=words):
            store.manifest("manifest.json")
    store.write("t.parquet", b"text")
    with pytest.raises(ValueError, match="Parquet"):
        store.manifest("t.parquet")
    store.write("t.parquet", _bare())
    with pytest.raises(ValueError, match="missing or cannot be read"):
        store.manifest("t.parquet")


def test_a_missing_table_is_missing_not_damaged(store):
    with pytest.raises(FileNotFoundError):
        store.read_table("t.parquet")
