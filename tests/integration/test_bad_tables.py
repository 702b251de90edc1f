"""Tables damaged after they were written: the next command names the file and spoils nothing else."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bob import cli
from tests.integration.tools import SMALLEST, Bob, photos

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def bob(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bob:
    return Bob(capsys, monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The flags of a run of BOB, and what it made; not to be changed."""
    root = tmp_path_factory.mktemp("done")
    flags = ["--inline", "--dataset", f"folder:{photos(root / 'data')}", "--method", "bob", *SMALLEST]
    arguments = ["run", *flags, "--out", str(root / "out")]
    assert cli.parse(arguments).main(arguments) == 0
    return flags, root / "out"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


ARTEFACTS = {
    "shots": ("shots/*.parquet", "class_name", ()),
    "captions": ("captions/*.parquet", "pose", ()),
    "requests": ("images/*/requests.parquet", "prompt", ()),
    "images": ("images/*/part-00000.parquet", "label_ids", ()),
    "sweep": ("results/*/sweep-000.parquet", "value", ("results/*/final.parquet",)),
    "plan": ("plans/*-sweep.parquet", "label", ()),
    "final": ("results/*/final.parquet", "value", ()),
}
"""What is damaged, one of its columns, and what must be missing for it to be read again."""


def rewritten(change: Callable[[pa.Table, str], pa.Table]) -> Callable[[Path, str], None]:
    def damage(path: Path, column: str) -> None:
        pq.write_table(change(pq.read_table(path), column), path)

    return damage


def cut(path: Path, _: str) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def with_column(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.names.index(column), column, values)


DAMAGES: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "no bytes": (lambda path, _: path.write_bytes(b""), "file size is 0 bytes"),
    "no Parquet": (lambda path, _: path.write_bytes(b"<html>404</html>"), "magic bytes not found"),
    "cut off": (cut, "."),
    "a column is missing": (rewritten(lambda t, c: t.drop_columns([c])), "missing, .* columns: .'COLUMN'"),
    "a column too many": (rewritten(lambda t, c: t.append_column("x", t[c])), ", unknown or .* columns: .'x'"),
    "a column twice": (rewritten(lambda t, c: t.append_column(c, t[c])), "(?:Multiple matches|repeated columns)"),
    "a column of another type": (
        rewritten(lambda t, c: with_column(t, c, pa.array([7] * len(t), pa.int8()))),
        "column 'COLUMN' holds int8, wanted ",
    ),
    "a column of nulls": (
        rewritten(lambda t, c: with_column(t, c, pa.nulls(len(t), t[c].type))),
        r"column 'COLUMN' holds \d+ nulls",
    ),
    "a row twice": (rewritten(lambda t, _: pa.concat_tables([t, t.slice(0, 1)])), "two rows of the same "),
    "no rows": (rewritten(lambda t, _: t.slice(0, 0)), r"0 rows, wanted \d+"),
}


def spoiled(done: tuple[list[str], Path], artefact: str, damage: str, out: Path) -> tuple[list[str], Path]:
    """A copy of what was done, with one file damaged; the flags to do it again, and the file."""
    flags, made = done
    pattern, column, missing = ARTEFACTS[artefact]
    shutil.copytree(made, out)
    for path in (path for gone in missing for path in out.glob(gone)):
        path.unlink()
    (path,) = out.glob(pattern)
    DAMAGES[damage][0](path, column)
    return [*flags, "--out", str(out)], path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_a_damaged_table_is_named(artefact: str, damage: str, done, tmp_path: Path, bob: Bob) -> None:
    flags, path = spoiled(done, artefact, damage, tmp_path / "out")
    before = contents(tmp_path)
    said = bob.refuses(*flags)
    reason = DAMAGES[damage][1].replace("COLUMN", ARTEFACTS[artefact][1])
    if (artefact, damage) == ("requests", "a row twice"):  # ids of a table that may be too long to be held
        reason = "3 rows, wanted 2"
    if (artefact, damage) == ("images", "no rows"):  # may be: all were rejected; but here none was
        assert f"{path.parent} lacks 2 of 2 images, 0-0 among them: delete its part-*.parquet files" in said
    else:
        wanted = (
            rf"{re.escape(str(path))} is damaged \(.*{reason}.*\): delete it, and the same command makes it again\n"
        )
        assert re.fullmatch(f"bob: {wanted}", said)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_what_was_deleted_as_told_is_made_again(artefact: str, done, tmp_path: Path, bob: Bob) -> None:
    flags, path = spoiled(done, artefact, "no Parquet", tmp_path / "out")
    path.unlink()
    code, out, err = bob.run(*flags)
    assert code == 0, (out, err)
    assert contents(tmp_path / "out").keys() == contents(done[1]).keys()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>"], ids=["no bytes", "no safetensors"])
def test_a_damaged_adapter_is_named(content: bytes, done, tmp_path: Path, bob: Bob) -> None:
    flags, made = done
    shutil.copytree(made, tmp_path / "out")
    for pattern in ("images/*/part-00000.parquet", "results/*/*.parquet"):
        for path in (tmp_path / "out").glob(pattern):
            path.unlink()
    (adapter,) = (tmp_path / "out").glob("adapters/*/*.safetensors")
    adapter.write_bytes(content)
    before = contents(tmp_path)
    assert f"the adapter's {adapter.name} is damaged" in bob.refuses(*flags, "--out", tmp_path / "out")
    assert contents(tmp_path) == before
