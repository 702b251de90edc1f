"""`bob doctor`: what it reports, and that it unpacks a whole archive inside its folder or nothing."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bob import cli
from bob.commands import doctor, unpack
from bob.core import registry
from bob.datasets import Source
from tests.miniatures import MINIATURES


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["bob", "doctor", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out + err


# -- what is here ---------------------------------------------------------------------------------


def test_every_data_set_and_model_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOB_DATA", str(tmp_path))
    MINIATURES["pets"](tmp_path)
    found = {(of.kind, of.name): of for of in doctor.look()}
    assert {name for kind, name in found if kind == "data set"} == set(registry.names("dataset"))
    for name in registry.names("dataset"):
        source, of = registry.load("dataset", name), found["data set", name]
        if isinstance(source, Source):
            assert of.found == (name == "pets")
            assert of.place == str(tmp_path / source.folder)
            assert (of.wants, of.origin, of.licence) == (source.wants, source.origin, source.licence)
            assert of.wants
            assert of.licence
            assert all(origin.startswith("https://") for origin in of.origin)
        else:
            assert of.found
    assert found["checkpoint", "skyworld"].found
    assert found["captioner", "qwen_vl:skyworld"].found
    assert found["backbone", "resnet_mini"].found
    assert not found["checkpoint", "sd21"].found
    assert not found["captioner", "qwen_vl:7b"].found
    assert not found["backbone", "resnet50"].found


def test_weights_in_bob_models_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    for name in (
        "sd21/model_index.json",
        "resnet50/model.safetensors",
        "qwen_vl-7b/config.json",
        "qwen_vl-7b/x.safetensors",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {of.name: of for of in doctor.look()}
    for name, folder in (("sd21", "sd21"), ("resnet50", "resnet50"), ("qwen_vl:7b", "qwen_vl-7b")):
        assert found[name].found
        assert found[name].place == str(tmp_path / folder)
    assert not found["sd15"].found


def test_the_command_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out = said(capsys, monkeypatch)
    assert code == 0
    assert "data set pets: NOT FOUND, oxford-iiit-pet in $BOB_DATA, which is not set\n    wants annotations/" in out
    assert "    from https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz\n" in out
    assert "    licence: CC BY-SA 4.0; the pictures are their photographers'\n" in out
    assert "data set skyworld: found, made by this package\n" in out


# -- archives -------------------------------------------------------------------------------------


def tar(file: Path, *members: tuple[str, bytes | str]) -> Path:
    """Members are (name, content), or (name, target) of a link."""
    with tarfile.open(file, "w:gz") as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                made.addfile(member)
            else:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    return file


def zipped(file: Path, *members: tuple[str, bytes | str]) -> Path:
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members:
            made.writestr(name, content)
    return file


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


PACKERS: dict[str, Callable[..., Path]] = {"a.tar.gz": tar, "a.zip": zipped}


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_is_unpacked_beside_what_is_there(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = PACKERS[name](tmp_path / name, ("images/a b.jpg", b"1"), ("images/deep/b.jpg", b"2"), ("list.txt", b"3"))
    target = tmp_path / "to"
    (target / "annotations").mkdir(parents=True)
    (target / "annotations/x.txt").write_bytes(b"4")
    code, out = said(capsys, monkeypatch, "--unpack", archive, "--to", target)
    assert (code, out) == (0, f"unpacked into {target}: images, list.txt\n")
    assert tree(target) == {
        "annotations/x.txt": b"4",
        "images/a b.jpg": b"1",
        "images/deep/b.jpg": b"2",
        "list.txt": b"3",
    }


@pytest.mark.parametrize(
    ("name", "member"),
    [
        *((name, (path, b"!")) for name in PACKERS for path in ("../out.txt", "a/../../out.txt")),
        *((name, ("/tmp/bob-was-here", b"!")) for name in PACKERS),
        *((name, ("C:\\out.txt", b"!")) for name in PACKERS),
        ("a.tar.gz", ("link", "../..")),
        ("a.tar.gz", ("link", "/etc")),
    ],
)
def test_nothing_is_unpacked_of_what_would_land_outside(
    name: str,
    member: tuple[str, bytes | str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = PACKERS[name](tmp_path / name, ("good.txt", b"1"), member)
    before = tree(tmp_path)
    code, out = said(capsys, monkeypatch, "--unpack", archive, "--to", tmp_path / "a/to")
    assert code == 2
    assert f"nothing of {archive} was unpacked" in out
    assert tree(tmp_path) == before
    assert not Path("/tmp/bob-was-here").exists()
    assert list((tmp_path / "a/to").iterdir()) == []


def test_a_link_cannot_be_used_to_get_outside(tmp_path: Path) -> None:
    """First a link that stays inside, then a member through one that does not."""
    archive = tar(tmp_path / "a.tar.gz", ("d/here", "."), ("d/there", "../.."), ("d/there/out.txt", b"!"))
    with pytest.raises(ValueError, match="was unpacked"):
        unpack.unpack(archive, tmp_path / "to")
    assert tree(tmp_path / "to") == {}
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("name", PACKERS)
def test_a_damaged_archive_leaves_nothing(name: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    archive = PACKERS[name](tmp_path / name, ("a.bin", content), ("b.bin", content))
    whole = archive.read_bytes()
    archive.write_bytes(
        whole[: len(whole) * 2 // 3] if name.endswith("gz") else whole.replace(content[:999], b"x" * 999, 1)
    )
    with pytest.raises(ValueError, match=r"is damaged|cannot unpack|is no tar or zip"):
        unpack.unpack(archive, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_what_is_no_archive_or_there_already_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_text("<html>")
    with pytest.raises(ValueError, match="is no tar or zip archive: download it again"):
        unpack.unpack(tmp_path / "a.tgz", tmp_path / "to")
    with pytest.raises(ValueError, match=r"cannot unpack .*gone\.tgz"):
        unpack.unpack(tmp_path / "gone.tgz", tmp_path / "to")
    archive = tar(tmp_path / "b.tgz", ("images/a.jpg", b"new"))
    (tmp_path / "to/images").mkdir()
    with pytest.raises(ValueError, match="has images already: move that away"):
        unpack.unpack(archive, tmp_path / "to")
    assert [child.name for child in (tmp_path / "to").iterdir()] == ["images"]


def test_an_archive_needs_a_folder(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(capsys, monkeypatch, "--unpack", "x.zip")[0] == 2
    assert said(capsys, monkeypatch, "--to", "x")[0] == 2
