"""Output folders with unusual names: results land there and nowhere else, or one sentence says why not."""

import os
import re
from pathlib import Path

import pytest

from tests.integration.tools import SMALLEST, Bob, photos, tree

pytestmark = pytest.mark.timeout(60)
needs_rights = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture
def bob(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bob:
    return Bob(capsys, monkeypatch)


OUT = {
    "blanks and accents": ("my öut 結果", "my öut 結果"),
    "home": ("~/out", "home/out"),
    "dots": ("x/../y/./out", "y/out"),
    "link to a folder": ("link", "target"),
    "the data set's parent": (".", "."),
}


@pytest.mark.parametrize("case", OUT)
def test_an_output_folder_that_works(case: str, tmp_path: Path, bob: Bob, monkeypatch: pytest.MonkeyPatch) -> None:
    out, lands = OUT[case]
    (tmp_path / "home").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "data")
    before = tree(tmp_path)
    code, said, _ = bob.run("--dataset", "folder:home/../data", "--method", "real_only", *SMALLEST, "--out", out)
    assert code == 0, said
    assert (tmp_path / lands / "tables").is_dir()
    after = tree(tmp_path)
    assert before.items() <= after.items()
    new = {name for name in set(after) - set(before) if not name.startswith("home/.cache/")}  # matplotlib's fonts
    written = [Path(name) for name in new if (tmp_path / name).is_file()]
    assert len(written) == 10  # shots, sweep, final, the last two's plans; four tables and a picture
    assert all(path.is_relative_to(lands) and not path.is_relative_to("data") for path in written)
    assert not [path for path in written if path.name.startswith(".")]


OUT_REFUSED = {
    "nothing": ("", "the output folder has no name: give --out a folder"),
    "a file": ("file", "cannot write to .*file: .*Choose another --out"),
    "below a file": ("file/out", "cannot write to .*file/out: .*Choose another --out"),
    "a dangling link": ("dangling", "cannot write to .*dangling: .*Choose another --out"),
    "no text": ("\udcff", "is no UTF-8"),
    "300 letters": ("x" * 300, "File name too long"),
    "the data set": ("data", "lies in the data set folder:data, .*: choose another --out"),
    "in the data set": ("data/heron/out", "lies in the data set"),
    "hidden in the data set": ("data/.out", "lies in the data set"),
    "in the data set, by a link": ("inside/out", "lies in the data set"),
    "unknown kind of place": ("ftp://host/out", "ftp://host/out"),
}


@pytest.mark.parametrize("case", OUT_REFUSED)
def test_an_output_folder_that_does_not(case: str, tmp_path: Path, bob: Bob, monkeypatch: pytest.MonkeyPatch) -> None:
    out, reason = OUT_REFUSED[case]
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "inside").symlink_to("data/teal")
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "data")
    before = tree(tmp_path)
    said = bob.refuses("--dataset", "folder:data", "--method", "real_only", *SMALLEST, "--out", out)
    assert re.search(reason, said)
    assert tree(tmp_path) == before


@needs_rights
def test_an_output_folder_below_what_may_not_be_written(tmp_path: Path, bob: Bob) -> None:
    (tmp_path / "fixed").mkdir(mode=0o500)
    said = bob.refuses(
        "--dataset", f"folder:{photos(tmp_path / 'data')}", *SMALLEST, "--out", tmp_path / "fixed" / "out"
    )
    assert "Permission denied" in said
