"""Artefacts are whole or absent, their keys are stable, and what is wrong with one is said."""

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bob.settings import DrawSettings, Point, Run
from bob.store import Store, key, provenance, slug

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def files(store: Store) -> list[str]:
    """All files below the root, hidden ones too."""
    root = Path(store.root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# -- identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "golden"),
    [
        ((), "4f53cda18c2baa0c"),
        (("generate", 1, {"b": [1, 2.5, None], "a": True}, ("x", "ü")), "adb6df66075e4740"),
        ((Point(lr=1e-3, weight_decay=0.0, lam=0.5),), "36bddbdd6aafc8d5"),
    ],
)
def test_a_key_never_changes(parts, golden):
    """A change here makes everything again that was ever made."""
    assert key(*parts) == golden


def test_a_key_depends_on_every_input_and_on_no_order_of_names():
    run = Run(dataset="skyworld", method="bob")
    changed = [
        dataclasses.replace(run, **{name: value})
        for name, value in {"dataset": "cub", "shots": 6, "seed": 1, "draw": DrawSettings(steps=49)}.items()
    ]
    spellings: list[Any] = [(), (1,), ("1",), (1.0,), (True,), (None,), ([],), ([[]],), ("a", "b"), (["a", "b"],)]
    assert len({key(*parts) for parts in spellings} | {key(r) for r in (run, *changed)}) == len(spellings) + 5
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key(run) == key(dataclasses.replace(run))
    assert key(("a", 1)) == key(["a", 1])  # as it comes back from JSON


def test_what_is_no_plain_data_has_no_key():
    with pytest.raises(TypeError, match="cannot be part of a key or manifest: PosixPath"):
        key({"path": Path("/tmp")})


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("folder:/data/My Birds", "folder-data-My-Birds"),
        ("F-16A/B", "F-16A-B"),
        ("../..", "x"),
        ("", "x"),
        ("Müller…", "M-ller"),
        ("b" * 60 + "-" + "a" * 47, "a" * 47),
    ],
)
def test_a_slug_is_safe_in_a_path(text, short):
    assert slug(text) == short


# -- files --------------------------------------------------------------------------------------


def test_a_file_is_written_read_listed_and_deleted(store):
    assert not store.exists("a/b.bin")
    assert store.names("a") == []
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    store.write("a/c/d.bin", b"")
    assert store.read("a/b.bin") == b"two"
    assert store.exists("a/b.bin")
    assert not store.exists("a")  # a folder is no artefact
    assert store.names("a") == ["b.bin"]
    assert files(store) == ["a/b.bin", "a/c/d.bin"]
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(store):
    store.write("a/b.bin", b"whole")
    no_bytes: Any = "text"
    with pytest.raises(TypeError):
        store.write("a/b.bin", no_bytes)
    with pytest.raises(OSError, match="directory"):
        store.write("a", b"where a folder is")
    assert files(store) == ["a/b.bin"]
    assert store.read("a/b.bin") == b"whole"


def test_one_listing_shows_all_files_with_their_sizes(store, tmp_path):
    with pytest.raises(ValueError, match=r"cannot list .*/out: .*Name a folder that `bob run` wrote to"):
        store.files()
    store.write("a/b.bin", b"one")
    store.write("c.bin", b"")
    Path(store.root, "a", ".d.0123.tmp").write_bytes(b"half")
    for same in (store, Store(f"file://{store.root}/"), Store(f"{tmp_path}/../{tmp_path.name}/out")):
        found = same.files()
        assert {path: info.size for path, info in found.items()} == {"a/b.bin": 3, "c.bin": 0, "a/.d.0123.tmp": 4}
    assert all(info.mtime_ns for info in found.values())


def test_temporary_files_are_not_listed(store):
    store.write("part-00000.parquet", b"")
    Path(store.root, ".part-00001.parquet.0123.tmp").write_bytes(b"half")
    assert store.names("") == ["part-00000.parquet"]


def test_a_reader_sees_one_version_or_the_other(store):
    versions = [bytes([k]) * 50_000 for k in range(4)]
    store.write("file", versions[0])

    def write() -> None:
        for k in range(40):
            store.write("file", versions[k % 4])

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert store.read("file") in versions
    assert files(store) == ["file"]


def test_a_uri_is_a_root_too(tmp_path):
    store = Store(f"file://{tmp_path}/out/")
    store.require_writable()
    store.write_table("a/t.parquet", TABLE, {"rows": 3})
    assert store.names("a") == ["t.parquet"]
    assert store.read_table("a/t.parquet").equals(TABLE)
    assert store.manifest("a/t.parquet") == {"rows": 3}
    assert store.scratch("tune") == f"file://{tmp_path}/out/scratch/tune"


def test_scratch_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Store("out").scratch("train") == str(tmp_path / "out" / "scratch" / "train")


def test_proving_that_a_root_is_writable_leaves_nothing(store):
    store.require_writable()
    assert files(store) == []


def test_a_root_that_cannot_be_written_to_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*/file/below: .*Choose another --out"):
        Store(str(tmp_path / "file" / "below")).require_writable()
    with pytest.raises(ValueError, match="has no name: give --out"):
        Store("")
    with pytest.raises(ValueError, match="foo"):
        Store("foo://bucket").require_writable()


# -- tables -------------------------------------------------------------------------------------


def test_a_table_carries_its_manifest_and_loses_nothing(store):
    described = TABLE.replace_schema_metadata({"own": "words"})
    store.write_table("t.parquet", described, {"config": DrawSettings(steps=3), "ids": (1, 2)})
    assert store.manifest("t.parquet") == {
        "config": {"": "DrawSettings", "per_class": 100, "guidance": 2.0, "steps": 3, "batch": 10, "unit": 100},
        "ids": [1, 2],
    }
    assert store.read_table("t.parquet").equals(TABLE)
    assert store.read_table("t.parquet", columns=["b"]).column_names == ["b"]
    foreign = pq.read_table(Path(store.root, "t.parquet"))
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


def test_a_bit_that_flips_in_a_column_is_damage(store):
    """Arrow alone gives other words and says nothing."""
    words = pa.table({"a": ["needle"]})
    store.write_table("t.parquet", words, {})
    data = bytearray(store.read("t.parquet"))
    data[data.index(b"needle")] ^= 1
    store.write("t.parquet", bytes(data))
    assert pq.read_table(Path(store.root, "t.parquet"))["a"].to_pylist() == ["oeedle"]
    with pytest.raises(ValueError, match=r"is damaged .*CRC"):
        store.read_table("t.parquet")


def test_a_manifest_that_cannot_be_read_says_so(store):
    store.write_json("manifest.json", {"seconds": 2})
    assert store.manifest("manifest.json") == {"seconds": 2}
    for broken, words in ((b"", "missing or cannot be read"), (b"{", "cannot be read"), (b"[1]", "no table of names")):
        store.write("manifest.json", broken)
        with pytest.raises(ValueError, match=words):
            store.manifest("manifest.json")
    store.write("t.parquet", b"text")
    with pytest.raises(ValueError, match="Parquet"):
        store.manifest("t.parquet")
    pq.write_table(TABLE, Path(store.root, "t.parquet"))
    with pytest.raises(ValueError, match="missing or cannot be read"):
        store.manifest("t.parquet")


def test_a_missing_table_is_missing_not_damaged(store):
    with pytest.raises(FileNotFoundError):
        store.read_table("t.parquet")


def test_provenance_says_from_what_where_and_how_long():
    found = provenance({"seed": 3}, seconds=1.23456)
    assert found["config"] == {"seed": 3}
    assert found["seconds"] == 1.235
    assert found["host"]
    assert {"torch", "diffusers", "ray"} <= set(found["versions"])
    assert json.loads(json.dumps(found)) == found
