"""The store: artefacts whole or absent, stable keys, clear errors."""

import dataclasses
import json
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from bob.core.settings import DrawSettings, Point, Run, SweepSettings
from bob.core.timing import Stopwatch
from bob.store import FORMAT, Store, key, provenance, slug
from bob.store.files import locate

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})


def files(store: Store) -> list[str]:
    """All files below the root, hidden ones too."""
    filesystem, base = locate(store.root)
    found = filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    return sorted(info.path.removeprefix(f"{base}/") for info in found if info.type == fs.FileType.File)


# -- identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "golden"),
    [
        ((), "4f53cda18c2baa0c"),
        (("generate", 1, {"b": [1, 2.5, None], "a": True}, ("x", "ü")), "adb6df66075e4740"),
        ((Point(lr=1e-3, weight_decay=0.0, lam=0.5),), "36bddbdd6aafc8d5"),
        ((SweepSettings(),), "28cf3bbdd23983f9"),  # from before it had a precision
    ],
)
def test_a_key_never_changes(parts, golden):
    """A change here makes everything again that was ever made."""
    assert key(*parts) == golden


def test_a_key_depends_on_every_input_and_on_no_order_of_names():
    run = Run(dataset="skyworld", method="bob")
    lower = SweepSettings(precision="bfloat16")
    changes = {"dataset": "cub", "shots": 6, "seed": 1, "draw": DrawSettings(steps=49), "sweep": lower}
    changed = [dataclasses.replace(run, **{name: value}) for name, value in changes.items()]
    spellings: list[Any] = [(), (1,), ("1",), (1.0,), (True,), (None,), ([],), ([[]],), ("a", "b"), (["a", "b"],)]
    assert len({key(*parts) for parts in spellings} | {key(r) for r in (run, *changed)}) == len(spellings) + 6
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
    with pytest.raises(TypeError):
        store.write("a/c.bin", no_bytes)
    assert files(store) == ["a/b.bin"]
    assert store.read("a/b.bin") == b"whole"


def test_what_cannot_be_written_is_said_in_one_sentence(local):
    local.write("a/b.bin", b"whole")
    for path, reason in (("a", "Is a directory"), ("a/b.bin/c.bin", "File exists")):
        words = rf"^cannot write .*/out/{path} \({reason}\): all that is complete is kept, .* once it can be written$"
        with pytest.raises(ValueError, match=words):
            local.write(path, b"in the way")
    assert files(local) == ["a/b.bin"]


@pytest.mark.parametrize("write", ["write", "write_table"])
def test_a_full_disk_keeps_what_is_complete(local, write):
    """The system refuses files beyond a size, as it refuses them on a full disk."""
    local.write("t.parquet", b"whole")
    content = (b"x" * 100_000,) if write == "write" else (pa.table({"x": os.urandom(100_000).split(b"a")}), {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ValueError, match=r"t\.parquet \(File too large\): .* command resumes once there is space$"):
            getattr(local, write)("t.parquet", *content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(local) == ["t.parquet"]
    assert local.read("t.parquet") == b"whole"
    getattr(local, write)("t.parquet", *content)
    assert len(local.read("t.parquet")) >= 100_000


def test_one_listing_shows_all_files_with_their_sizes(store):
    with pytest.raises(ValueError, match=r"cannot list .*/out: .*Name a folder that `bob run` wrote to"):
        store.listing()
    store.write("a/b.bin", b"one")
    store.write("c.bin", b"")
    store.write("a/.d.0123.tmp", b"half")
    found = store.listing()
    assert {path: info.size for path, info in found.items()} == {"a/b.bin": 3, "c.bin": 0, "a/.d.0123.tmp": 4}
    assert all(info.mtime_ns for info in found.values())


def test_a_root_written_in_another_way_lists_the_same(local, tmp_path):
    local.write("a/b.bin", b"one")
    for same in (local, Store(f"file://{local.root}/"), Store(f"{tmp_path}/../{tmp_path.name}/out")):
        assert list(same.listing()) == ["a/b.bin"]


def test_temporary_files_are_not_listed(store):
    store.write("part-00000.parquet", b"")
    store.write(".part-00001.parquet.0123.tmp", b"half")
    assert store.names("") == ["part-00000.parquet"]


def test_what_killed_writers_left_is_cleared_after_a_day(local):
    hexes = "0123456789abcdef" * 2
    stale = [f"a/.part-00000.parquet.{hexes}.tmp", f".probe-{hexes}", f"..probe-{hexes}.{hexes}.tmp"]
    others = ["a/.part-00001.parquet.0123.tmp", f"a/part-00000.{hexes}.tmp", f".{hexes}.tmp", "a/.hidden", "a/b.tmp"]
    young = f"a/.part-00002.parquet.{hexes}.tmp"
    for path in (*stale, *others, young):
        local.write(path, b"half")
        if path != young:
            os.utime(Path(local.root, path), (0, time.time() - 86_401))
    assert local.clear_stale() == len(stale)
    assert files(local) == sorted([*others, young])
    assert Store(f"{local.root}/absent").clear_stale() == 0


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


def test_provenance_says_from_what_where_and_how_long():
    found = provenance({"seed": 3}, times=Stopwatch(begun=time.monotonic() - 1.234))
    assert found["format"] == FORMAT
    assert found["config"] == {"seed": 3}
    assert 1.234 <= found["seconds"] == found["times"]["load"] < 2
    assert found["process"] == os.getpid()
    assert found["host"]
    assert {"torch", "diffusers", "ray"} <= set(found["versions"])
    assert json.loads(json.dumps(found)) == found
