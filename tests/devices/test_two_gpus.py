"""`bob run smoke` on Ray with two declared GPUs, each worker's a pretended one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bob.store import Store, schema
from tests.paths import ROOT


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
def test_smoke_runs_on_two_declared_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    out, log = tmp_path / "out", tmp_path / "log"
    log.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "devices" / "worker"), str(ROOT)]))
    monkeypatch.setenv("PRETENDED_GPU_LOG", str(log))
    head = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 128 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        environment = os.environ | {"RAY_ADDRESS": str(cluster.address)}
        done = subprocess.run(
            [sys.executable, "-m", "bob.cli", "run", "smoke", "--out", str(out)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    units = [json.loads(line) for file in log.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert {unit["step"] for unit in units} == {"caption", "finetune", "generate", "classify"}
    for unit in units:
        assert unit["calls"] > 100, f"{unit} did not compute on its GPU"
        assert [unit["visible"]] == unit["assigned"]
        assert unit["visible"] in ("0", "1")
    assert {unit["visible"] for unit in units} == {"0", "1"}
    assert not list(out.rglob("*.rejected.parquet"))
    assert list(out.glob("tables/*.md"))
    finals = [str(file.relative_to(out)) for file in out.glob("results/*/final.parquet")]
    assert len(finals) >= 3, "one of each method"
    for final in finals:
        rows = Store(str(out)).read_checked(final, schema.RESULTS, least=1).to_pylist()
        accuracies = [row["value"] for row in rows if (row["split"], row["metric"]) == ("test", "accuracy")]
        assert accuracies
        assert all(0 <= accuracy <= 1 for accuracy in accuracies)
