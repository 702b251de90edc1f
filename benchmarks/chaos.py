"""Random kills of processes and nodes during an experiment, compared with an undisturbed run.

    python benchmarks/chaos.py --kills 100                          during `bob run skyworld`
    python benchmarks/chaos.py --kills 8 --experiment smoke         during `bob run smoke`

On a local cluster of three nodes it kills at random moments a Ray worker, an actor, a whole node or
the driver. A lost node is replaced, a lost driver is restarted by the same command. An experiment
that finishes is started again in another folder until all kills are done. Exit code 1 if any image,
adapter, caption or result is lost, duplicated or different.
"""

import argparse
import contextlib
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

WORKERS = 2
"""Nodes beside the head, of one CPU each; the head, which is never killed, has one too."""
KINDS = ("worker", "actor", "node", "driver")
TIMING = {"seconds"}
"""Columns that differ between any two runs."""


def environment(address: str) -> dict[str, str]:
    """Environment of a driver that joins the cluster."""
    return os.environ | {"RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"}


class Chaos:
    """A cluster, the driver on it, and counts of kills."""

    def __init__(self, *, experiment: str, draw: random.Random, log: Path) -> None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the cluster is local
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._experiment, self._draw, self._log = experiment, draw, log
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 128 << 20})
        self._nodes = [self._node() for _ in range(WORKERS)]
        self._driver: subprocess.Popen | None = None
        self.killed: Counter[str] = Counter()
        self.failed = 0
        """Number of drivers that exited early without a kill."""

    def _node(self):
        return self._cluster.add_node(num_cpus=1, object_store_memory=128 << 20)

    def run(self, out: Path, *, kills: int, gap: tuple[float, float]) -> None:
        """Runs one experiment to its end, with at most `kills` kills."""
        while True:
            code = self._wait(out, self._draw.uniform(*gap) if kills > 0 else None)
            if code == 0:
                return
            if code is None:
                kills -= self._kill()
            else:
                self.failed += 1
                print(f"  the driver ended by itself with {code}; its last words are in {self._log}", flush=True)

    def _wait(self, out: Path, seconds: float | None) -> int | None:
        """The driver's exit code, or None if it is still running after `seconds`."""
        if self._driver is None:
            command = [sys.executable, "-m", "bob.cli", "run", self._experiment, "--out", str(out)]
            with self._log.open("ab") as log:
                self._driver = subprocess.Popen(
                    command, env=environment(self._cluster.address), stdout=log, stderr=subprocess.STDOUT
                )
        try:
            code = self._driver.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._driver = None
        return code

    def _kill(self) -> int:
        """Kills one process or node of a random kind; returns 0 if there is none of that kind, else 1."""
        kind = self._draw.choice(KINDS)
        if kind == "driver":
            assert self._driver is not None
            what = f"driver {self._driver.pid}"
            self._driver.kill()
            self._driver.wait()
            self._driver = None
        elif kind == "node":
            place = self._draw.randrange(WORKERS)
            what = f"node {place} with {sum(1 for _ in self._processes())} processes about"
            self._cluster.remove_node(self._nodes[place], allow_graceful=False)
            self._nodes[place] = self._node()
        else:
            candidates = [(p, title) for p, title in self._processes() if kind == "worker" or _is_actor(title)]
            if not candidates:
                return 0
            process, what = self._draw.choice(candidates)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.killed[kind] += 1
        print(f"  kill {sum(self.killed.values())}: {kind}: {what}", flush=True)
        return 1

    def _processes(self) -> Iterator[tuple[psutil.Process, str]]:
        """Ray's workers on all nodes, with their process titles."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline())  # empty for a zombie
                if title.startswith("ray::") and "Agent" not in title:
                    yield process, title

    def stop(self) -> None:
        """Stops the driver and the cluster."""
        if self._driver is not None:
            self._driver.kill()
        self._cluster.shutdown()


def _is_actor(title: str) -> bool:
    name = title.removeprefix("ray::").lstrip("_")
    return name[:1].isupper() and not name.startswith("IDLE")


def artefacts(root: Path) -> dict[str, Counter[str]]:
    """Artefacts of a run: kind -> count of each artefact or row."""
    counts: dict[str, Counter[str]] = {}
    for kind in ("captions", "images", "results"):
        rows: Counter[str] = Counter()
        for path in sorted(root.glob(f"{kind}/**/*.parquet")):
            if path.name != "requests.parquet":
                table = pq.read_table(path)
                columns = [name for name in table.column_names if name not in {*TIMING, "image"}]
                where = path.parent.relative_to(root)
                rows.update(f"{where} {tuple(row.values())}" for row in table.select(columns).to_pylist())
        counts[kind] = rows
    adapters = root.glob("adapters/*/*.safetensors")
    counts["adapters"] = Counter(f"{p.parent.name} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in adapters)
    return counts


def compare(alone: Path, disturbed: Path) -> int:
    """Prints a line for each kind of artefact; returns the number of differences."""
    wrong = 0
    expected, got = artefacts(alone), artefacts(disturbed)
    for kind, rows in expected.items():
        lost, other = (rows - got[kind]).total(), (got[kind] - rows).total()
        twice = sum(count - 1 for count in got[kind].values() if count > 1)
        print(f"  {kind}: {rows.total()} rows, {lost} lost or different, {other} not in the other, {twice} twice")
        wrong += lost + other + twice
    return wrong


def main() -> int:
    """Runs undisturbed once, then with kills until `--kills` are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--experiment", default="skyworld")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kills")
    parser.add_argument(
        "--gap", type=float, nargs=2, default=(3.0, 20.0), help="seconds between kills, at least and most"
    )
    parser.add_argument("--out", type=Path, help="folder for the runs [temporary]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.out or Path(temporary)).absolute()
        root.mkdir(parents=True, exist_ok=True)
        draw, log = random.Random(arguments.seed), root / "drivers.log"
        chaos = Chaos(experiment=arguments.experiment, draw=draw, log=log)
        try:
            start = time.monotonic()
            chaos.run(root / "alone", kills=0, gap=arguments.gap)
            print(f"undisturbed: {time.monotonic() - start:.0f} s", flush=True)
            wrong, runs = 0, 0
            while (left := arguments.kills - sum(chaos.killed.values())) > 0:
                runs, start = runs + 1, time.monotonic()
                chaos.run(root / f"run-{runs}", kills=left, gap=arguments.gap)
                print(f"run {runs}: {time.monotonic() - start:.0f} s", flush=True)
                wrong += compare(root / "alone", root / f"run-{runs}")
        finally:
            chaos.stop()
    kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(chaos.killed.items()))
    print(f"{sum(chaos.killed.values())} kills ({kinds}) in {runs} runs; {chaos.failed} drivers gave up; {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
