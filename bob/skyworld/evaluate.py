"""Command that measures the mini checkpoints against their bars, on pictures outside all training sets.

    python -m bob.skyworld.evaluate --weights bob/skyworld/weights --probe FOLDER/probe [--card FILE]
        [--work FOLDER] [--only vae captioner sd resnet mae clip] [--threads 1]

Prints a section of the model card in Markdown; exit code 1 if a bar is missed. The probe is the
classifier of `bob.skyworld.pretrain --only probe`, which is not shipped.
"""

import argparse
import io
import math
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, load_model

from bob import captioners
from bob.backbones import mae_mini, resnet_mini
from bob.captioners._cleaning import clean
from bob.core.prompts import context_prompt
from bob.core.seeds import derive
from bob.core.types import Context, Request
from bob.datasets._skyworld import BACKGROUNDS, BASE, DESCRIPTOR, NOVEL, POSES
from bob.diffusion.image_generator import ImageGenerator
from bob.skyworld import renders
from bob.skyworld.bench import BASE_RENDERS, NOVEL_RENDERS, Bench
from bob.skyworld.card import Measurement, card
from bob.skyworld.models import SIDE

__all__ = ["HOW", "PARTS", "main"]

_DRAWN = 200
_GUIDANCE, _STEPS = 2.0, 25  # the settings of a run on skyworld
_MEGABYTES = 30.0

HOW = (
    f"By `python -m bob.skyworld.evaluate`, on what no training has seen: {BASE_RENDERS} renders of the 60 base"
    f" classes, {NOVEL_RENDERS} of the 10 novel ones, {_DRAWN} drawn pictures of base classes (guidance"
    f" {_GUIDANCE:g}, {_STEPS} steps). The probe is a network of its own, trained on renders."
)
"""Text above the table of the model card."""


def autoencoder(bench: Bench) -> list[Measurement]:
    """Accuracy of the probe after encoding and decoding, and the PSNR of the reconstruction."""
    from diffusers import AutoencoderKL

    folder = bench.weight("sd/vae/config.json", "vae").parent
    model: Any = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
    model.float().eval()

    def rebuilt(pixels: np.ndarray) -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for rows in torch.arange(len(pixels)).split(200):
                latents = model.encode(renders.as_batch(pixels, rows)).latent_dist.mean
                parts.append(((model.decode(latents).sample.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1))
        return torch.cat(parts).to(torch.uint8).numpy()

    (base, truth), (novel, _) = bench.base(), bench.novel()
    reconstructed = rebuilt(base)
    before, after = (100 * (bench.read(pixels) == truth).mean(0) for pixels in (base, reconstructed))
    line = _line("autoencoder")
    return [
        line("probe reads the class of an original", before[0]),
        line("probe reads the class of a reconstruction", after[0]),
        line("points of class accuracy lost", before[0] - after[0], unit="points", bar=5.0, at_most=True),
        line("probe reads the background of a reconstruction", after[1]),
        line("probe reads the pose of a reconstruction", after[2]),
        line("PSNR, base classes", _psnr(base, reconstructed), unit="dB"),
        line("PSNR, novel classes", _psnr(novel, rebuilt(novel)), unit="dB"),
    ]


def captioner(bench: Bench) -> list[Measurement]:
    """Share of exactly right answers to a run's questions, on renders of the novel classes."""
    model = captioners.load(f"qwen_vl:path:{bench.weight('captioner', 'captioner')}")
    pixels, truth = bench.novel()
    answers = model.caption([Image.fromarray(picture) for picture in pixels], descriptor=DESCRIPTOR)
    words: dict[str, Any] = {"descriptor": DESCRIPTOR, "class_names": NOVEL}
    backgrounds = [clean(answer.background_raw, about="background", **words)[0] for answer in answers]
    poses = [clean(answer.pose_raw, about="pose", **words)[0] for answer in answers]
    line = _line("captioner")
    return [
        line("background of a novel class exactly right", _right(backgrounds, BACKGROUNDS, truth[:, 1]), bar=95.0),
        line("pose of a novel class exactly right", _right(poses, POSES, truth[:, 2]), bar=90.0),
    ]


def stable_diffusion(bench: Bench) -> list[Measurement]:
    """Predictions of the probe on pictures generated from BOB's prompt, with uniform contexts and no adapter."""
    requests, truth = _requests()
    generator = ImageGenerator("cpu")
    generator.use(f"path:{bench.weight('sd/model_index.json', 'vae sd').parent}", "", dict)
    rows, rejected = generator.draw(requests, batch=25)
    pictures = [np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows]
    _sheet(pictures).save(bench.work / "drawn.png")
    predicted = bench.read(np.array(pictures))
    # The share of all requests: a rejected picture counts as a miss.
    hits = (predicted == truth[[row["index"] for row in rows]]).sum(0) / len(requests)
    base, labels = bench.base()
    real = (bench.read(base)[:, 0] == labels[:, 0]).mean()
    line = _line("Stable Diffusion")
    return [
        line("probe reads the background asked for", 100 * hits[1], bar=90.0),
        line("probe reads the pose asked for", 100 * hits[2], bar=85.0),
        line("probe reads the class asked for", 100 * hits[0]),
        line("that, of what it reads in real renders", 100 * hits[0] / real, bar=50.0),
        line("pictures rejected", len(rejected), unit="", bar=0.0, at_most=True),
    ]


def resnet(bench: Bench) -> list[Measurement]:
    """Accuracy of the pre-training's heads, and of a linear classifier of fine-grained classes on the features."""
    model: Any = resnet_mini.network(sum(resnet_mini.HEADS))
    load_model(model, bench.weight("resnet/model.safetensors", "resnet"))
    pixels, truth = bench.base()
    with torch.inference_mode():
        images = renders.as_batch(pixels, torch.arange(len(pixels)))
        heads = model.eval()(images).split(list(resnet_mini.HEADS), 1)
        features = model.forward_features(images).mean((2, 3))
    predicted = np.stack([head.argmax(1).numpy() for head in heads], 1)
    family, background, pose = 100 * (predicted == np.stack([truth[:, 0] // 2, *truth[:, 1:].T], 1)).mean(0)
    line = _line("ResNet")
    return [
        line("family of a base render right", family),
        line("background of a base render right", background),
        line("pose of a base render right", pose),
        line("class of a base render right, by a linear layer on its features", _linear(features.numpy(), truth[:, 0])),
    ]


def mae(bench: Bench) -> list[Measurement]:
    """Accuracy of linear classifiers on the mean of the encoder's patch features."""
    state = {name: value.float() for name, value in load_file(bench.weight("mae/model.safetensors", "mae")).items()}
    encoder = mae_mini.network(0, pretraining=True).eval()
    encoder.load_state_dict(state)
    pixels, truth = bench.base()
    with torch.inference_mode():
        parts = [renders.as_batch(pixels, rows) for rows in torch.arange(len(pixels)).split(200)]
        features = torch.cat([encoder.forward_features(part)[:, 1:].mean(1) for part in parts]).numpy()
    line = _line("MAE")
    return [
        line("background of a base render right, by a linear layer on its features", _linear(features, truth[:, 1])),
        line("pose of a base render right, likewise", _linear(features, truth[:, 2]), bar=50.0),
        line("family of a base render right, likewise", _linear(features, truth[:, 0] // 2), bar=20.0),
    ]


def clip(bench: Bench) -> list[Measurement]:
    """Zero-shot accuracy among the prompts of the 60 base classes, and of the 10 novel ones, new to the model."""
    from transformers import CLIPModel, CLIPTokenizer

    from bob.skyworld.pretrain_clip import zero_shot

    folder = bench.weight("clip/config.json", "clip").parent
    model = CLIPModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    (base, base_labels), (novel, novel_labels) = bench.base(), bench.novel()
    line = _line("CLIP")
    return [
        line("class of a base render right, zero-shot", 100 * zero_shot(model, tokenizer, base, base_labels), bar=50.0),
        line("class of a novel render right, zero-shot", 100 * zero_shot(model, tokenizer, novel, novel_labels, NOVEL)),
    ]


def _linear(features: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy in per cent of a ridge regression, fitted to the first two thirds of the rows, on the last third."""
    fitted = len(labels) * 2 // 3
    x = np.c_[features, np.ones(len(features))].astype(np.float64)
    targets = np.eye(labels.max() + 1)[labels[:fitted]]
    weights = np.linalg.solve(x[:fitted].T @ x[:fitted] + 1e-2 * np.eye(x.shape[1]), x[:fitted].T @ targets)
    return 100 * float(((x[fitted:] @ weights).argmax(1) == labels[fitted:]).mean())


def size(bench: Bench) -> list[Measurement]:
    """Size of all files of the weights."""
    total = sum(path.stat().st_size for path in bench.weights.rglob("*") if path.is_file()) / 1e6
    return [_line("all")("size of the files", total, unit="MB", bar=_MEGABYTES, at_most=True)]


PARTS: dict[str, Callable[[Bench], list[Measurement]]] = {
    "vae": autoencoder,
    "captioner": captioner,
    "sd": stable_diffusion,
    "resnet": resnet,
    "mae": mae,
    "clip": clip,
}
"""Stage of `bob.skyworld.pretrain` -> function that measures its result."""


def _line(part: str) -> Callable[..., Measurement]:
    return lambda what, value, **bar: Measurement(part=part, what=what, value=float(value), **bar)


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(np.float64) - other).mean()
    return 10 * math.log10(255**2 / error) if error else math.inf


def _right(answers: Sequence[str], names: Sequence[str], truth: np.ndarray) -> float:
    return 100 * float(np.mean([text == names[k] for text, k in zip(answers, truth, strict=True)]))


def _requests() -> tuple[list[Request], np.ndarray]:
    """Returns requests with BOB's full prompt for the base classes in turn, and (class, background, pose), (n, 3)."""
    requests, truth = [], []
    for k in range(_DRAWN):
        draw = random.Random(derive("skyworld", "evaluate", "context", k))
        background, pose = (int(draw.random() * len(names)) for names in (BACKGROUNDS, POSES))
        class_id = k * len(BASE) // _DRAWN
        context = Context(background=BACKGROUNDS[background], pose=POSES[pose])
        requests.append(
            Request(
                request_id=str(k),
                class_id=class_id,
                index=k,
                prompt=context_prompt(DESCRIPTOR, BASE[class_id], context),
                seed=derive("skyworld", "evaluate", "image", k),
                guidance=_GUIDANCE,
                steps=_STEPS,
                label_ids=(class_id,),
                label_weights=(1.0,),
            )
        )
        truth.append((class_id, background, pose))
    return requests, np.array(truth)


def _sheet(pictures: Sequence[np.ndarray]) -> Image.Image:
    """Returns a contact sheet of the pictures, 20 a row."""
    sheet = Image.new("RGB", (20 * SIDE, max(1, -(-len(pictures) // 20)) * SIDE))
    for k, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (k % 20 * SIDE, k // 20 * SIDE))
    return sheet


def main() -> int:
    """Measures the parts that the command line names; returns 1 if a bar is missed, 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with sd, captioner, resnet, mae and clip")
    parser.add_argument("--probe", type=Path, help="folder of the trained probe; vae and sd need it")
    parser.add_argument("--work", type=Path, help="folder that keeps renders and a sheet of drawn pictures [temporary]")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--card", type=Path, help="file to write the section of the model card to")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(weights=arguments.weights, probe=arguments.probe, work=work)
        try:
            measured = [m for part in (*(PARTS[name] for name in arguments.only), size) for m in part(bench)]
        except ValueError as error:
            print(f"evaluate: {error}", file=sys.stderr)
            return 2
    text = card(HOW, measured)
    print(text, end="")
    if arguments.card:
        arguments.card.write_text(text, encoding="utf-8")
    return 0 if all(m.good for m in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
