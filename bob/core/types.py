"""Data types that the steps exchange: frozen dataclasses of plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bob.core.budget import Budget
from bob.core.settings import OMIT_AT_DEFAULT, Run

__all__ = [
    "Context",
    "Filter",
    "Outcome",
    "Receipt",
    "Request",
    "Shot",
    "Token",
    "TrainPair",
    "TrainingSet",
    "Tuning",
    "Unit",
]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A real labelled image: one row of the `shots` table (a few-shot split with val and test)."""

    image_id: str
    """Unique within its data set and stable under re-listing."""
    sha1: str
    """Hex SHA-1 of the file's bytes (skyworld: of the parameters that the picture is rendered from)."""
    path: str
    """Path below the data set's root, or a recipe to render; read by the data set's `open`."""
    class_id: int
    class_name: str
    split: str
    """`train` (the shots), `val` or `test`."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The class-independent part of an image's caption (paper sec. 3.1): the pair (b, p)."""

    background: str
    pose: str


@dataclass(frozen=True, kw_only=True)
class TrainPair:
    """An (image, prompt) pair of a fine-tune."""

    image_id: str
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Token:
    """A new word that a fine-tune learns (textual inversion, arXiv:2208.01618)."""

    name: str
    """The word in prompts: `<class_12>`. Never a class's own name, which may contain any character."""
    begins_as: str
    """Text whose mean token embedding initialises the vectors."""
    vectors: int = 1
    """Number of embeddings of the word."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Trained parts of a T2I checkpoint, and how train pairs are presented. The defaults are DataDream's."""

    unet: bool = True
    """LoRA on the U-Net's attention."""
    text_encoder: bool = True
    """LoRA on the text encoder's attention."""
    tokens: tuple[Token, ...] = ()
    """New words; of the embedding table only their rows are trained."""
    dense_tokens: bool = field(default=False, metadata=OMIT_AT_DEFAULT)
    """Whether a word that a batch does not show goes on moving by AdamW's moments and weight decay, as a row of a
    dense table does; otherwise each word learns as it would alone."""
    templates: tuple[str, ...] = ()
    """Texts with `{}` for a pair's prompt; a random one each time that the pair is shown."""
    schedule: str = "cosine"
    """Learning rate after the warm-up: `cosine` or `constant`."""
    side: int = 0
    """Shorter side of the training images in pixels, if below the checkpoint's own; 0: the checkpoint's own."""
    flip: bool = False
    """Whether images are mirrored at random, half of the time."""
    each: int = 0
    """Images per prompt and epoch, adjacent and drawn with replacement; 0: every pair once."""

    def epoch(self, prompts: Sequence[str]) -> int:
        """Returns the number of pairs in an epoch, from the prompts of all pairs."""
        return self.each * len(set(prompts)) if self.each else len(prompts)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Filter of the drawn images by CLIP, before the classifier is trained on them.

    An image's score is CLIP's probability of one text among several.
    """

    texts: tuple[str, ...]
    own: bool
    """Whether the score is that of the text at the image's class id; otherwise that of the first text."""
    drop: float = 0.0
    """Fraction of all images that is dropped, the lowest scores first."""
    least: float = 0.0
    """Lower limit of the score, exclusive."""
    surplus: float = 0.0
    """Extra images to draw, as a fraction of a class's images."""

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> "Filter":
        """From what a JSON file says of it."""
        fields: dict[str, Any] = dict(plain)
        fields["texts"] = tuple(plain["texts"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """A method's input: the shots, their contexts, and the names in the data set."""

    dataset: str
    """Name of the data set with its argument: `skyworld:0.8`, `folder:/data/mushrooms`, `aircraft` ..."""
    descriptor: str
    """One word for what all classes are: aircraft, bird, car ..."""
    superclass: str
    """That word in the prompts of Diff-Mix and Diff-II: `animal` where the descriptor is `pet`."""
    class_names: tuple[str, ...]
    """Indexed by class id."""
    shots: tuple[Shot, ...]
    """Training shots, ordered by (class_id, rank)."""
    budget: Budget
    """Number of images to draw of each class, and of copies of each real image."""
    contexts: Mapping[str, Context] = field(default_factory=dict)
    """image_id -> context; empty where the method needs no captions."""
    suffixes: tuple[str, ...] = ()
    """At most ten settings, condensed from the contexts; empty where the method needs none."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """An image to draw: one row of the `requests` table."""

    request_id: str
    """Unique within a run: class id and index."""
    class_id: int
    index: int
    """0-based position among the images of its class."""
    prompt: str
    seed: int
    """Seed of this image's own CPU generator, so that the image does not depend on its batch."""
    negative_prompt: str = ""
    kind: str = "text2img"
    """`text2img`, `img2img` or `circle`."""
    source_ids: tuple[str, ...] = ()
    """Source images: one for img2img, two for circle, or one where a class has no second."""
    strength: float = 1.0
    """img2img: fraction of the noise schedule that is run, in (0, 1] as in diffusers."""
    guidance: float = 2.0
    """Classifier-free guidance scale (paper Table 5)."""
    steps: int = 50
    """Sampler steps (paper Table 5)."""
    scheduler: str = "default"
    """`default` (the checkpoint's own), `dpm` (DPM-Solver++) or `ddim`."""
    switch_at: float = 0.0
    """circle: fraction of the schedule, from its noisy end, that uses the whole prompt. The rest omits `background`,
    with which the prompt ends."""
    label_ids: tuple[int, ...] = ()
    label_weights: tuple[float, ...] = ()
    """Soft label for the classifier; weights sum to 1."""
    background: str = ""
    pose: str = ""
    bank_row: int = -1
    """Row of the caption bank that the context was sampled from; -1 for none."""
    adapter: str = ""
    """Folder of the adapter; empty for the bare checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A work unit: committed, retried and redone as a whole."""

    step: str
    """`caption`, `finetune`, `generate`, `embed`, `recognise` or `classify`."""
    target: str
    """Path of the file whose presence marks the unit as done; contains the unit's key."""
    label: str
    """Description for people."""
    size: int
    """Rows, images, epochs or optimiser steps, for progress."""
    group: str = ""
    """Units of a group share a model; an actor does them one after another."""
    work: Any = None
    """Input of the step's worker: a frozen dataclass such as `steps.caption.CaptionWork`. The key in `target` is the
    hash of its field `inputs`, if it has one."""

    @property
    def planned(self) -> str:
        """The unit's step in `step_table.PLANNED`, which separates sweep and final trainings."""
        return getattr(self.work, "phase", self.step)

    @property
    def config(self) -> dict[str, Any]:
        """The work as plain data, for manifests."""
        return asdict(self.work)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A worker's report on a finished unit; nothing else reaches the driver."""

    target: str
    label: str
    size: int
    rejected: int = 0
    """Number of rows that raised an error, listed in the unit's `rejected` file."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Lap of `timing.Stopwatch` -> seconds; empty where nothing was done."""
    note: str = ""
    """A few words for the line of progress."""

    @property
    def seconds(self) -> float:
        """Seconds of all laps together."""
        return sum(self.times.values())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Artefacts of a run: paths in the store."""

    run: Run
    """The run, with the values that its data set decides filled in."""
    dataset: str
    """Name of the data set, as results have it."""
    shots: tuple[Shot, ...]
    """The training shots."""
    split: str
    """Path of the table of shots, validation and test images."""
    captions: tuple[str, ...]
    """Paths of the tables of captions; empty where the method needs none."""
    adapter: str
    """Folder of the adapter; empty where nothing was fine-tuned."""
    images: str
    """Folder of the drawn images; empty where nothing was drawn."""
    final: str
    """Path of the final training's results; empty where that is not done."""
