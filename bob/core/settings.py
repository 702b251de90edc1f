"""Hyper-parameters: frozen dataclasses whose defaults are the paper's values, with the source of each."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from bob.core.seeds import derive

__all__ = ["OMIT_AT_DEFAULT", "DrawSettings", "FinetuneSettings", "Point", "Run", "SweepSettings"]

OMIT_AT_DEFAULT = {"younger": True}
"""Metadata of a field newer than existing keys: omitted from keys at its default, so that those stay valid."""

_MOST = 10**6
"""Upper limit of all counts: a greater one is a typing error, and would exhaust memory before it fails."""


def _positive(settings: object, *names: str) -> None:
    _check(settings, names, lambda value: value > 0, "be positive")


def _not_negative(settings: object, *names: str) -> None:
    _check(settings, names, lambda value: value >= 0, "not be negative")


def _fraction(settings: object, *names: str) -> None:
    _check(settings, names, lambda value: 0 <= value <= 1, "lie in [0, 1]")


def _check(settings: object, names: tuple[str, ...], fits: Callable[[float], bool], rule: str) -> None:
    """Checks that the numbers of each named field fit, are finite and, if whole, at most `_MOST`."""
    for name in names:
        setting = getattr(settings, name)
        for value in setting if isinstance(setting, tuple) else (setting,):
            if not fits(value):  # also NaN, of which every comparison is false
                raise ValueError(f"{name} must {rule}, got {setting}")
            if value == math.inf:
                raise ValueError(f"{name} must be finite, got {setting}")
            if isinstance(value, int) and value > _MOST:
                raise ValueError(f"{name} must be at most {_MOST:,}, got {setting}")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """LoRA fine-tuning of a T2I checkpoint (paper Table 4; DataDream's recipe)."""

    epochs: int = 400
    """Passes over the train pairs (Table 4)."""
    total_steps: int = 0
    """Optimiser steps, in place of `epochs`; 0: by `epochs` (Diff-Mix: 35,000)."""
    batch: int = 80
    """Train pairs a step (Table 4)."""
    lr: float = 1e-4
    """Peak learning rate of U-Net and text-encoder LoRA alike (Table 4)."""
    weight_decay: float = 1e-2
    """AdamW's weight decay (Table 4)."""
    warmup_steps: int = 100
    """Linear warm-up, in optimiser steps (Table 4). If longer than the training, the lr ends below its peak."""
    rank: int = 16
    """LoRA rank; alpha equals it, so the scale is 1 (Table 4)."""
    max_norm: float = 1.0
    """Gradient clipping over all LoRA parameters (Table 4)."""
    keep: tuple[int, ...] = ()
    """Epochs after which a copy of the adapter is kept, besides the last (Table 6: 200, 400 and 1,000)."""
    checkpoint_every: int = 100
    """Optimiser steps between checkpoints to resume from; changes no result."""
    micro_batch: int = field(default=0, metadata=OMIT_AT_DEFAULT)
    """Most images in memory at once; gradients are added up to those of `batch`. 0: as many as the GPU's free memory
    takes, with gradient checkpointing where that is faster or needed. Halved when memory runs out. Changes no result
    but by the order of sums."""
    precision: Literal["float32", "tf32", "bfloat16"] = field(default="float32", metadata=OMIT_AT_DEFAULT)
    """Arithmetic of the passes. `float32` is the paper's "mixed precision: no" (Table 4): matrix products in float32
    and convolutions in TF32, as torch computes on a GPU where a script sets nothing. The others are faster and change
    an adapter by more than the order of sums: `tf32` rounds the factors of matrix products to 10 bits of mantissa
    (an H100's peak is 495 TFLOP/s in place of 67); `bfloat16`, by autocast, rounds all products to 7 bits (989) and
    keeps a quarter less of activations."""

    sampling: Literal["uniform", "class_balanced"] = field(default="uniform", metadata=OMIT_AT_DEFAULT)
    """Pairs of an epoch. `uniform`: each once, so that on a long tail the head classes get nearly all steps;
    `class_balanced`: as many, each class equally often, with replacement. The paper leaves it open (sec. 4.3)."""

    def __post_init__(self) -> None:
        _positive(self, "epochs", "batch", "lr", "rank", "max_norm", "checkpoint_every")
        _not_negative(self, "weight_decay", "warmup_steps", "total_steps", "micro_batch")
        if self.precision not in ("float32", "tf32", "bfloat16"):
            raise ValueError(f"precision must be float32, tf32 or bfloat16, got {self.precision!r}")
        if self.sampling not in ("uniform", "class_balanced"):
            raise ValueError(f"sampling must be uniform or class_balanced, got {self.sampling!r}")
        if not all(0 < epoch < self.epochs for epoch in self.keep) or (self.keep and self.total_steps):
            raise ValueError(
                f"keep names epochs before the last of {self.epochs}, without total_steps; got {self.keep}"
            )

    def steps(self, pairs: int) -> int:
        """Returns `total_steps`, or where it is 0 epochs x ceil(pairs / batch) for `pairs` train pairs an epoch."""
        return self.total_steps or self.epochs * -(-pairs // self.batch)


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Drawing the synthetic training set (paper Table 5)."""

    per_class: int = 100
    """Images of each class (sec. 4.1); for a long tail half of the number each class is filled up to (sec. 4.3)."""
    guidance: float = 2.0
    """Classifier-free guidance scale (Table 5)."""
    steps: int = 50
    """Sampler steps (Table 5), 2 to 999; PNDM evaluates the U-Net once more."""
    batch: int = 10
    """Images drawn at once on one device; a GPU whose memory takes more draws up to 50. Changes no image beyond float
    reduction order."""
    unit: int = 100
    """Images per work unit, which are committed, and after an interruption redrawn, together."""
    compile: Literal["auto", "on", "off"] = field(default="auto", metadata=OMIT_AT_DEFAULT)
    """Whether the U-Net is compiled by torch, which changes images within rounding. `auto`: never on a CPU, whose
    images keep their bits; on a GPU once a process has drawn long enough for it to pay. `on`: from the first batch, on
    a CPU too; needs a C++ compiler. Of the three only `on` is part of the images' key, for a GPU's images are promised
    up to float reduction order anyway."""

    def __post_init__(self) -> None:
        _positive(self, "per_class", "steps", "batch", "unit")
        _not_negative(self, "guidance")
        if not 2 <= self.steps <= 999:  # PNDM draws pure noise in 1, and has no timesteps for 1,000
            raise ValueError(f"steps must lie in [2, 999] (sampler steps), got {self.steps}")
        if self.compile not in ("auto", "on", "off"):
            raise ValueError(f"compile must be auto, on or off, got {self.compile!r}")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration of the sweep."""

    lr: float
    weight_decay: float
    lam: float
    """Weight of the real loss in Eq. 1; 1 without synthetic images."""
    layer_decay: float = 1.0
    """Learning-rate factor per layer (MAE); 1 for none."""

    def __post_init__(self) -> None:
        _positive(self, "lr", "layer_decay")
        _not_negative(self, "weight_decay")
        _fraction(self, "lam", "layer_decay")


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """The downstream training: a short grid, then the long training (paper sec. 4.1, Table 4)."""

    lrs: tuple[float, ...] = (1e-3, 1e-4, 1e-5)
    """Learning rates of the grid; the default is ResNet-50's (Table 4)."""
    weight_decays: tuple[float, ...] = (1e-2, 1e-4, 0.0)
    lambdas: tuple[float, ...] = (0.5, 0.8)
    """Weight of the real images' loss in Eq. 1; not swept where there are no synthetic images."""
    layer_decays: tuple[float, ...] = (1.0,)
    """Learning-rate factors per layer, below the head (MAE); 1 for none."""
    sweep_epochs: int = 10
    """Epochs of each configuration of the grid (sec. 4.1)."""
    final_epochs: int = 100
    """Epochs of the final training with the best configuration (sec. 4.1)."""
    warmup_epochs: float = 3.0
    """Linear warm-up, in epochs (Table 4). If longer than the training, the lr ends below its peak."""
    batch: int = 64
    """Images a step, real and synthetic together (Table 4)."""
    base_batch: int = 0
    """Batch size that `lrs` refer to; they are scaled by batch / base_batch (MAE: 256). 0: not scaled."""
    min_lr: float = 1e-8
    """Learning rate at the end of the cosine (DataDream's script)."""
    warmup_lr: float = 1e-8
    """Learning rate at the start of the warm-up (DataDream's script)."""
    mix_probability: float = 0.2
    """Probability of MixUp or CutMix for a batch; real and synthetic images are mixed separately (DataDream)."""
    mixup_alpha: float = 1.0
    """Parameter of MixUp's Beta(alpha, alpha) (DataDream; torchvision's default)."""
    label_smoothing: float = 0.0
    """Fraction of every label that is spread over all classes (DataDream: none)."""
    search: Literal["grid", "random", "asha"] = "grid"
    """Search of the sweep. `grid`, every point for all its epochs, is the paper's; `random` trains `samples` points
    between the grid's ends; `asha` stops the grid's worse points early, on Ray only."""
    samples: int = 16
    """Number of points of the random search."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = field(default="auto", metadata=OMIT_AT_DEFAULT)
    """Precision of the forward pass (autocast). `float16`, with a loss scaler, is the paper's (Table 4: mixed precision
    fp16). `auto` is bfloat16 on a GPU and float32 on a CPU. bfloat16 is as fast as float16 and has float32's range, so
    it needs no scaler and skips no step, but 8 significant bits, not 11: it changes an accuracy as much as another seed
    does. On CPUs bfloat16 is faster where they compute in it (AVX512_BF16, AMX); float16 is slow there."""

    def __post_init__(self) -> None:
        _positive(self, "lrs", "layer_decays", "sweep_epochs", "final_epochs", "batch", "mixup_alpha", "samples")
        _not_negative(self, "weight_decays", "warmup_epochs", "min_lr", "warmup_lr", "base_batch")
        _fraction(self, "lambdas", "layer_decays", "mix_probability", "label_smoothing")
        for name in ("lrs", "weight_decays", "lambdas", "layer_decays"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: the sweep needs one value at least")
        if self.search not in ("grid", "random", "asha"):
            raise ValueError(f"search must be grid, random or asha, got {self.search!r}")
        if self.precision not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"precision must be auto, float32, bfloat16 or float16, got {self.precision!r}")

    def points(self, *, has_synthetic: bool, seed: int = 0) -> tuple[Point, ...]:
        """Returns the points of the sweep, in a fixed order; lambda is an axis only with synthetic images.

        Args:
            has_synthetic: whether there are synthetic images.
            seed: the run's seed, for the random search, whose first points do not depend on `samples`.
        """
        lambdas = self.lambdas if has_synthetic else (1.0,)
        if self.search == "random":
            return tuple(self._sampled(k, lambdas, seed) for k in range(self.samples))
        return tuple(
            Point(lr=lr, weight_decay=decay, lam=lam, layer_decay=layer)
            for lr in self.lrs
            for decay in self.weight_decays
            for lam in lambdas
            for layer in self.layer_decays
        )

    def _sampled(self, number: int, lambdas: tuple[float, ...], seed: int) -> Point:
        """Returns a random point between the ends of each axis, log-uniform in learning rate and weight decay."""

        def between(name: str, values: tuple[float, ...]) -> float:
            fraction = random.Random(derive("classify", "search", name, seed, number)).random()
            low, high = min(values), max(values)
            if name in ("lr", "weight_decay") and low > 0:
                return low * (high / low) ** fraction
            return low + (high - low) * fraction

        return Point(
            lr=between("lr", self.lrs),
            weight_decay=between("weight_decay", self.weight_decays),
            lam=between("lambda", lambdas),
            layer_decay=between("layer_decay", self.layer_decays),
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One cell: data set x shots x method x T2I checkpoint x backbone x seed, and the settings of its steps."""

    dataset: str
    """A data set's name, with its argument after a colon: `skyworld:0.8`, `folder:/data/x`."""
    method: str
    """A file of `bob/methods/`, with its switches after a colon: `bob:preservation=off`."""
    descriptor: str = ""
    """One word for what all classes are; empty: the data set's own."""
    shots: int = 0
    """Training images per class; 0: 5, or the number of the long tail or the split."""
    val: int = 0
    """Validation images per class; 0: the data set's own number (sec. 4.1: 16 or 10; long tail: 5)."""
    splits: str = ""
    """A file with the split: a table of `shots/`, or a list of training images; empty: the split is drawn."""
    checkpoint: str = "sd21"
    """T2I checkpoint: `sd15`, `sd21`, `skyworld`, `path:FOLDER`, or `simulated:SECONDS` to rehearse a cluster."""
    captioner: str = "qwen_vl"
    """A file of `bob/captioners/`, with a checkpoint after a colon: `qwen_vl:path:FOLDER`."""
    captioner_cleaning: Literal["standard", "off"] = field(default="standard", metadata=OMIT_AT_DEFAULT)
    """How answers enter prompts: `standard` drops lead-ins and articles and replaces names of classes, `off` inserts
    the answer as it is, as the paper does (sec. 3.1)."""
    backbone: str = "resnet50"
    """A file of `bob/backbones/`, or a checkpoint by its name: `timm:vit_base_patch14_dinov2`, `clip:path:FOLDER`."""
    seed: int = 0
    after: int = 0
    """Epoch of the adapter that draws the images, one of `finetune.keep` (Table 6); 0: the last."""
    finetune: FinetuneSettings = FinetuneSettings()
    draw: DrawSettings = DrawSettings()
    sweep: SweepSettings = SweepSettings()

    def __post_init__(self) -> None:
        _not_negative(self, "shots", "val")
        if self.after and self.after not in self.finetune.keep:
            raise ValueError(
                f"after must be one of the epochs in finetune.keep, {self.finetune.keep}, got {self.after}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {self.seed}")

    @property
    def setting(self) -> str:
        """Part of file names: shots and seed; for a long tail, which has no shots, the seed."""
        return f"{self.shots}shot-s{self.seed}" if self.shots else f"s{self.seed}"
