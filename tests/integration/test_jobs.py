"""Jobs through the job API of a real Ray head: completion, failure, stopping, resuming, and no leaked secrets."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.chaos import artefacts
from bob import cli
from tests.integration.head import PLANTED, Head, head, until

FLAGS = (
    *("--dataset", "skyworld:0.8", "--shots", "1", "--val", "1", "--finetune.epochs", "60"),
    *("--finetune.checkpoint-every", "5", "--draw.per-class", "2", "--draw.steps", "2", "--draw.unit", "5"),
    *("--sweep.lrs", "1e-3", "--sweep.weight-decays", "0", "--sweep.lambdas", "0.5"),
    *("--sweep.sweep-epochs", "1", "--sweep.final-epochs", "1"),
)
"""BOB on one shot: four units of images, and a fine-tune that is long enough to be stopped."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with head(tmp_path_factory.mktemp("home")) as running:
        yield running


# -- what is refused ----------------------------------------------------------------------------


def test_a_mistake_fails_the_job_with_its_exit_code_and_one_sentence(cluster: Head, tmp_path: Path):
    done = cluster.job("mistake", "generate.py", "skywrld", "--out", tmp_path / "out")
    assert done.returncode != 0
    info, log = cluster.info("mistake"), cluster.log("mistake")
    assert (info["status"], info["driver_exit_code"]) == ("FAILED", 2)
    assert info["metadata"]["step"] == "generate.py"
    assert "bob: unknown experiment 'skywrld'" in log
    assert "Traceback" not in log
    assert not (tmp_path / "out").exists()


def test_without_the_token_nobody_is_let_in(cluster: Head):
    assert cluster.ask("/api/jobs/").status_code == 200
    assert cluster.ask("/api/jobs/", token="").status_code == 401
    assert cluster.ask("/api/jobs/", token="0" * len(cluster.token)).status_code == 403
    assert cluster.ask("/api/jobs/", method="POST", token="").status_code == 401


def test_the_dashboard_is_not_on_the_network(cluster: Head):
    url = urlsplit(cluster.address)
    assert (url.hostname, url.port) == ("127.0.0.1", url.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; shows this machine's own address
        own = probe.getsockname()[0]
    with socket.socket() as outside:
        assert outside.connect_ex((own, url.port)) != 0


# -- from captions to tables --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(900)
def test_each_job_does_its_step_and_one_that_is_stopped_resumes(cluster: Head, tmp_path: Path):
    out, alone = tmp_path / "out", tmp_path / "alone"
    # One thread each, as in the for-loop below: other sums of floats would give other bits.
    flags = (*FLAGS, "--out", out, "--resources.finetune.cpus", "1", "--resources.classify.cpus", "1")

    done = cluster.job("caption", "caption.py", *flags)
    assert (done.returncode, cluster.info("caption")["status"]) == (0, "SUCCEEDED"), done.stdout
    assert "step 1, captions: 1 of 1: " in cluster.log("caption")
    assert made(out) == {"shots", "captions"}

    stopped = _stop_in_the_middle(cluster, *flags, "--upto", "finetune")
    assert cluster.info(stopped)["status"] == "STOPPED"
    assert not list((out / "claims").iterdir())
    assert made(out) == {"shots", "captions"}

    for name, folder, line in (
        ("finetune", "adapters", "step 2, fine-tunes: 1 of 1: "),
        ("generate", "images", "step 3, images: 4 of 4: "),
        ("classify", "results", "step 4, classifiers: 2 of 2: "),
    ):
        done = cluster.job(name, f"{name}.py", *flags)
        assert (done.returncode, cluster.info(name)["status"]) == (0, "SUCCEEDED"), done.stdout
        assert line in cluster.log(name)
        assert folder in made(out)
    assert "| resnet_mini | BOB | skyworld |" in cluster.log("classify")

    (out / "tables").rename(tmp_path / "tables")
    done = cluster.job("tabulate", "tabulate.py", *flags)
    assert done.returncode == 0, done.stdout
    for path in (tmp_path / "tables").glob("*.md"):
        assert (out / "tables" / path.name).read_text() == path.read_text()

    assert cluster.shell("bob.cli", "run", *FLAGS, "--out", alone, "--inline").returncode == 0
    assert artefacts(out) == artefacts(alone)
    _require_no_secret(cluster, out)


def _stop_in_the_middle(cluster: Head, *flags: str | Path) -> str:
    """Submits, looks on from a second shell, and stops the fine-tune at work; the job's id."""
    with cluster.submitted(*flags) as first:
        assert first.stdout is not None
        told = re.match(r"job (\S+) is submitted", first.stdout.readline())
        assert told
        job = told[1]
        until(
            lambda: re.search(r"seed 0 bob skyworld: step \d+ of 60", cluster.log(job)), "the fine-tune to be at work"
        )
        with cluster.submitted(*flags) as second:
            assert second.stdout is not None
            assert f"job {job} runs already" in second.stdout.readline()
            cluster.ask(f"/api/jobs/{job}/stop", method="POST")
            assert second.wait(60) != 0
        assert first.wait(60) != 0
        assert "the same command resumes" in first.stdout.read()
    return job


def made(out: Path) -> set[str]:
    """The folders below an output that hold something."""
    kinds = ("shots", "captions", "adapters", "images", "results")
    return {kind for kind in kinds if [path for path in out.glob(f"{kind}/**/*") if path.is_file()]}


def _require_no_secret(cluster: Head, out: Path) -> None:
    """In no log, artefact, scratch file or answer of the dashboard."""
    secrets = [secret.encode() for secret in (*PLANTED.values(), cluster.token)]
    files = [path for folder in (out, cluster.session) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 50
    found = [str(path) for path in files if any(secret in path.read_bytes() for secret in secrets)]
    for path in ("/api/jobs/", "/nodes?view=summary", "/api/v0/actors?detail=true", "/api/v0/runtime_envs?detail=true"):
        answer = cluster.ask(path)
        assert answer.ok, path
        found += [path for secret in secrets if secret in answer.content]
    assert not found, found


# -- the laptop's side --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("out", "--out out is relative to a folder that a job loses when it ends"),
        ("s3://key:secret@bucket/out", "--out holds an access key"),
        ("/out", "no Ray dashboard that lets us in answers at http://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_submitted_is_refused_in_one_sentence(out: str, expected: str, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "smoke", "--out", out, "--submit", "http://127.0.0.1:1"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"bob: {expected}")
    assert said.count("\n") == 1
    assert "secret" not in said
