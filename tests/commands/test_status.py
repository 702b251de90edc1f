"""`bob status`: counts of finished, missing and rejected rows, from listings and Parquet footers alone."""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from bob import cli, pipeline, store
from bob.commands import status
from bob.core.step_table import PLANNED
from bob.core.types import Unit
from bob.pipeline import plan_files
from bob.steps import workers
from bob.store import Store, schema, tables

UNITS = {"caption": 2, "finetune": 1, "generate": 3, "sweep": 2, "final": 1}
SIZES = {"caption": 6, "finetune": 4, "generate": 12, "sweep": 2, "final": 2}
"""Of the tiny run: shots, optimiser steps, images, epochs."""


def counts(found: status.Status) -> dict[str, tuple[int, int]]:
    """Step -> units done, units to do."""
    return {step.name: (step.done, step.todo) for step in found.steps}


def folder_of_images(artefacts: Store) -> Path:
    (folder,) = Path(artefacts.root, "images").iterdir()
    return folder


def shown(found: status.Status, capsys: pytest.CaptureFixture[str]) -> list[str]:
    status.show(found, "out")
    return capsys.readouterr().out.splitlines()


def reject(artefacts: Store, path: str, messages: Iterable[str]) -> None:
    fixed = {"step": "generate", "error": "ValueError"}
    rows = [{"row_id": f"0-{k}", "message": message, **fixed} for k, message in enumerate(messages)]
    artefacts.write_table(path, tables.from_rows(rows, schema.REJECTED), store.provenance({}))


# -- plans --------------------------------------------------------------------------------------


def test_each_step_of_a_command_has_a_plan(finished):
    names = finished.names("plans")
    assert sorted(name.partition("-")[2] for name in names) == sorted(f"{step}.parquet" for step in UNITS)
    assert len({name.partition("-")[0] for name in names}) == 1
    for name in names:
        table = finished.read_table(f"plans/{name}")
        assert table.schema.equals(schema.PLAN)
        (step,) = set(table["step"].to_pylist())
        assert (len(table), sum(table["size"].to_pylist())) == (UNITS[step], SIZES[step])
        assert set(table["unit"].to_pylist()) == {PLANNED[step].counts}
        assert all(finished.exists(target) for target in table["target"].to_pylist())


def test_a_plan_is_written_once_and_anew_where_the_same_runs_want_other_units(base, tmp_path):
    artefacts = Store(str(tmp_path))
    units = [Unit(step="generate", target=f"images/x/part-{k}.parquet", label="x", size=5) for k in range(3)]

    def write(some: list[Unit]) -> tuple[int, list[str]]:
        plan_files.write("generate", some, runs=[base], artefacts=artefacts)
        ((path, info),) = artefacts.listing().items()
        return info.mtime_ns or 0, artefacts.read_table(path)["target"].to_pylist()

    first = write(units)
    assert write(units) == first
    assert write(units[1:])[1] == [unit.target for unit in units[1:]]
    plan_files.write("caption", [], runs=[base], artefacts=artefacts)
    assert len(artefacts.names("plans")) == 1


def test_a_unit_that_two_commands_want_counts_once(base, artefacts):
    before = counts(status.read(artefacts))
    targets = artefacts.read_table(next(p for p in artefacts.listing() if p.endswith("-generate.parquet")))["target"]
    shared = Unit(step="generate", target=targets[0].as_py(), label="shared", size=5)
    plan_files.write("generate", [shared], runs=[base], artefacts=artefacts)
    assert counts(status.read(artefacts)) == before


# -- counting -----------------------------------------------------------------------------------


def test_before_anything_is_run(tmp_path, capsys):
    found = status.read(Store(str(tmp_path)))
    assert found == status.Status(steps=(), reasons=(), open=0, unreadable=())
    assert shown(found, capsys) == ["nothing has been run in out"]
    with pytest.raises(ValueError, match=r"cannot list .*/nothing: .*Name a folder that `bob run` wrote to"):
        status.read(Store(str(tmp_path / "nothing")))


def test_after_all_is_done(finished, capsys):
    found = status.read(finished)
    assert counts(found) == {step: (count, 0) for step, count in UNITS.items()}
    assert {step.name: (step.size_done, step.size) for step in found.steps} == {k: (v, v) for k, v in SIZES.items()}
    assert {step.rejected for step in found.steps} == {0}
    assert (found.reasons, found.open, found.unreadable) == ((), 0, ())
    sizes = {step.name: step.bytes for step in found.steps}
    on_disk = {path: info.size for path, info in finished.listing().items()}
    for step, top in (("caption", "captions/"), ("finetune", "adapters/"), ("generate", "images/")):
        assert sizes[step] == sum(size for path, size in on_disk.items() if path.startswith(top))
    assert sizes["sweep"] + sizes["final"] == sum(s for path, s in on_disk.items() if path.startswith("results/"))
    seconds = [finished.manifest(path)["seconds"] for path in on_disk if re.search(r"/part-\d+\.parquet", path)]
    assert {step.name: step.pace.rate for step in found.steps}["generate"] == pytest.approx(12 / sum(seconds))
    head, *lines = shown(found, capsys)
    lines, told = lines[:5], lines[5:]
    assert [line.partition(":")[0] for line in told] == ["captions", "fine-tunes", "images", "sweeps", "finals"]
    assert [line.split()[0] for line in lines] == ["captions", "fine-tunes", "images", "sweeps", "finals"]
    assert re.fullmatch(r"images +3 +0 +12 of 12 images +0 +[\d.]+ kB +[\d.,]+ images/s", lines[2])
    assert {line.index(word) for line, word in zip(lines, (r"6 of", "4 of", "12 of", "2 of", "2 of"), strict=True)} == {
        head.index("work done")
    }


def test_in_the_middle(artefacts):
    (folder_of_images(artefacts) / "part-00001.parquet").unlink()
    next(Path(artefacts.root).glob("results/*/final.parquet")).unlink()
    whole = {step: (count, 0) for step, count in UNITS.items()}
    found = status.read(artefacts)
    assert counts(found) == whole | {"generate": (2, 1), "final": (0, 1)}
    steps = {step.name: step for step in found.steps}
    assert (steps["generate"].size_done, steps["generate"].size) == (7, 12)
    assert (steps["final"].pace.rate, steps["final"].bytes) == (None, 0)


def test_a_command_that_was_cut_short_is_said_to_be_open(base, tmp_path, capsys):
    class Killed(Exception):
        pass

    def executor(step, units, artefacts):
        if step == "generate":
            raise Killed
        return workers.inline("cpu")(step, units, artefacts)

    artefacts = Store(str(tmp_path))
    with pytest.raises(Killed):
        pipeline.execute([base], artefacts=artefacts, executor=executor, report=lambda a, b, c, receipts: receipts)
    found = status.read(artefacts)
    assert counts(found) == {"finetune": (1, 0), "generate": (0, 3)}
    assert found.open == 1
    told = "commands whose last step is not planned yet, so that its units are not counted: 1"
    assert shown(found, capsys)[-1] == told


def test_rejected_rows_are_counted_and_their_reasons_grouped(artefacts, capsys):
    folder = f"images/{folder_of_images(artefacts).name}"
    long = "a picture of one\n colour " * 20
    reject(artefacts, f"{folder}/part-00000.rejected.parquet", ["not finite", "not finite", long])
    reject(artefacts, f"{folder}/part-00001.rejected.parquet", ["not finite"])
    reject(artefacts, f"{folder}/part-00009.rejected.parquet", ["of no unit that is done"])
    found = status.read(artefacts)
    assert {step.name: step.rejected for step in found.steps} == dict.fromkeys(UNITS, 0) | {"generate": 4}
    most, least = found.reasons
    assert (most.error, most.rows, len(most.paths)) == ("ValueError: not finite", 3, 2)
    assert (least.rows, len(least.error)) == (1, 100)
    lines = shown(found, capsys)
    assert lines[-2] == f"rejected 3 rows: ValueError: not finite ({folder}/part-00000.rejected.parquet and 1 more)"
    assert lines[-1].endswith(f"... ({folder}/part-00000.rejected.parquet)")


def test_no_image_is_read(artefacts):
    """Zeros in place of all that comes before the footer change nothing."""
    before = status.read(artefacts)
    for part in folder_of_images(artefacts).glob("part-*"):
        data = part.read_bytes()
        footer = int.from_bytes(data[-8:-4], "little") + 8
        part.write_bytes(b"PAR1" + bytes(len(data) - footer - 4) + data[-footer:])
        with pytest.raises(ValueError, match="is damaged"):
            artefacts.read_table(str(part.relative_to(artefacts.root)))
    assert status.read(artefacts) == before


def test_a_finished_file_that_cannot_be_read_is_pointed_out(artefacts, capsys):
    part = folder_of_images(artefacts) / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    found = status.read(artefacts)
    assert counts(found)["generate"] == (3, 0)
    assert found.unreadable == (f"images/{part.parent.name}/part-00001.parquet",)
    assert shown(found, capsys)[-1] == "finished files that cannot be read: 1; `bob verify out` says what to do"


def test_a_terminal_is_shown_a_table(finished):
    told = io.StringIO()
    status.show(status.read(finished), "out", console=Console(file=told, force_terminal=True, width=100))
    assert re.search(r"\x1b\[1mstep", told.getvalue())
    assert "12 of 12 images" in told.getvalue()


def test_a_uri_is_looked_at_too(finished):
    assert status.read(Store(f"file://{finished.root}")) == status.read(finished)


@pytest.mark.parametrize("size", [1, 70_000])
def test_the_size_of_a_plan_is_no_matter(size, base, tmp_path):
    artefacts = Store(str(tmp_path))
    units = [Unit(step="generate", target=f"images/x/part-{k:05d}.parquet", label="x", size=5) for k in range(size)]
    plan_files.write("generate", units, runs=[base], artefacts=artefacts)
    artefacts.write_table(units[-1].target, pa.table({"a": [1]}), {"seconds": 2.0})
    (step,) = status.read(artefacts).steps
    assert (step.done, step.todo, step.size, step.pace.rate) == (1, size - 1, 5 * size, 2.5)


# -- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["status", "{out}"], 0, "12 of 12 images"),
        (["status", "{out}/shots"], 0, "nothing has been run in"),
        (["status", "{out}/nothing"], 2, "Name a folder that `bob run` wrote to"),
        (["status", ""], 2, "has no name"),
        (["status", "{out}", "more"], 2, "Unrecognized"),
        (["stats", "{out}"], 2, "run, plan, rehearse, status, verify"),
        ([], 2, "run, plan, rehearse, status, verify"),
        (["--help"], 0, "Reads every file of a folder and names those that are damaged"),
        (["status", "--help"], 0, "Shows how much of the work of all commands"),
        (["run", "--help"], 0, "--sweep.lambdas"),
    ],
)
def test_the_command(arguments, code, words, finished, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bob", *(argument.format(out=finished.root) for argument in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == code
    assert words in " ".join((said.out + said.err).split())
    assert "Traceback" not in said.err
