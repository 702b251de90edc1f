"""`bob run --submit ADDRESS`: the same command as a job of a cluster, by Ray's job client.

The job is given this package, the command and the variables of `TRAVEL`. Everything else, keys above all, must be set
up on the cluster: Ray records what a job is given, and anyone with access to the dashboard can read it.
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
"""Environment variables that a job takes over from the machine that submits it: where data and weights lie."""

_SETTLE = 30.0  # seconds


def submit(entrypoint: str, *, name: str, address: str, metadata: Mapping[str, str]) -> int:
    """Starts the job, or joins it where it runs already, and shows its log until it ends.

    Args:
        entrypoint: the command that the cluster is to run.
        name: of the job: the same command has the same, another has another; its attempts are numbered.
        address: of the cluster's dashboard, as `http://127.0.0.1:8265`.
        metadata: shown in the cluster's list of jobs.

    Returns:
        The job's exit code; 1 where it never came to have one; 130 after Ctrl-C, which leaves the job running.

    Raises:
        ValueError: if nothing answers there, or does not let us in.
    """
    client = _client(address)
    try:
        job = _started(client, entrypoint, name, metadata)
    except RuntimeError as error:  # as of a head that has just come up
        raise ValueError(f"{address} does not take the job ({error}): give the same command again") from error
    try:
        asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(f"\njob {job} goes on: the same command shows its log, `ray job stop {job}` ends it", flush=True)
        return 130
    except (RuntimeError, OSError) as error:  # a tunnel that closed
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
    """The id of the attempt that runs, an earlier command's or a new one."""
    attempts = [job for job in client.list_jobs() if (job.submission_id or "").rpartition("-")[0] == name]
    for job in attempts:
        if not job.status.is_terminal():
            print(f"job {job.submission_id} runs already: this is its log", flush=True)
            return str(job.submission_id)
    numbers = [int(str(job.submission_id).rpartition("-")[2]) for job in attempts]
    new = f"{name}-{max(numbers, default=0) + 1}"
    client.submit_job(entrypoint=entrypoint, submission_id=new, runtime_env=_environment(), metadata=dict(metadata))
    print(f"job {new} is submitted: Ctrl-C leaves it running", flush=True)
    return new


def _environment() -> dict[str, Any]:
    """The package as it stands here, whether installed or in a checkout: never a user's outputs beside it."""
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
