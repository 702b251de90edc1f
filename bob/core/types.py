"""What travels between the steps: frozen dataclasses of plain data, in the field's own words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bob.core.budget import Budget
from bob.core.settings import Run

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
    """Hex SHA-1 of the file's bytes (skyworld: of what the picture is rendered from)."""
    path: str
    """What the data set's `open` reads: a path below the data set's root, or a recipe."""
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
    """What a captioner reads from one image, class apart (paper sec. 3.1): the pair (b, p)."""

    background: str
    pose: str


@dataclass(frozen=True, kw_only=True)
class TrainPair:
    """One (image, prompt) that a fine-tune learns from."""

    image_id: str
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Token:
    """A new word that a fine-tune learns (textual inversion, arXiv:2208.01618)."""

    name: str
    """How prompts write it: `<class_12>`. Never a class's own name, which may hold anything."""
    begins_as: str
    """Text whose tokens' mean embedding its vectors begin as."""
    vectors: int = 1
    """Embeddings that stand for it."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What of a T2I checkpoint is trained on the train pairs, and how they are shown. The defaults are DataDream's."""

    unet: bool = True
    """LoRA on the U-Net's attention."""
    text_encoder: bool = True
    """LoRA on the text encoder's attention."""
    tokens: tuple[Token, ...] = ()
    """New words; of the table of embeddings only their rows are trained."""
    templates: tuple[str, ...] = ()
    """A pair's prompt is put for `{}` in one of these, another each time that it is shown."""
    schedule: str = "cosine"
    """Of the learning rate after its warm-up: `cosine` or `constant`."""
    side: int = 0
    """Pixels of the shorter side that images are shown at, if that is below the checkpoint's own; 0: its own."""
    flip: bool = False
    """Whether an image is mirrored every other time."""
    each: int = 0
    """An epoch shows so many images of each prompt, together and drawn with replacement; 0: every pair once."""

    def epoch(self, prompts: Sequence[str]) -> int:
        """How many pairs an epoch shows, by the prompts of all."""
        return self.each * len(set(prompts)) if self.each else len(prompts)

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> "Tuning":
        """From what a JSON file says of it."""
        fields: dict[str, Any] = dict(plain)
        fields["tokens"] = tuple(Token(**token) for token in plain["tokens"])
        fields["templates"] = tuple(plain["templates"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which drawn images the classifier is given: those that CLIP takes for what they were to show.

    An image's score is CLIP's probability of one text among several. `surplus` more are drawn than are wanted.
    """

    texts: tuple[str, ...]
    own: bool
    """Whether the text that counts is that of the image's class id; otherwise it is the first."""
    drop: float = 0.0
    """Part of all images that is dropped, the lowest scores first."""
    least: float = 0.0
    """A score has to be above this."""
    surplus: float = 0.0
    """Part of the images of a class that is drawn in addition."""

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> "Filter":
        """From what a JSON file says of it."""
        fields: dict[str, Any] = dict(plain)
        fields["texts"] = tuple(plain["texts"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """All that a method may look at: the shots, their contexts, and the words of the data set."""

    dataset: str
    """What it is, wherever it lies: `skyworld:0.8`, `folder:/data/mushrooms`, `aircraft` ..."""
    descriptor: str
    """One word for what all classes are: aircraft, bird, car ..."""
    class_names: tuple[str, ...]
    """Indexed by class id."""
    shots: tuple[Shot, ...]
    """The training shots only, ordered by (class_id, rank)."""
    budget: Budget
    """How many images to draw of each class, and how often a real one is used."""
    contexts: Mapping[str, Context] = field(default_factory=dict)
    """image_id -> context; empty where the method asks for no captions."""
    suffixes: tuple[str, ...] = ()
    """At most ten settings that the contexts were condensed into; empty where the method asks for none."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image to draw: one row of the `requests` table. All that a method can ask for."""

    request_id: str
    """Unique within a run: class id and index."""
    class_id: int
    index: int
    """0-based position among the images of its class."""
    prompt: str
    seed: int
    """Seeds this image's own CPU generator, so the image depends on nothing around it."""
    negative_prompt: str = ""
    kind: str = "text2img"
    """`text2img`, `img2img` or `circle`."""
    source_ids: tuple[str, ...] = ()
    """Real images that it starts from: one of img2img, two of circle; one where a class has no second."""
    strength: float = 1.0
    """Of img2img, in (0, 1] as in diffusers: the part of the noise schedule that is run."""
    guidance: float = 2.0
    """Classifier-free guidance scale (paper Table 5)."""
    steps: int = 50
    """Sampler steps (paper Table 5)."""
    scheduler: str = "default"
    """`default`, which is the checkpoint's own, `dpm` (DPM-Solver++) or `ddim`."""
    switch_at: float = 0.0
    """Of circle: how much of the schedule, from its noisy end, is drawn with the whole prompt. After it `background`,
    with which the prompt ends, is left out."""
    label_ids: tuple[int, ...] = ()
    label_weights: tuple[float, ...] = ()
    """The label the classifier trains on; weights sum to 1."""
    background: str = ""
    pose: str = ""
    bank_row: int = -1
    """Row of the caption bank that the context was sampled from; -1 if there is none."""
    adapter: str = ""
    """Key of the adapter it is drawn with; empty: the bare checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work: what is committed, retried and, if need be, made again as one."""

    step: str
    """`caption`, `finetune`, `generate`, `embed`, `recognise` or `classify`."""
    target: str
    """The file whose presence means that the unit is done; holds the unit's key."""
    label: str
    """For people: what this is."""
    size: int
    """Rows, images or optimiser steps: what progress counts."""
    group: str = ""
    """Units of one group share a model; an actor does them one after another."""
    work: Any = None
    """What the step's worker needs: a frozen dataclass of the step's own, such as `steps.caption.CaptionWork`. Its
    field `inputs`, where there is one, is what the key in `target` is the hash of."""

    @property
    def planned(self) -> str:
        """The step as plans list it, of `step_table.PLANNED`: trainings of the sweep and the final one apart."""
        return getattr(self.work, "phase", self.step)

    @property
    def config(self) -> dict[str, Any]:
        """The work as a manifest has it: plain data."""
        return asdict(self.work)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What is left to say when a unit is done; the only thing that reaches the driver."""

    target: str
    label: str
    size: int
    rejected: int = 0
    """Rows that raised and stand in the unit's `rejected` file."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Lap of `timing.Stopwatch` -> seconds; empty where nothing had to be done."""
    note: str = ""
    """A few words for the line of progress."""

    @property
    def seconds(self) -> float:
        """Of all laps."""
        return sum(self.times.values())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run has come to: paths in the store."""

    run: Run
    """With all that the data set decided filled in."""
    dataset: str
    """What the data set is, wherever it lies: as the results have it."""
    shots: tuple[Shot, ...]
    """The training shots."""
    split: str
    """The table of its shots, validation and test images."""
    captions: tuple[str, ...]
    """The tables of its shots' contexts; empty where its method wants none."""
    adapter: str
    """Folder; empty where nothing was tuned."""
    images: str
    """Folder; empty where nothing was drawn."""
    final: str
    """The table of its final training's results; empty where it did not come that far."""
