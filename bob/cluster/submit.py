"""Submission of a command as a job of a cluster, `bob run --submit ADDRESS`, by Ray's job client.

Ray receives this package, the command and the variables of `TRAVEL`. Everything else, access keys above all, must be
set up on the cluster: Ray records what it receives, and anyone with access to the dashboard can read it.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.exceptions
import requests
from ray.job_submission import JobSubmissionClient

__all__ = ["TRAVEL", "submit"]

TRAVEL = ("BOB_DATA", "BOB_MODELS")
"""Environment variables that a job takes over from the submitting machine: the folders of data and weights."""

_SETTLE = 30.0  # seconds to wait for a job's final status after the end of its log


def submit(entrypoint: str, *, name: str, address: str, metadata: Mapping[str, str]) -> int:
    """Starts a job, or follows it if it runs already, and prints its log until it ends.

    Args:
        entrypoint: command that the cluster runs.
        name: name of the job, the same for the same command and no other; attempts are numbered.
        address: address of the cluster's dashboard, for example `http://127.0.0.1:8265`.
        metadata: entries for the cluster's list of jobs.

    Returns:
        The job's exit code; 1 if it has none; 130 after Ctrl-C, which leaves the job running.

    Raises:
        ValueError: if no dashboard answers at `address`, it rejects the user or the job, or the log breaks off.
    """
    client = _client(address)
    try:
        job = _started(client, entrypoint, name, metadata)
    except RuntimeError as error:  # for example from a head node that is still starting
        raise ValueError(f"{address} does not take the job ({error}): give the same command again") from error
    try:
        asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(f"\njob {job} goes on: the same command shows its log, `ray job stop {job}` ends it", flush=True)
        return 130
    except (RuntimeError, OSError) as error:  # for example a closed tunnel
        raise ValueError(f"lost the log of job {job} ({error}), which goes on: the same command shows it") from error
    return _code(client, job)


def _client(address: str) -> JobSubmissionClient:
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, requests.RequestException, ray.exceptions.RayError) as error:
        raise ValueError(
            f"no Ray dashboard that lets us in answers at {address} ({str(error).splitlines()[0]}): open a tunnel to it"
            " with `ray dashboard cluster.yaml`, and set RAY_AUTH_MODE=token with the cluster's token in"
            " ~/.ray/auth_token"
        ) from error


def _started(client: JobSubmissionClient, entrypoint: str, name: str, metadata: Mapping[str, str]) -> str:
    """Returns the id of the job's running attempt; starts an attempt if none runs."""
    attempts = [job for job in client.list_jobs() if (job.submission_id or "").rpartition("-")[0] == name]
    for job in attempts:
        if not job.status.is_terminal():
            print(f"job {job.submission_id} runs already: this is its log", flush=True)
            return str(job.submission_id)
    numbers = [int(str(job.submission_id).rpartition("-")[2]) for job in attempts]
    job_id = f"{name}-{max(numbers, default=0) + 1}"
    client.submit_job(entrypoint=entrypoint, submission_id=job_id, runtime_env=_environment(), metadata=dict(metadata))
    print(f"job {job_id} is submitted: Ctrl-C leaves it running", flush=True)
    return job_id


def _environment() -> dict[str, Any]:
    """Returns the job's runtime environment: the package's folder, without its surroundings, and the variables."""
    return {
        "py_modules": [str(Path(__file__).parents[1])],
        "env_vars": {name: os.environ[name] for name in TRAVEL if name in os.environ},
    }


async def _follow(client: JobSubmissionClient, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)


def _code(client: JobSubmissionClient, job: str) -> int:
    end = time.monotonic() + _SETTLE
    while not (info := client.get_job_info(job)).status.is_terminal() and time.monotonic() < end:
        time.sleep(0.2)  # the log ends a little before the job does
    print(f"job {job}: {info.status.value}", flush=True)
    if info.status.value == "SUCCEEDED":
        return 0
    if info.driver_exit_code is None:
        print(info.message, flush=True)
    return info.driver_exit_code or 1
