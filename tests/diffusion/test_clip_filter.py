"""CLIP filter: scores of generated images, and which images are kept."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from bob.core.types import Filter
from bob.diffusion import clip_filter
from bob.store import images

TEXTS = ("a photo with a aircraft on it", "a photo without a aircraft on it", "a photo of a Heron")


def pictures(count: int) -> list[Image.Image]:
    noise = np.random.default_rng(5).integers(0, 256, (count, 48, 40, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in noise]


@pytest.mark.parametrize("own", [True, False])
def test_a_score_is_clips_own_probability(untrained_clip, untrained_sd, monkeypatch, own):
    monkeypatch.setenv("BOB_MODELS", str(untrained_clip))
    scorer = clip_filter.ClipScorer(f"path:{untrained_sd}", torch.device("cpu"))
    found = scorer.scores(pictures(5), Filter(texts=TEXTS, own=own), [0, 1, 2, 1, 0])
    folder = untrained_clip / "clip_vit_b32"
    clip, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    with torch.inference_mode():
        given = processor(images=pictures(5), return_tensors="pt") | tokenizer(
            list(TEXTS), padding=True, return_tensors="pt"
        )
        wanted = clip(**given).logits_per_image.softmax(1)
    columns = [0, 1, 2, 1, 0] if own else [0] * 5
    assert found == pytest.approx([float(wanted[k, column]) for k, column in enumerate(columns)], abs=1e-5)
    assert scorer.name.startswith("clip_vit_b32 ")
    assert scorer.name == clip_filter.revision(f"path:{untrained_sd}")


def test_the_worst_tenth_of_all_is_dropped_and_each_class_filled_up():
    scores = {f"{c}-{k}": (c * 12 + k) / 100 for c in range(3) for k in range(12)}  # class 0 is worst
    classes = {name: int(name[0]) for name in scores}
    rule = Filter(texts=TEXTS, own=False, drop=0.1)
    kept = images.keep(scores, classes, rule, [10, 10, 10])
    assert kept == {f"0-{k}" for k in range(3, 12)} | {"0-2"} | {f"{c}-{k}" for c in (1, 2) for k in range(10)}
    assert images.keep(scores, classes, rule, [0, 12, 3]) == {f"1-{k}" for k in range(12)} | {"2-0", "2-1", "2-2"}


def test_what_is_no_likelier_than_chance_is_dropped():
    scores = {"0-0": 0.1, "0-1": 0.6, "0-2": 0.5, "0-3": 0.7, "0-4": 0.4}
    rule = Filter(texts=TEXTS, own=True, least=0.5)
    assert images.keep(scores, dict.fromkeys(scores, 0), rule, [2]) == {"0-1", "0-3"}
    assert images.keep(scores, dict.fromkeys(scores, 0), rule, [3]) == {"0-1", "0-3", "0-2"}
