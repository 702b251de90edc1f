"""Loss of one of three nodes half-way through a run: the images of a for-loop, each drawn once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.chaos import artefacts

FLAGS = (
    *("--dataset", "skyworld:0.8", "--method", "datadream", "--shots", "1", "--val", "1", "--finetune.epochs", "2"),
    *("--draw.per-class", "8", "--draw.steps", "20", "--draw.unit", "4", "--sweep.lrs", "1e-3"),
    *("--sweep.weight-decays", "0", "--sweep.lambdas", "0.5", "--sweep.sweep-epochs", "1", "--sweep.final-epochs", "1"),
)
"""Twenty units of images."""


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
def test_a_node_is_lost_half_way(tmp_path: Path):
    from ray.cluster_utils import Cluster

    out, alone = tmp_path / "out", tmp_path / "alone"
    run = [sys.executable, "-m", "bob.cli", "run", *FLAGS, "--out"]
    subprocess.run([*run, str(alone), "--inline"], check=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 128 << 20})
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=128 << 20) for _ in range(2)]
        environment = os.environ | {"RAY_ADDRESS": str(cluster.address)}
        with subprocess.Popen([*run, str(out)], env=environment) as driver:
            while len(list(out.glob("images/*/part-*.parquet"))) < 3:
                assert driver.poll() is None
                time.sleep(0.1)
            cluster.remove_node(nodes[0], allow_graceful=False)
            assert len(list(out.glob("images/*/part-*.parquet"))) < 20, "all was drawn before the node was lost"
            assert driver.wait(300) == 0
    finally:
        cluster.shutdown()
    assert artefacts(out) == artefacts(alone)
