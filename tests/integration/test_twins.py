"""All tables and figures of the paper on skyworld by one command, with budgets too small to mean anything."""

import pytest

from bob import cli
from bob.commands import verify
from bob.store import Store, schema


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
def test_every_table_and_figure_comes_out_of_one_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "smoke_paper", "--inline", "--out", str(tmp_path / "out")])
    assert ended.value.code == 0, capsys.readouterr().err
    artefacts = Store(str(tmp_path / "out"))
    cells = {"table1": (27, 2), "table2": (6, 6), "table3": (3, 2), "table6": (4, 2)}  # rows, columns
    for name, (rows, columns) in cells.items():
        table = artefacts.read_checked(f"tables/smoke_{name}.parquet", schema.TABLES)
        assert len(set(table["row"].to_pylist())) == rows, name
        assert len(set(table["column"].to_pylist())) == columns, name
        assert table["ours"].null_count == 0, name
        assert {f"smoke_{name}.{kind}" for kind in ("csv", "md", "tex")} <= set(artefacts.names("tables"))
    claims = artefacts.read_checked("tables/smoke_claims.parquet", schema.CLAIMS)
    assert [value is not None for value in claims["ours"].to_pylist()].count(True) >= 9  # skyworld has no Pets
    figures = set(artefacts.names("figures"))
    assert {f"smoke_figure{k}.{kind}" for k in (3, 4, 5, 6) for kind in ("svg", "pdf")} <= figures
    assert {f"smoke_figure{k}.parquet" for k in (4, 5, 6)} <= figures
    verdict = verify.verify(artefacts)
    assert (verdict.problems, verdict.foreign) == ((), ())
