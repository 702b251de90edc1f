"""Submission of a `bob` command as a Ray job, and checks of the `--out` that a job may use."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from bob import store

__all__ = ["require_shared", "submit"]


def require_shared(out: str) -> None:
    """Checks that a job's `--out` outlives the job and holds no secret.

    A job's working directory is deleted with the job, and its command line is shown to everyone who sees the cluster.

    Args:
        out: the job's `--out`.

    Raises:
        ValueError: if `out` is a relative path or holds an access key.
    """
    if store.without_keys(out) != out:
        raise ValueError(
            "--out holds an access key, which the cluster's list of jobs would show: leave it out, and give the nodes"
            " a role or credentials of their own"
        )
    if "://" not in out and not os.path.isabs(out):
        raise ValueError(
            f"--out {out} is relative to a folder that a job loses when it ends: give s3://bucket/prefix,"
            " gs://bucket/prefix, or the absolute path of a folder that all nodes share"
        )


def submit(arguments: Sequence[str], *, address: str, out: str, title: str, identity: Any) -> int:
    """Runs a `bob` command as a job and prints its log.

    Args:
        arguments: arguments of the command, with `--submit`.
        address: URL of the cluster's dashboard.
        out: the command's `--out`.
        title: readable part of the job's name.
        identity: settings of the command; equal settings share one job.

    Returns:
        The job's exit code.

    Raises:
        ValueError: if `require_shared` refuses `out`, or the cluster cannot be reached.
    """
    require_shared(out)
    from bob.cluster import submit

    command = _without(arguments, "--submit")
    return submit.submit(
        shlex.join(["python", "-m", "bob.cli", *command]),
        name=f"bob-{store.slug(title)}-{store.key(identity)[:8]}",
        address=address,
        metadata={"bob": shlex.join(["bob", *command]), "out": out},
    )


def _without(arguments: Sequence[str], flag: str) -> list[str]:
    """Returns a command line without one flag and its value."""
    kept, skipped = [], False
    for argument in arguments:
        if not skipped and argument != flag and not argument.startswith(f"{flag}="):
            kept.append(argument)
        skipped = argument == flag
    return kept
