"""`folder:` data sets: any user's folder of pictures, with what is wrong with such folders."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from bob import datasets
from bob.core.types import Shot
from bob.datasets import folder as module
from bob.datasets._pictures import open_picture


def _fill(folder: Path, count: int, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        Image.new("RGB", (6, 5), (n, len(folder.name), 0)).save(folder / f"{n}{suffix}")


def _split(root: Path, *, shots: int = 1, val: int = 1, seed: int = 0) -> tuple[Shot, ...]:
    return datasets.load(f"folder:{root}").split(shots=shots, val=val, seed=seed)


def _sizes(split: tuple[Shot, ...]) -> tuple[int, ...]:
    return tuple(sum(shot.split == part for shot in split) for part in ("train", "val", "test"))


def test_classes_are_named_and_ordered_as_a_reader_would(tmp_path: Path) -> None:
    for name in ("class_10", "Class_2", "_boeing__747 ", "class 1", ".hidden", "Émeu"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    loaded = datasets.load(f"folder:{tmp_path}")
    assert loaded.class_names == ("boeing 747", "class 1", "Class 2", "class 10", "Émeu")
    assert loaded.descriptor == "object"
    assert loaded.name == f"folder:{tmp_path}"


def test_pictures_are_known_by_their_extension(tmp_path: Path) -> None:
    names = ["a.JPG", "b.jpeg", "c.png", "d.webp", "e.bmp", "f.gif", "g.tif", "h.TIFF", "deep/er/i.png"]
    (tmp_path / "x" / "deep" / "er").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 3)).save(tmp_path / "x" / name)
    for name in ("Thumbs.db", ".hidden.png", "a.jpg.part", "readme"):
        (tmp_path / "x" / name).touch()
    split = _split(tmp_path)
    pool = sorted(f"x/{name}" for name in names)
    assert {shot.path for shot in split} <= set(pool)
    assert sorted(module._pictures(tmp_path, "x")) == pool


def test_a_shot_says_what_the_file_is(tmp_path: Path) -> None:
    _fill(tmp_path / "a_b", 3)
    for shot in _split(tmp_path):
        assert shot.sha1 == hashlib.sha1((tmp_path / shot.path).read_bytes()).hexdigest()
        assert (shot.class_name, shot.width, shot.height) == ("a b", 6, 5)
        assert shot.image_id == shot.path


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    _fill(tmp_path / "a", 3)
    before = {shot.path: shot.sha1 for shot in _split(tmp_path)}
    Image.new("RGB", (60, 50)).save(tmp_path / "a" / "0.png")
    changed = [shot for shot in _split(tmp_path) if shot.sha1 != before[shot.path]]
    assert [(shot.path, shot.width) for shot in changed] == [("a/0.png", 60)]


def test_the_split_does_not_depend_on_the_order_of_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c/deep", "c"):
        _fill(tmp_path / name, 12)
    straight = _split(tmp_path, shots=2, val=3)
    listing = Path.iterdir

    def backwards(self: Path) -> Iterator[Path]:
        return iter(sorted(listing(self), reverse=True))

    monkeypatch.setattr(Path, "iterdir", backwards)
    assert _split(tmp_path, shots=2, val=3) == straight


def test_the_split_does_not_depend_on_where_the_folder_lies_or_on_its_other_classes(tmp_path: Path) -> None:
    _fill(tmp_path / "here" / "b", 12)
    _fill(tmp_path / "there" / "a", 12)
    _fill(tmp_path / "there" / "b", 12)
    here, there = ([s.path for s in _split(tmp_path / w, shots=3) if s.class_name == "b"] for w in ("here", "there"))
    assert here == there


def test_a_split_never_changes(tmp_path: Path) -> None:
    """Guards numpy's permutation too, whose stream is not promised for ever."""
    _fill(tmp_path / "a", 12)
    assert [shot.path for shot in _split(tmp_path, shots=3, seed=7) if shot.split == "train"] == [
        "a/4.png",
        "a/5.png",
        "a/8.png",
    ]


@pytest.mark.parametrize(
    ("count", "shots", "val", "sizes"),
    [
        (3, 1, 1, (1, 1, 1)),
        (3, 1, 16, (1, 1, 1)),
        (7, 5, 16, (5, 1, 1)),
        (12, 10, 16, (10, 1, 1)),
        (15, 5, 16, (5, 4, 4)),
        (30, 5, 16, (5, 10, 10)),
        (30, 10, 16, (10, 10, 10)),
        (60, 5, 16, (5, 16, 34)),
        (60, 10, 16, (10, 16, 34)),
        (60, 20, 16, (20, 16, 24)),
    ],
)
def test_what_a_class_is_divided_into(tmp_path: Path, count: int, shots: int, val: int, sizes: tuple[int, ...]) -> None:
    _fill(tmp_path / "a", count)
    split = _split(tmp_path, shots=shots, val=val)
    assert _sizes(split) == sizes
    assert len({shot.path for shot in split}) == len(split)


def test_a_class_needs_two_more_than_the_shots(tmp_path: Path) -> None:
    _fill(tmp_path / "big", 12)
    _fill(tmp_path / "small_one", 6)
    with pytest.raises(ValueError, match=r"class 'small one' has 6 pictures in .*small_one, but 5 shots need 7"):
        _split(tmp_path, shots=5)


def _no_sub_folders(root: Path) -> None:
    Image.new("RGB", (4, 4)).save(root / "1.png")
    (root / ".git").mkdir()


def _same_name(root: Path) -> None:
    (root / "a_b").mkdir()
    (root / "a b").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.rmdir, "does not exist"),
        (lambda root: (root.rmdir(), root.touch()), "is no folder"),
        (lambda root: None, "has no sub-folders: put the pictures of each class into a folder"),
        (_no_sub_folders, "has no sub-folders"),
        (_same_name, "two sub-folders for class 'a b', .*: rename one"),
        (lambda root: (root / "_").mkdir(), "gives no class name that can stand in a prompt: rename the sub-folder"),
        (lambda root: (root / "a\ab").mkdir(), "gives no class name"),
    ],
)
def test_a_folder_that_is_no_data_set(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    spoil(root)
    with pytest.raises(ValueError, match=message):
        datasets.load(f"folder:{root}")


def test_the_folder_must_be_named() -> None:
    for name in ("folder", "folder:"):
        with pytest.raises(ValueError, match="write folder:/data/mushrooms"):
            datasets.load(name)


def test_home_and_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path / "set" / "a", 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    paths = [[shot.path for shot in _split(Path(name))] for name in ("~/set", "set", str(tmp_path / "set"))]
    assert paths[0] == paths[1] == paths[2]


@pytest.mark.parametrize(("place", "target"), [("a/up", ".."), ("a/self", "."), ("a/deep/top", "../.."), ("me", ".")])
def test_a_link_in_a_circle_is_refused(tmp_path: Path, place: str, target: str) -> None:
    _fill(tmp_path / "a" / "deep", 5)
    _fill(tmp_path / "b", 5)
    (tmp_path / place).symlink_to(target, target_is_directory=True)
    with pytest.raises(ValueError, match=f"{place} is a link to a folder that it lies in: take it out"):
        _split(tmp_path)


def test_a_circle_through_elsewhere_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path / "set" / "a", 5)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "a" / "x").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "y").symlink_to(tmp_path / "set" / "a")
    with pytest.raises(ValueError, match="is a link to a folder that it lies in"):
        _split(tmp_path / "set")


def test_links_that_lead_somewhere_are_followed(tmp_path: Path) -> None:
    _fill(tmp_path / "elsewhere", 3)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert _sizes(_split(tmp_path / "set")) == (1, 1, 1)


@pytest.mark.parametrize("target", ["gone.png", "lost.png"])
def test_a_picture_link_that_leads_nowhere_is_named(tmp_path: Path, target: str) -> None:
    _fill(tmp_path / "a", 2)
    (tmp_path / "a" / "lost.png").symlink_to(target)
    with pytest.raises(ValueError, match=r"a/lost\.png cannot be read .*: replace the file or take it out"):
        _split(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has names that are no text")
def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path / "a", 3)
    try:
        os.rename(tmp_path / "a" / "0.png", os.fsencode(tmp_path / "a") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system refuses it by itself")
    with pytest.raises(ValueError, match="is no UTF-8, which a table cannot hold: rename the file"):
        _split(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no picture", "half"])
def test_a_broken_file_is_named_when_it_is_opened(tmp_path: Path, content: bytes | str) -> None:
    _fill(tmp_path / "a", 3)
    victim = tmp_path / "a" / "1.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    loaded = datasets.load(f"folder:{tmp_path}")
    (shot,) = (shot for shot in loaded.split(shots=1, val=1, seed=0) if shot.path == "a/1.png")
    with pytest.raises(ValueError, match=r"a/1\.png cannot be read as a picture .*: replace the file or take it out"):
        loaded.open(shot)


def test_pictures_open_upright_rgb_and_on_white(tmp_path: Path) -> None:
    sideways = Image.Exif()
    sideways[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "sideways.jpg", exif=sideways)
    Image.new("RGBA", (6, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("I;16", (6, 4), 0x8000).save(tmp_path / "deep.png")
    Image.new("P", (6, 4)).save(tmp_path / "palette.gif")
    Image.new("CMYK", (6, 4)).save(tmp_path / "print.jpg")
    opened = {file.name: open_picture(file) for file in sorted(tmp_path.iterdir())}
    assert all(picture.mode == "RGB" for picture in opened.values())
    assert opened["sideways.jpg"].size == (4, 6)
    assert opened["clear.png"].getpixel((0, 0)) == (255, 255, 255)
    assert opened["deep.png"].getpixel((0, 0)) == (128, 128, 128)
