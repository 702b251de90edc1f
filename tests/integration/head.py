"""A real Ray head on this machine with token authentication, and a user's commands against it."""

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from tests.paths import ROOT

PLANTED = {name: secrets.token_hex(16) for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY")}
"""Secrets in the environment of both the cluster and whoever submits; no other place may ever hold them."""

_START = """
import json, sys
from ray._private.utils import write_ray_address
from ray.cluster_utils import Cluster
dashboard, agent, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
cluster = Cluster(
    initialize_head=True,
    head_node_args={
        "num_cpus": 2, "include_dashboard": True, "dashboard_port": dashboard, "dashboard_agent_listen_port": agent,
        "object_store_memory": 128 << 20, "temp_dir": folder,
    },
)
write_ray_address(cluster.address, folder)
print(json.dumps([cluster.webui_url, cluster.head_node.get_session_dir_path()]), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
"""What `ray start --head` does, beside other clusters of this machine: otherwise the agent's port is fixed, and jobs
join whichever they find."""


@dataclasses.dataclass(frozen=True)
class Head:
    """A cluster that runs, and what a user's shell holds who may use it."""

    address: str
    session: Path
    """Its logs and what it has unpacked."""
    environment: dict[str, str]
    token: str

    def job(self, name: str, script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`ray job submit ... -- python jobs/SCRIPT ARGUMENTS`, to its end."""
        entrypoint = [sys.executable, f"jobs/{script}", *map(str, arguments)]
        about = json.dumps({"step": script})
        options = ["--submission-id", name, "--working-dir", ".", "--metadata-json", about]
        return until(lambda: self._taken(*options, "--", *entrypoint), "a new head to take jobs")

    def _taken(self, *arguments: str) -> subprocess.CompletedProcess[str] | None:
        done = self.shell("ray.scripts.scripts", "job", "submit", "--address", self.address, *arguments)
        return None if "No available agent to submit job" in done.stdout else done

    def shell(self, module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A command in the project's folder; its output, errors among it."""
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    @contextlib.contextmanager
    def submitted(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """`bob run ... --submit`, while it shows the log."""
        command = [sys.executable, "-m", "bob.cli", "run", *map(str, arguments), "--submit", self.address]
        with subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def ask(self, path: str, *, method: str = "GET", token: str | None = None) -> requests.Response:
        """The dashboard's answer."""
        held = self.token if token is None else token
        headers = {"Authorization": f"Bearer {held}"} if held else {}
        return requests.request(method, self.address + path, headers=headers, timeout=60)

    def info(self, name: str) -> dict[str, Any]:
        """What the cluster has on record of a job."""
        return self.ask(f"/api/jobs/{name}").json()

    def log(self, name: str) -> str:
        """What a job has said so far."""
        return self.ask(f"/api/jobs/{name}/logs").json().get("logs", "")


@contextlib.contextmanager
def head(home: Path) -> Iterator[Head]:
    """Starts one in a process of its own, whose user lives in `home`."""
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment = kept | PLANTED | {"HOME": str(home), "RAY_AUTH_MODE": "token", "COLUMNS": "200"}
    token = secrets.token_hex(32)
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(token)
    ports = [_free(), _free()]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as scratch,
        subprocess.Popen([sys.executable, "-c", _START, *ports, scratch], env=environment, **pipes) as process,
    ):
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            url, session = json.loads(line)
            yield Head(f"http://{url}", Path(session), environment, token)
        finally:
            process.stdin.close()  # which ends it
            process.wait(60)


def _free() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def until(met: Callable[[], Any], what: str, *, seconds: float = 120.0) -> Any:
    """What `met` answers, once that is true of something."""
    end = time.monotonic() + seconds
    while not (answer := met()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.3)
    return answer
