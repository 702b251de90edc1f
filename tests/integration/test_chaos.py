"""Random kills of workers, actors, nodes and the driver: the short form of `benchmarks/chaos.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

CHAOS = ROOT / "benchmarks/chaos.py"


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1500)
def test_whatever_is_killed_nothing_is_lost_twice_or_different(tmp_path: Path):
    options = ["--kills", "8", "--experiment", "smoke", "--gap", "2", "15", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, CHAOS, *options], capture_output=True, text=True, check=False)
    words = done.stdout + done.stderr
    assert done.returncode == 0, words
    assert "8 kills" in words
    assert "images: 40 rows, 0 lost or different, 0 not in the other, 0 twice" in words
