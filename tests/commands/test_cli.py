"""Users' mistakes on the command line: one clear sentence, exit code 2, nothing left behind."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bob import cli


def _folder(root: Path, *, classes: int = 2, images: int = 4) -> Path:
    """A little data set of noise, in class sub-folders."""
    for k in range(classes):
        (root / f"class {k}").mkdir(parents=True)
        for j in range(images):
            pixels = np.random.default_rng([k, j]).integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class {k}" / f"{j}.png")
    return root


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.argv", ["bob", "run", "--inline", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["skywrld"], "unknown experiment 'skywrld'.*Did you mean 'skyworld'"),
        (["--method", "bobb"], "unknown method 'bobb'.*Did you mean 'bob'"),
        (["--method", "bob:marginalisation=clas"], "Did you mean 'class'"),
        (["--dataset", "skywrld"], "unknown dataset 'skywrld'.*Did you mean 'skyworld'"),
        (["--dataset", "skyworld:1.5"], "1.5"),
        (["--checkpoint", "sd22"], "unknown checkpoint 'sd22'"),
        (["--backbone", "resnet5"], "unknown backbone 'resnet5'"),
        (["--captioner", "qwen"], "unknown captioner 'qwen'"),
        (["--shots", "-1"], "shots must not be negative, got -1"),
        (["--sweep.lambdas", "1.5"], r"lambdas must lie in \[0, 1\]"),
        (["--dataset", "folder:/no/such/place"], "/no/such/place"),
    ],
)
def test_mistakes_on_the_command_line(arguments, expected, tmp_path, capsys, monkeypatch):
    said = _fails([*arguments, "--out", str(tmp_path / "out")], capsys, monkeypatch)
    assert re.search(expected, said)
    assert not list(tmp_path.rglob("*.parquet"))


def test_empty_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    said = _fails(["--dataset", f"folder:{tmp_path}/empty", "--out", str(tmp_path / "out")], capsys, monkeypatch)
    assert "empty" in said


def test_class_with_too_few_images(tmp_path, capsys, monkeypatch):
    data = _folder(tmp_path / "data")
    said = _fails(["--dataset", f"folder:{data}", "--shots", "5", "--out", str(tmp_path / "out")], capsys, monkeypatch)
    assert "class 0" in said
    assert "4" in said


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "truncated"])
def test_broken_picture(content, tmp_path, capsys, monkeypatch):
    data = _folder(tmp_path / "data")
    for victim in (data / "class 1").iterdir():
        victim.write_bytes(victim.read_bytes()[:900] if content is None else content)
    said = _fails(["--dataset", f"folder:{data}", "--shots", "2", "--out", str(tmp_path / "out")], capsys, monkeypatch)
    assert "class 1" in said
    assert "picture" in said
    assert not list(tmp_path.rglob("*.parquet"))


def test_output_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    said = _fails(["smoke", "--out", str(tmp_path / "file" / "out")], capsys, monkeypatch)
    assert "cannot write" in said


def test_unknown_flag_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bob", "run", "--shotz", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
