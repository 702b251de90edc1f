"""The private interfaces of Ray that are used, as Ray 2.60 has them: look here first after an upgrade.

Ray has no public interface for either. `tests/test_jobs.py` looks for planted access keys in what Ray shows; no test
has an autoscaler, so `node_groups` has to be tried on a cluster.
"""

from collections.abc import Sequence
from typing import Any

from ray._private.state import state

__all__ = ["node_groups", "share_waiting_processes"]


def node_groups() -> Sequence[Any]:
    """The autoscaler's node groups, each with `name`, `resources` and `max_count` (below 0: no bound); none without it.

    Ray Data asks the same. The public `ray.nodes()` lists nodes that are started, and `ray.autoscaler.sdk`
    only requests nodes.
    """
    config = state.get_cluster_config()
    return config.node_group_configs if config else ()


def share_waiting_processes() -> None:
    """Keeps Ray Tune from giving its trials an environment of their own.

    For another environment Ray starts new processes beside those that wait. It also holds the driver's access keys,
    which Ray logs and the dashboard shows; the rest of it is for PyTorch Lightning. No argument of `Tuner`,
    `RunConfig` or `with_resources` reaches it.
    """
    from ray.tune.execution import class_cache  # late: it brings all of Tune

    secrets = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(secrets)
    class_cache.DEFAULT_ENV_VARS.clear()
