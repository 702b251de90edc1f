"""A run on its way through the steps, and how its artefacts are named."""

from dataclasses import dataclass, field

from bob import methods, store
from bob.core.settings import Run
from bob.core.types import TrainingSet
from bob.diffusion import checkpoints

__all__ = ["Cell", "label", "name", "weights"]


@dataclass
class Cell:
    """A run and its artefacts: paths in the store, as far as the steps that were walked through decided them."""

    run: Run
    method: methods.Method
    split: str
    """The table of its shots, validation and test images."""
    training: TrainingSet
    captions: tuple[str, ...] = ()
    """The tables of its shots' contexts; empty where the method wants none."""
    adapter: str = ""
    """Folder; empty where nothing is tuned."""
    images: str = ""
    """Folder; empty where nothing is drawn."""
    drawn: int = 0
    """How many images that folder is to hold."""
    final: str = ""
    """The table of its final training's results."""
    provisional: bool = False
    """Whether its pictures or its captions are made up, so that its keys are not those of the run itself."""
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of a long tail: class ids of the many-, medium- and few-shot classes."""


def label(cell: Cell, *coordinates: str) -> str:
    """For people: a run's data set, setting and seed, and these of its coordinates."""
    shots = f"{cell.run.shots}-shot " if cell.run.shots else ""
    words = " ".join(getattr(cell.run, name) for name in coordinates)
    return f"{cell.training.dataset} {shots}seed {cell.run.seed} {words}"


def name(cell: Cell) -> str:
    """What the folders of a run's images and results begin with; a key follows."""
    run = cell.run
    return f"{store.slug(f'{cell.training.dataset} {run.method} {run.checkpoint}')}-{run.setting}"


def weights(run: Run) -> tuple[str, str]:
    """The T2I checkpoint and its revision, as keys have them."""
    return run.checkpoint, checkpoints.revision(run.checkpoint)
