"""Private interfaces of Ray 2.60 that have no public counterpart: the first place to check after an upgrade.

`tests/integration/test_jobs.py` looks for planted access keys in what Ray shows. No test has an autoscaler, so
`node_groups` has to be tried on a cluster.
"""

from collections.abc import Sequence
from typing import Any

from ray._private.state import state

__all__ = ["node_groups", "share_waiting_processes"]


def node_groups() -> Sequence[Any]:
    """Returns the autoscaler's node groups, with `name`, `resources` and `max_count` (below 0: no bound); else none.

    Ray Data reads the same state. The public `ray.nodes()` lists only started nodes, and `ray.autoscaler.sdk` only
    requests nodes.
    """
    config = state.get_cluster_config()
    return config.node_group_configs if config else ()


def share_waiting_processes() -> None:
    """Keeps Ray Tune from setting environment variables for its trials.

    With variables of its own a trial gets a new process, although idle ones wait. Tune's variables also include the
    driver's access keys, which Ray logs and the dashboard shows; the others are for PyTorch Lightning. No argument of
    `Tuner`, `RunConfig` or `with_resources` changes them.
    """
    from ray.tune.execution import class_cache  # late: imports all of Tune

    secrets = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(secrets)
    class_cache.DEFAULT_ENV_VARS.clear()
