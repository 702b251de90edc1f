"""`bob verify`: every kind of damage is reported, and nothing else."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bob import cli, pipeline, store
from bob.commands import console, verify
from bob.steps import workers
from bob.store import Store, parquet, schema, tables
from bob.store.lock import lock
from tests.commands.damage import (
    CAPTIONS,
    DAMAGES,
    FINAL,
    NO_PARQUET,
    PART,
    PLAN,
    REQUESTS,
    SHOTS,
    SWEEP,
    WEIGHTS,
    find,
    path_of,
    rewritten,
    truncated,
)

# -- what is whole ------------------------------------------------------------------------------


def test_a_whole_store_is_clean(finished):
    found = verify.verify(finished)
    assert (found.problems, found.foreign, found.passing) == ((), (), ())
    files = finished.listing()
    assert (found.checked, found.size) == (len(files), sum(info.size or 0 for info in files.values()))
    assert verify.verify(Store(f"file://{finished.root}")) == found


def test_what_is_not_there_yet_is_no_damage(artefacts):
    before = verify.verify(artefacts).checked
    find(artefacts, PART).unlink()
    find(artefacts, FINAL).unlink()
    found = verify.verify(artefacts)
    assert (found.problems, found.checked) == ((), before - 2)


def test_a_request_that_was_rejected_is_no_damage(artefacts):
    part = find(artefacts, PART)
    rewritten(lambda table: table.slice(1))(part)
    row = {"row_id": "1-1", "step": "generate", "error": "ValueError", "message": "one colour all over"}
    beside = store.quarantine(path_of(artefacts, part))
    artefacts.write_table(beside, tables.from_rows([row], schema.REJECTED), store.provenance({}))
    assert verify.verify(artefacts).problems == ()
    artefacts.write_table(beside, tables.from_rows([row, row], schema.REJECTED), store.provenance({}))
    (problem,) = verify.verify(artefacts).problems
    assert problem.wrong == "holds 1-1 more than once"
    Path(artefacts.root, beside).write_bytes(b"")
    first, second = sorted(verify.verify(artefacts).problems, key=lambda problem: problem.path)
    assert (first.path, first.wrong) == (path_of(artefacts, part), "lacks 1-1: neither there nor rejected")
    assert (second.path, second.wrong[: len(NO_PARQUET)]) == (beside, NO_PARQUET)
    assert second.mend == "delete it and part-00001.parquet, if that exists, and run the same command again"


def test_a_training_that_ended_in_nan_is_no_damage(artefacts):
    def ended(table: pa.Table) -> pa.Table:
        rows = [row | {"value": float("nan")} for row in table.to_pylist() if row["epoch"] == 1]
        return pa.Table.from_pylist(rows, schema=table.schema)

    rewritten(ended)(find(artefacts, FINAL))
    assert verify.verify(artefacts).problems == ()


def test_what_is_passing_or_not_ours_is_told_apart(artefacts):
    root, folder, adapter = Path(artefacts.root), find(artefacts, PART).parent, find(artefacts, WEIGHTS).parent
    foreign = [root / "notes.txt", folder / "README.md", root / "images" / "cat.png", root / "results" / "x.parquet"]
    passing = [
        *(adapter / "state.pt", root / "scratch" / "train" / "x" / "y.json", root / f".probe-{'0' * 32}"),
        *(folder / ".part-00001.parquet.0123.tmp", find(artefacts, FINAL).with_name("final.parquet.state.pt")),
    ]
    for file in (*foreign, *passing):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("something")
    (adapter / "manifest.json").unlink()  # a fine-tune that was killed and has its state to go on from
    found = verify.verify(artefacts)
    assert found.problems == ()
    assert set(found.foreign) == {path_of(artefacts, file) for file in foreign}
    assert set(found.passing) == {path_of(artefacts, file) for file in passing}


# -- what is not --------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_named_alone(damage, artefacts):
    pattern, do, words = DAMAGES[damage]
    file = find(artefacts, pattern)
    do(file)
    problems = verify.verify(artefacts).problems
    assert {problem.path for problem in problems} == {path_of(artefacts, file)}
    for problem in problems:
        assert re.search(words, problem.wrong), problem
        assert "\n" not in problem.wrong
        assert problem.mend.endswith("run the same command again")


@pytest.mark.parametrize("pattern", [PART, REQUESTS, SHOTS, CAPTIONS, PLAN, FINAL])
def test_one_bit_anywhere_is_found_or_changes_no_row(pattern, artefacts):
    file, rng, found = find(artefacts, pattern), np.random.default_rng(0), 0
    data = file.read_bytes()
    rows = parquet.parse(data)
    for place in rng.integers(len(data), size=24):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        file.write_bytes(flipped)
        if path_of(artefacts, file) in {problem.path for problem in verify.verify(artefacts).problems}:
            found += 1
        else:
            assert parquet.parse(bytes(flipped)).equals(rows)
    assert found


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        ("part-00007.parquet", "holds 1-1, 1-2, 1-3 and 2 more, which it should not"),
        ("part-00001 (copy).parquet", "is no shard by its name, but is read as one"),
        ("part-1.parquet", "is no shard by its name, but is read as one"),
    ],
)
def test_a_shard_too_many_is_found(copy, words, artefacts):
    """Else its images would be trained on twice."""
    part = find(artefacts, PART)
    shutil.copy(part, part.with_name(copy))
    (problem,) = verify.verify(artefacts).problems
    assert (problem.path, problem.wrong) == (path_of(artefacts, part.with_name(copy)), words)


def test_a_request_table_that_is_missing_is_named(artefacts):
    requests = find(artefacts, REQUESTS)
    requests.unlink()
    (problem,) = verify.verify(artefacts).problems
    path = path_of(artefacts, requests)
    assert problem == verify.Problem(path, "is missing", "run the same command again")


def test_what_lies_under_another_name_is_found(artefacts):
    for pattern in (SHOTS, CAPTIONS, PLAN):
        file = find(artefacts, pattern)
        key = re.findall("[0-9a-f]{16}", file.name)[-1]
        file.rename(file.with_name(file.name.replace(key, key[::-1])))
    folder = find(artefacts, FINAL).parent
    folder.rename(folder.with_name(folder.name[:-16] + folder.name[:-17:-1]))
    problems = verify.verify(artefacts).problems
    assert {problem.path.partition("/")[0] for problem in problems} == {"shots", "captions", "plans", "results"}
    assert all("not that of its name" in problem.wrong or "of run" in problem.wrong for problem in problems)


def test_doing_what_is_said_makes_all_well(base, artefacts):
    """And the same command makes again what was damaged alone."""
    victims = (PART, REQUESTS, WEIGHTS, SHOTS, CAPTIONS, SWEEP, PLAN)
    for pattern in victims:
        truncated(find(artefacts, pattern))
    problems = verify.verify(artefacts).problems
    assert {problem.path for problem in problems} == {path_of(artefacts, find(artefacts, p)) for p in victims}
    for problem in problems:
        assert problem.mend.startswith("delete ")
        file = Path(artefacts.root, problem.path)
        shutil.rmtree(file.parent) if "its folder" in problem.mend else file.unlink()
    remade = []

    def report(step, todo, done, receipts):
        for receipt in receipts:
            remade.append(receipt.target.partition("/")[0])
            yield receipt

    run = dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")
    pipeline.execute([run], artefacts=artefacts, executor=workers.inline("cpu"), report=report)
    assert remade == ["captions", "adapters", "images", "results"]
    assert verify.verify(artefacts).problems == ()


# -- the command --------------------------------------------------------------------------------


def command(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sys.argv", ["bob", "verify", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr()


def test_the_command_says_all_is_well(finished, capsys, monkeypatch):
    code, said = command([finished.root], capsys, monkeypatch)
    assert code == 0
    assert re.fullmatch(rf"{len(finished.listing())} files verified \([\d.]+ [kM]B\), all is well\n", said.out)
    assert said.err == ""


def test_the_command_says_what_is_wrong(artefacts, capsys, monkeypatch):
    file = find(artefacts, PART)
    truncated(file)
    for k in range(22):
        Path(artefacts.root, f"{k:02d}.txt").write_text("")
    code, said = command([artefacts.root], capsys, monkeypatch)
    assert code == 1
    first, *foreign, last = said.out.splitlines()
    assert first.startswith(f"{path_of(artefacts, file)}: is no whole Parquet file (")
    assert first.endswith(": delete it and run the same command again")
    assert foreign == [*(f"not ours: {k:02d}.txt" for k in range(20)), "not ours: 2 more"]
    assert last.endswith("), 1 wrong, 22 not ours")


@pytest.mark.parametrize(
    ("below", "words"),
    [("nothing", "cannot list .*/nothing: .*Name a folder"), ("tables", "nothing in .* is ours to verify")],
)
def test_the_command_refuses_what_is_no_store(below, words, finished, capsys, monkeypatch):
    code, said = command([f"{finished.root}/{below}"], capsys, monkeypatch)
    assert code == 2
    assert re.fullmatch(rf"bob: {words}.*\n", said.err)


def test_progress_is_shown_in_passing(capsys):
    assert list(console.walk(["a", "b", "c"], every=0.0)) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == ["files: 1 of 3, 0 s left", "files: 2 of 3, 0 s left"]
    assert list(console.walk(["a", "b"])) == ["a", "b"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (2.5e9, "2.5 GB"), (2.5e13, "25 TB")],
)
def test_bytes_for_people(size, words):
    assert console.amount(size) == words


def test_a_claim_is_ours(artefacts):
    with lock(artefacts, "bob run"):
        assert artefacts.names("claims")
        verdict = verify.verify(artefacts)
    assert (verdict.problems, verdict.foreign) == ((), ())


def test_what_another_version_wrote_is_not_to_be_deleted(artefacts):
    path = path_of(artefacts, find(artefacts, PART))
    held = artefacts.read_table(path)
    artefacts.write_table(path, held, {**artefacts.manifest(path), "format": store.FORMAT + 1})
    (problem,) = verify.verify(artefacts).problems
    assert (problem.path, problem.wrong) == (path, "was written by another version of bob")
    assert problem.mend == "use that version, or another --out"
