"""A command as a job of a cluster: what such a one may not be given, and how it is sent there."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from bob import store

__all__ = ["require_shared", "submit"]


def require_shared(out: str) -> None:
    """Of a job the working directory is deleted with it, and the command line is shown to all who see the cluster.

    Args:
        out: where it is to keep what it makes.

    Raises:
        ValueError: if that would be lost, or shows a secret.
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
    """Runs a `bob` command as a job, and shows its log.

    Args:
        arguments: of the command, with `--submit`.
        address: of the cluster's dashboard.
        out: where the command keeps what it makes.
        title: of the job, for people.
        identity: what the command depends on; two that are equal are one job.

    Returns:
        The exit code.

    Raises:
        ValueError: if `require_shared` does, or the cluster cannot be reached.
    """
    require_shared(out)
    from bob.cluster import submit

    sent = _without(arguments, "--submit")
    return submit.submit(
        shlex.join(["python", "-m", "bob.cli", *sent]),
        name=f"bob-{store.slug(title)}-{store.key(identity)[:8]}",
        address=address,
        metadata={"bob": shlex.join(["bob", *sent]), "out": out},
    )


def _without(arguments: Sequence[str], flag: str) -> list[str]:
    """A command line without one flag and its value."""
    kept, skipped = [], False
    for argument in arguments:
        if not skipped and argument != flag and not argument.startswith(f"{flag}="):
            kept.append(argument)
        skipped = argument == flag
    return kept
