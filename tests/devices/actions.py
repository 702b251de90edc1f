"""What the package does on a GPU, once for each kind of work, on skyworld's mini models."""

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from bob import backbones, captioners, datasets
from bob.classifier.data import Data
from bob.classifier.embedder import Embedder
from bob.classifier.trainer import Trainer, Training, train
from bob.core.settings import FinetuneSettings, Point
from bob.core.types import Filter, Request, Token, Tuning
from bob.diffusion import checkpoints, lora, textual_inversion, training
from bob.diffusion.image_generator import ImageGenerator

__all__ = [
    *("CLASSES", "KINDS", "TUNINGS", "WORD", "adapters", "caption", "classify", "data", "draw", "embed", "finetune"),
    *("drawn", "picture", "pictures", "ready", "reference", "request", "score", "shots", "trainer"),
]

CLASSES = ("Egret", "Teal", "Zephyr", "Mistral")

KINDS: dict[str, dict[str, Any]] = {
    "text2img": {},
    "text2img by DPM-Solver": {"scheduler": "dpm"},
    "text2img by DDIM": {"scheduler": "ddim"},
    "img2img": {"kind": "img2img", "source_ids": ("a",), "strength": 0.5, "steps": 4},
    "circle": {"kind": "circle", "source_ids": ("a", "bb"), "switch_at": 0.7, "scheduler": "ddim", "steps": 2},
}
"""Kind of drawing -> fields of its requests."""

WORD = Token(name="<w>", begins_as="sky", vectors=2)
TUNINGS = {
    "LoRA": Tuning(),
    "words": Tuning(unet=False, text_encoder=False, tokens=(WORD,), schedule="constant", side=16, flip=True),
    "LoRA and words": Tuning(text_encoder=False, tokens=(WORD, Token(name="<v>", begins_as="sea"))),
}
"""What a fine-tune trains."""


def picture(name: str, *, width: int = 50) -> Image.Image:
    """Noise, another one for each name."""
    rng = np.random.default_rng(list(name.encode()))
    return Image.fromarray(rng.integers(0, 256, (40, width, 3), dtype=np.uint8))


def pictures(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Drawn rows -> their pixels."""
    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows]).astype(int)


def shots(count: int) -> list[Image.Image]:
    """Pictures of skyworld's own data set."""
    world = datasets.load("skyworld")
    split = [shot for shot in world.split(shots=1, val=1, seed=0) if shot.split == "train"]
    return [world.open(shot) for shot in split[:count]]


def adapters() -> dict[str, dict[str, bytes]]:
    """Adapters with LoRA, with a word, with both, and with neither."""
    pipeline = checkpoints.load("skyworld", device=torch.device("cpu"), dtype=torch.float32)
    lora.add(pipeline.unet, pipeline.text_encoder, rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lora.parameters(pipeline.unet, pipeline.text_encoder).values():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    branches = {lora.FILE: lora.serialize(pipeline.unet, pipeline.text_encoder)}
    width = pipeline.text_encoder.config.hidden_size
    word = {textual_inversion.FILE: save({WORD.name: 0.1 * torch.randn((2, width), generator=generator)})}
    return {"": {}, "LoRA": branches, "word": word, "both": branches | word}


def request(k: int, **fields: Any) -> Request:
    """A request of a few steps."""
    prompt, background = "a aircraft photo of a Zephyr in the city skyline", "in the city skyline"
    fixed: dict[str, Any] = {"request_id": f"0-{k}", "class_id": 0, "index": k, "seed": k, "steps": 3}
    return Request(**fixed | {"prompt": prompt, "background": background} | fields)


def draw(generator: ImageGenerator, **fields: Any) -> list[dict[str, Any]]:
    """Two rows of one batch, drawn by a generator that is ready."""
    rows, rejected = generator.draw([request(k, **fields) for k in range(2)], batch=2)
    assert not rejected, rejected
    return rows


@functools.cache
def reference(do: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What a function gives on the CPU, computed once for all tests of a process; not to be changed."""
    return do(*args, **named)


@functools.cache
def ready(device: str) -> ImageGenerator:
    """A generator with the bare checkpoint, the same each time."""
    generator = ImageGenerator(device)
    generator.use("skyworld", "", dict, dataset="noise", source=picture)
    return generator


def drawn(device: str, kind: str) -> np.ndarray:
    """The pixels of two images of one kind."""
    return pictures(draw(ready(device), **KINDS[kind]))


def score(generator: ImageGenerator, rows: list[dict[str, Any]]) -> list[float]:
    """CLIP's scores of drawn rows."""
    rule = Filter(texts=("a photo of a Zephyr", "a boat"), own=True)
    return [row["score"] for row in generator.score(rows, rule)]


def finetune(
    tuning: Tuning, device: str = "", *, pipeline: Any = None, steps: int = 2, **settings: Any
) -> tuple[Any, list[float]]:
    """The pipeline, skyworld's or a given one, after a few steps on three pairs, and the losses."""
    pipeline = pipeline or checkpoints.load("skyworld", device=torch.device(device), dtype=torch.float32)
    text = " ".join(token.name for token in tuning.tokens) or "Zephyr"
    pairs = training.Pairs([picture(name, width=40) for name in "abc"], [f"a photo of a {text}"] * 3)
    fixed = {"total_steps": steps, "batch": 2, "rank": 2, "warmup_steps": 0, "lr": 1e-3}
    losses: list[float] = []
    training.train(
        pipeline,
        pairs,
        settings=FinetuneSettings(**fixed | settings),
        seed=0,
        tuning=tuning,
        callbacks=training.Callbacks(report=lambda _, loss: losses.append(loss)),
    )
    return pipeline, losses


def data(side: int, images: int) -> Data:
    """Noise: so many real and so many synthetic pictures, and as many to validate and to test on."""
    rng, labels = np.random.default_rng(0), np.arange(images) % len(CLASSES)

    def noise() -> np.ndarray:
        return rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)

    return Data(
        class_names=CLASSES,
        descriptor="aircraft",
        real=noise(),
        real_labels=labels,
        val=noise(),
        val_labels=labels,
        synthetic=noise(),
        synthetic_labels=np.eye(len(CLASSES), dtype=np.float32)[labels],
        test=lambda: (noise(), labels),
    )


def _training(name: str, *, epochs: int = 1, **settings: Any) -> Training:
    sweep = backbones.load(name).sweep
    return Training(
        backbone=name,
        point=Point(lr=1e-3, weight_decay=0.05, lam=0.5, layer_decay=sweep.layer_decays[0]),
        settings=dataclasses.replace(sweep, **{"batch": 8, "mix_probability": 1.0} | settings),
        epochs=epochs,
        seed=0,
        with_test=True,
    )


def classify(name: str, device: str, *, images: int = 8, **settings: Any) -> list[dict[str, Any]]:
    """Rows of a training on noise, with validation and test."""
    side = backbones.load(name).kept
    return list(train(data(side, images), _training(name, **settings), device=device))


def trainer(name: str, device: str, *, images: int = 8, **settings: Any) -> Trainer:
    """What trains on noise."""
    side = backbones.load(name).kept
    return Trainer(data(side, images), _training(name, **settings), torch.device(device))


def embed(name: str, device: str) -> np.ndarray:
    """Features of three pictures."""
    rows, rejected = Embedder(name, device=device)("abc", [0, 1, 2], lambda k: picture("abc"[k]))
    assert not rejected, rejected
    return np.stack([row["features"] for row in rows])


def caption(device: str) -> tuple[Any, list[Any], list[Any]]:
    """The mini Qwen, its answers about pictures of skyworld, and the classes that it recognises."""
    model, world = captioners.load("qwen_vl:skyworld", device=device), datasets.load("skyworld")
    answers = model.caption(shots(4), descriptor="aircraft")
    return model, answers, model.recognise(shots(2), descriptor="aircraft", class_names=world.class_names[:6])
