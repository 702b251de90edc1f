"""Data sets from a CSV or Parquet list of pictures, and from a saved Hugging Face data set."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from bob import datasets
from bob.core.types import Shot

CLASSES = ("heron", "snow_bunting", "teal")


def pictures(root: Path, count: int = 8) -> list[tuple[str, str]]:
    """(path, label) of pictures that all lie in one folder."""
    rows = [(f"pics/{name[0]}{n}.png", name) for name in CLASSES for n in range(count)]
    (root / "pics").mkdir(parents=True)
    for k, (path, _) in enumerate(rows):
        Image.new("RGB", (6, 5), (k, 2 * k, 9)).save(root / path)
    return rows


def write(file: Path, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Path:
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]), file)
        return file
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    file.write_text(text.getvalue(), encoding="utf-8-sig")  # as spreadsheets save it
    return file


def sizes(shots: Iterable[Shot]) -> Counter[tuple[str, str]]:
    return Counter((shot.class_name, shot.split) for shot in shots)


# -- a list of pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_is_a_data_set(suffix: str, tmp_path: Path) -> None:
    rows = pictures(tmp_path)
    loaded = datasets.load(f"folder:{write(tmp_path / f'list{suffix}', ('path', 'label'), rows)}")
    assert loaded.class_names == ("heron", "snow bunting", "teal")
    split = loaded.split(shots=2, val=2, seed=0)
    assert sizes(split) == {(c, s): n for c in loaded.class_names for s, n in (("train", 2), ("val", 2), ("test", 2))}
    labels = {path: label.replace("_", " ") for path, label in rows}
    for shot in split:
        assert labels[shot.path] == shot.class_name
        assert shot.sha1 == hashlib.sha1((tmp_path / shot.path).read_bytes()).hexdigest()
        assert loaded.open(shot).size == (6, 5)
    reordered = write(tmp_path / f"other{suffix}", ("label", "path"), [(label, path) for path, label in reversed(rows)])
    assert datasets.load(f"folder:{reordered}").split(shots=2, val=2, seed=0) == split


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_may_say_the_splits(suffix: str, tmp_path: Path) -> None:
    rows = [(*row, ("train", "train", "train", "train", "train", "valid", "Test", "test")[k % 8])
            for k, row in enumerate(pictures(tmp_path))]  # fmt: skip
    loaded = datasets.load(f"folder:{write(tmp_path / f'list{suffix}', ('path', 'label', 'split'), rows)}")
    for shots in (2, 5):
        split = loaded.split(shots=shots, val=16, seed=0)
        expected = {"train": shots, "val": 1, "test": 2}
        assert sizes(split) == {(c, s): n for c in loaded.class_names for s, n in expected.items()}
        said = {path: side.lower().replace("valid", "val") for path, _, side in rows}
        assert all(said[shot.path] == shot.split for shot in split)
    with pytest.raises(ValueError, match=r"class 'heron' has 5 pictures in .*/pics, but 6 shots need 6"):
        loaded.split(shots=6, val=1, seed=0)


@pytest.mark.parametrize(
    ("columns", "rows", "reason"),
    [
        (("file", "label"), [("a.png", "x")], "wants the columns path and label .* lacks path and has file, label"),
        (("path", "label"), [("a.png", "x"), ("a.png", "y")], "names 'a.png' more than once"),
        (("path", "label"), [("a.png", "")], "row 1 has no label"),
        (("path", "label", "split"), [("a.png", "x", "dev")], "has a split 'dev': wanted train, val .* and test"),
        (("path", "label", "split"), [("a.png", "x", "test"), ("b.png", "y", "train")], "no test pictures of 'y'"),
        (("path", "label"), [("a.png", "Teal"), ("b.png", "teal")], "has two labels for class 'teal'"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_that_is_no_data_set(
    suffix: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], reason: str, tmp_path: Path
) -> None:
    file = write(tmp_path / f"list{suffix}", columns, rows)
    with pytest.raises(ValueError, match=rf"list\{suffix}.*{reason}"):
        datasets.load(f"folder:{file}")


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    for name in ("list.csv", "list.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ValueError, match=rf"{name} cannot be read"):
            datasets.load(f"folder:{tmp_path / name}")


def test_a_picture_that_is_listed_but_not_there_is_named(tmp_path: Path) -> None:
    rows = [*pictures(tmp_path), ("pics/gone.png", "teal")]
    loaded = datasets.load(f"folder:{write(tmp_path / 'list.csv', ('path', 'label'), rows)}")
    with pytest.raises(ValueError, match=r"pics/gone\.png cannot be read"):
        loaded.split(shots=5, val=2, seed=0)  # more than half a class, so that all of it is drawn


# -- save_to_disk ---------------------------------------------------------------------------------


def saved(root: Path, **parts: int) -> Path:
    """What the real library writes; `parts` says how many pictures each split has, none of them: one data set."""
    import datasets as hugging_face

    features = hugging_face.Features(
        {
            "image": hugging_face.Image(),
            "label": hugging_face.ClassLabel(names=list(CLASSES)),
            "id": hugging_face.Value("int64"),
        }
    )

    def made(count: int, start: int) -> Any:
        images = [Image.new("RGB", (6, 5), (k + start, 2 * k, 9)) for k in range(count)]
        columns = {"image": images, "label": [k % 3 for k in range(count)], "id": list(range(count))}
        return hugging_face.Dataset.from_dict(columns, features=features)

    if parts:
        hugging_face.DatasetDict({name: made(n, 50 * k) for k, (name, n) in enumerate(parts.items())}).save_to_disk(
            root
        )
    else:
        made(24, 0).select(range(23, -1, -1)).save_to_disk(root, num_shards=2)
    return root


def test_a_saved_data_set_is_read_as_it_lies(tmp_path: Path) -> None:
    import datasets as hugging_face

    theirs: Any = hugging_face.load_from_disk(saved(tmp_path / "set"))
    loaded = datasets.load(f"folder:{tmp_path / 'set'}")
    assert loaded.class_names == ("heron", "snow bunting", "teal")
    split = loaded.split(shots=3, val=2, seed=0)
    assert sizes(split) == {(c, s): n for c in loaded.class_names for s, n in (("train", 3), ("val", 2), ("test", 2))}
    for shot in split:
        row = theirs[int(shot.path.removeprefix("train/"))]
        assert row["label"] == shot.class_id
        assert np.array_equal(np.asarray(row["image"]), np.asarray(loaded.open(shot)))


def test_a_saved_data_set_keeps_its_splits(tmp_path: Path) -> None:
    loaded = datasets.load(f"folder:{saved(tmp_path / 'set', train=24, validation=6, test=9)}")
    split = loaded.split(shots=5, val=16, seed=0)
    assert sizes(split) == {(c, s): n for c in loaded.class_names for s, n in (("train", 5), ("val", 2), ("test", 3))}
    assert {(shot.split, shot.path.partition("/")[0]) for shot in split} == {
        ("train", "train"),
        ("val", "validation"),
        ("test", "test"),
    }


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "data-00000-of-00002.arrow"])
def test_a_saved_data_set_that_is_damaged_is_named(file: str, tmp_path: Path) -> None:
    (saved(tmp_path / "set") / file).write_bytes(b"{}"[: 1 + file.startswith("d")])
    with pytest.raises(ValueError, match="is not as save_to_disk wrote it"):
        datasets.load(f"folder:{tmp_path / 'set'}")
