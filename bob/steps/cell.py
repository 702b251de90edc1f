"""A run with the paths of its artefacts, and the names that paths and labels begin with."""

from dataclasses import dataclass, field

from bob import methods, store
from bob.core.settings import Run
from bob.core.types import Shot, TrainingSet
from bob.diffusion import checkpoints

__all__ = ["Cell", "label", "name", "weights"]


@dataclass
class Cell:
    """A run and its artefacts: paths in the store, filled in step by step as `bob.pipeline.walk` decides them."""

    run: Run
    method: methods.Method
    split: str
    """Path of the table of shots, validation and test images."""
    images_of_split: tuple[Shot, ...]
    """Training shots, validation and test images of the split, before shots without a caption are dropped."""
    training: TrainingSet
    captions: tuple[str, ...] = ()
    """Paths of the tables of captions; empty where the method needs none."""
    adapter: str = ""
    """Folder of the adapter; empty where nothing is fine-tuned."""
    images: str = ""
    """Folder of the drawn images; empty where nothing is drawn."""
    drawn: int = 0
    """Number of images to draw."""
    final: str = ""
    """Path of the final training's results."""
    provisional: bool = False
    """Whether pictures or captions are placeholders, so that the keys are not those of the real run."""
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Long tail only: class ids of the many-, medium- and few-shot classes."""


def label(cell: Cell, *coordinates: str) -> str:
    """Returns a label for people: a run's data set, shots and seed, and the values of the named fields of `Run`."""
    shots = f"{cell.run.shots}-shot " if cell.run.shots else ""
    words = " ".join(getattr(cell.run, name) for name in coordinates)
    return f"{cell.training.dataset} {shots}seed {cell.run.seed} {words}"


def name(cell: Cell) -> str:
    """Returns how the names of a run's image and result folders begin; a key follows."""
    run = cell.run
    return f"{store.slug(f'{cell.training.dataset} {run.method} {run.checkpoint}')}-{run.setting}"


def weights(run: Run) -> tuple[str, str]:
    """Returns the T2I checkpoint and its revision, as keys contain them."""
    return run.checkpoint, checkpoints.revision(run.checkpoint)
