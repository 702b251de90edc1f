"""Ray, and nothing but Ray: Data for captions and images, Train for fine-tunes, Tune for sweeps.

The only package that imports it. Each step's units go to the workers of `bob.workers`, which commit
what they make; receipts alone come back.
"""

from collections.abc import Callable, Iterator, Sequence

from bob.store import Store
from bob.types import Receipt, Unit

__all__ = ["execute"]


def execute(step: str, units: Sequence[Unit], artefacts: Store) -> Iterator[Receipt]:
    """The pipeline's executor on Ray: joins the cluster of `RAY_ADDRESS`, or starts a local one.

    Yields:
        A receipt for each unit, in the order in which they are done.

    Raises:
        ValueError: what a worker raised for something that the user can mend.
        RuntimeError: if Ray gave up on a unit.
    """
    from bob.cluster import data, session, train, tune

    stages: dict[str, Callable[[str, Sequence[Unit], Store, session.Slots], Iterator[Receipt]]] = {
        "caption": data.run,
        "finetune": train.run,
        "generate": data.run,
        "embed": data.run,
        "recognise": data.run,
        "classify": tune.run,
    }
    session.start()
    return stages[step](step, units, artefacts, session.slots(step, len(units)))
