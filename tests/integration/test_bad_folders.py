"""Unusual files, names and folders of users: each works as expected, or ends in one clear sentence."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bob import datasets, methods
from bob.captioners import _cleaning
from bob.core.budget import budget
from bob.core.settings import DrawSettings
from bob.core.types import Context, Shot, TrainingSet
from bob.datasets import Dataset
from tests.integration.tools import SMALLEST, Bob, photos, tree

pytestmark = pytest.mark.timeout(60)
needs_rights = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture
def bob(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bob:
    return Bob(capsys, monkeypatch)


def split(root: Path) -> tuple[Dataset, tuple[Shot, ...]]:
    loaded = datasets.load(f"folder:{root}", "bird")
    return loaded, loaded.split(shots=1, val=1, seed=0)


# -- files ----------------------------------------------------------------------------------------


def gone(file: Path) -> None:
    file.unlink()


def changed(file: Path) -> None:
    Image.new("RGB", (5, 5), "red").save(file)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def a_link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def a_dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere.png")


def not_to_be_read(file: Path) -> None:
    file.chmod(0)


SPOILED = [
    (a_pipe, "is no file but a folder, pipe or device: take it out"),
    (a_device, "is no file but a folder, pipe or device: take it out"),
    (a_link_to_itself, r"cannot be read \(Too many levels of symbolic links\): replace the file or take it out"),
    (a_dangling_link, r"cannot be read \(No such file or directory\): replace the file or take it out"),
    pytest.param(not_to_be_read, r"cannot be read \(Permission denied\)", marks=needs_rights),
]
SPOILED_SINCE = [
    (gone, r"cannot be read \(No such file or directory\): replace the file or take it out"),
    (changed, "has changed since the split was drawn: give the same command again"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILED)
def test_a_file_that_cannot_be_read_is_named_by_the_split(
    spoil: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    spoil(photos(tmp_path) / "teal" / "1.png")
    with pytest.raises(ValueError, match=rf"teal/1\.png {reason}"):
        split(tmp_path)


@pytest.mark.parametrize(("spoil", "reason"), SPOILED + SPOILED_SINCE)
def test_a_file_that_is_spoiled_after_the_split_is_named_when_opened(
    spoil: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    loaded, shots = split(photos(tmp_path))
    spoil(tmp_path / shots[0].path)
    with pytest.raises(ValueError, match=f"{shots[0].path} {reason}"):
        loaded.open(shots[0])


def test_a_data_set_may_be_a_farm_of_links(tmp_path: Path) -> None:
    photos(tmp_path / "elsewhere")
    for file in [*(tmp_path / "elsewhere").rglob("*.png")]:
        link = tmp_path / "farm" / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    loaded, shots = split(tmp_path / "farm")
    assert [loaded.open(shot).size for shot in shots] == [(9, 8)] * 6


def test_a_folder_named_like_a_picture_is_a_folder(tmp_path: Path) -> None:
    photos(tmp_path, classes=("teal/x.png", "heron"))
    _, shots = split(tmp_path)
    assert {shot.path for shot in shots if shot.class_name == "teal"} == {f"teal/x.png/{n}.png" for n in range(3)}


def test_odd_names_of_pictures(tmp_path: Path) -> None:
    names = ["a\nb.png", "100%s {0}.png", "é" * 125 + "x.png", "-.png", "🦆.PNG", "CON.png"]
    photos(tmp_path, count=len(names))
    for n, name in enumerate(names):
        (tmp_path / "teal" / f"{n}.png").rename(tmp_path / "teal" / name)
    loaded = datasets.load(f"folder:{tmp_path}")
    shots = loaded.split(shots=len(names) - 2, val=1, seed=0)
    assert {shot.path for shot in shots if shot.class_id == 1} == {f"teal/{name}" for name in names}
    assert all(loaded.open(shot).size == (9, 8) for shot in shots)


@needs_rights
def test_a_class_folder_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    (photos(tmp_path) / "teal").chmod(0)
    try:
        with pytest.raises(ValueError, match=r"/teal cannot be read \(Permission denied\)"):
            split(tmp_path)
    finally:
        (tmp_path / "teal").chmod(0o700)


def test_a_test_picture_without_a_header_is_found_before_any_work(tmp_path: Path, bob: Bob) -> None:
    (shot,) = (shot for shot in split(photos(tmp_path / "data"))[1] if (shot.split, shot.class_id) == ("test", 1))
    (tmp_path / "data" / shot.path).write_bytes(b"<html>")
    said = bob.refuses("--dataset", f"folder:{tmp_path}/data", *SMALLEST, "--out", tmp_path / "out")
    assert f"{shot.path} cannot be read as a picture" in said
    assert not [name for name in tree(tmp_path / "out") if (tmp_path / "out" / name).is_file()]


# -- names of classes -----------------------------------------------------------------------------

NAMES = {
    "backslash": ("a\\b", "a\\b"),
    "colon": ("a:b", "a:b"),
    "trailing blank": ("teal ", "teal"),
    "accent of its own": ("e\u0301meu", "\u00e9meu"),
    "emoji": ("🦆 duck", "🦆 duck"),
    "right to left": ("בז", "בז"),
    "line end": ("snow\nbunting", "snow bunting"),
    "255 bytes": ("é" * 127 + "x", "é" * 127 + "x"),
    "dunder": ("__init__", "init"),
    "device of Windows": ("con", "con"),
    "percent and braces": ("100%s %(x)d {0} {d} {", "100%s %(x)d {0} {d} {"),
    "quotes": ('Bewick\'s "swan"', 'Bewick\'s "swan"'),
    "markup": ("[bold] <b>", "[bold] <b>"),
    "flag": ("--out", "--out"),
    "shell": ("$(touch x) `y`; ~", "$(touch x) `y`; ~"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_class_name_stands_in_its_prompts_as_it_is(case: str, tmp_path: Path) -> None:
    folder, name = NAMES[case]
    loaded, shots = split(photos(tmp_path, classes=(folder, "heron")))
    assert name in loaded.class_names
    train = tuple(shot for shot in shots if shot.split == "train")
    contexts = {shot.image_id: Context(background="sky {x} %s", pose="left") for shot in train}
    training = TrainingSet(
        dataset=loaded.name,
        descriptor="bird",
        superclass="bird",
        class_names=loaded.class_names,
        shots=train,
        budget=budget([1, 1], per_class=1, long_tail=False),
        contexts=contexts,
    )
    for method in map(methods.load, ("bob", "datadream")):
        tuned = [pair.prompt for pair in method.train_pairs(training)]
        drawn = [request.prompt for request in method.requests(training, draw=DrawSettings(per_class=1), seed=0)]
        for prompts in (tuned, drawn):
            assert sum(f"a bird photo of a {name}" in prompt for prompt in prompts) == 1
    words = {"descriptor": "bird", "class_names": loaded.class_names}
    assert _cleaning.clean(f"a {name} over a lake", about="background", **words)[0].endswith("lake")


def test_all_odd_names_at_once_run_to_a_table(tmp_path: Path, bob: Bob) -> None:
    data = photos(tmp_path / "odd 'é' %s {0}\n[b]", classes=[folder for folder, _ in NAMES.values()])
    before = tree(data)
    arguments = ("--method", "datadream", "--descriptor", "100% {bird}", *SMALLEST, "--out", tmp_path / "out")
    code, out, _ = bob.run("--dataset", f"folder:{data}", *arguments)
    assert code == 0
    assert "| resnet_mini | DataDream | skyworld |" in out
    assert tree(data) == before
    assert sorted(os.listdir(tmp_path)) == sorted([data.name, "out"])


NAMES_REFUSED = {
    "only blanks": (["   "], "gives no class name that can stand in a prompt: rename the sub-folder"),
    "accents spelt twice": (["\u00e9", "e\u0301"], r"two sub-folders for class 'é', .*'e\\u0301'.*: rename one"),
    "capitals apart": (["Heron", "heron"], "two sub-folders for class '[Hh]eron', .*: rename one"),
    "turns the text around": (["\u202egnp"], r"\\u202egnp' gives no class name"),
    "joined emoji": (["👩\u200d🚀"], r"\\u200d.* gives no class name"),
    "only hidden": ([".git", ".cache"], "has no sub-folders"),
}


@pytest.mark.parametrize("case", NAMES_REFUSED)
def test_a_name_that_cannot_be_a_class(case: str, tmp_path: Path, bob: Bob) -> None:
    folders, reason = NAMES_REFUSED[case]
    photos(tmp_path, classes=folders)
    with pytest.raises(ValueError, match=reason):
        split(tmp_path)


def test_an_error_about_a_line_end_is_one_line(tmp_path: Path, bob: Bob) -> None:
    data = photos(tmp_path / "a\nb\x1b[2J", count=2)
    said = bob.refuses("--dataset", f"folder:{data}", *SMALLEST, "--out", tmp_path / "out")
    assert r"/a\nb\x1b[2J/heron, but 1 shots need 3" in said


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("x" * 300, "File name too long"),
        ("\udcff", "is no UTF-8"),
        ("a\0b", "does not exist"),
        ("file", "is no folder"),
    ],
    ids=["300 letters", "no text", "zero byte", "a file"],
)
def test_a_data_set_that_cannot_be(argument: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=reason):
        datasets.load(f"folder:{tmp_path}/{argument}")


@pytest.mark.timeout(120)  # most of it goes by while torch is imported
def test_a_process_of_its_own_says_one_line_and_exits_with_2(tmp_path: Path) -> None:
    a_pipe(photos(tmp_path / "data") / "teal" / "1.png")
    arguments = ["--dataset", f"folder:{tmp_path}/data", *SMALLEST, "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "bob.cli", "run", "--inline", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 2
    assert done.stderr == f"bob: {tmp_path}/data/teal/1.png is no file but a folder, pipe or device: take it out\n"
