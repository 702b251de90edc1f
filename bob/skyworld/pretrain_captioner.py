"""Training of the mini captioner: skyworld's base classes under the paper's two questions.

Ten minutes on one free core (0.3 s a step; with three processes on two cores it took half an hour).
On 930 pictures of novel classes, with the questions of any captioner, it gets 100 % of the backgrounds and
98.6 % of the poses exactly right; `tests/captioners/test_captioners.py` requires 95 % and 90 %.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bob.captioners import QUESTIONS
from bob.datasets._skyworld import BACKGROUNDS, DESCRIPTOR, POSES
from bob.skyworld import qwen, training
from bob.skyworld.renders import TRAIN, cached

__all__ = ["captioner"]

_END = "<|im_end|>"
_IGNORED = -100  # target without weight in the loss
_BATCH = 24  # pictures, half of them mirrored copies; each is asked both questions
_STEPS = 2_000


def captioner(out: Path, work: Path) -> None:
    """Trains the captioner by next-token loss on the answers only, with varied descriptors in the questions."""
    pixels, labels = cached(work, TRAIN, "train")
    held_out, truth = cached(work, 600, "check")
    reader = qwen.processor()

    def loss_of(model: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pixels), (_BATCH // 2,), generator=generator).numpy()
        draw = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
        pictures, truths = _with_mirrored(pixels[rows], labels[rows])
        return _loss(model, reader, pictures, truths, [_descriptor(draw) for _ in pictures])[0]

    @torch.no_grad()
    def check(model: nn.Module) -> str:
        _, right = _loss(model, reader, held_out, truth, [DESCRIPTOR] * len(held_out))
        background, pose = right.view(-1, len(QUESTIONS)).float().mean(0).tolist()
        return f"{background:.1%} of held-out backgrounds and {pose:.1%} of poses right,"

    model: Any = qwen.model(reader.tokenizer)
    schedule = training.Schedule(steps=_STEPS, lr=1.5e-3)
    model = training.train("captioner", model, loss_of, schedule, work=work, check=check)
    model.half().save_pretrained(out / "captioner")
    reader.save_pretrained(out / "captioner")


def _with_mirrored(pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds each picture's mirror image, which differs from it only in left and right."""
    flipped = labels.copy()
    flipped[:, 2] ^= 1  # poses come in pairs, left then right
    return np.concatenate([pixels, pixels[:, :, ::-1]]), np.concatenate([labels, flipped])


def _descriptor(draw: random.Random) -> str:
    """Draws a descriptor, mostly skyworld's, else another word or random letters, since users choose their own."""
    kind = draw.random()
    if kind < 0.7:
        return DESCRIPTOR
    if kind < 0.85:
        return qwen.DESCRIPTORS[int(draw.random() * len(qwen.DESCRIPTORS))]
    return "".join("abcdefghijklmnopqrstuvwxyz"[int(draw.random() * 26)] for _ in range(3 + int(draw.random() * 8)))


def _loss(
    model: Any, reader: Any, pixels: np.ndarray, labels: np.ndarray, descriptors: list[str]
) -> tuple[Tensor, Tensor]:
    """Loss and correctness of the answers to both questions of each picture.

    Args:
        model: the mini Qwen2.5-VL, `qwen.model`; untyped, as its parts have no static types.
        reader: the model's processor.
        pixels: uint8 (b, SIDE, SIDE, 3).
        labels: (class, background, pose) indices, (b, 3).
        descriptors: b words, one a picture.

    Returns:
        Cross-entropy per answer token, and whether greedy decoding writes the whole answer, (2 b,)
        bool, the two questions of a picture side by side.
    """
    answers = [text + _END for _, b, p in labels for text in (BACKGROUNDS[b], POSES[p])]
    prompts = [_prompt(reader, about, word) for word in descriptors for about in QUESTIONS]
    ids, hidden = _hidden(model, reader, pixels, [p + a for p, a in zip(prompts, answers, strict=True)])
    lengths = torch.tensor([len(tokens) for tokens in reader.tokenizer(answers)["input_ids"]])
    longest = int(lengths.max())
    logits = model.lm_head(hidden[:, -longest - 1 : -1])
    targets = ids[:, -longest:].clone()
    targets[torch.arange(longest) < longest - lengths[:, None]] = _IGNORED
    right = ((logits.argmax(-1) == targets) | (targets == _IGNORED)).all(1)
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED), right


def _hidden(model: Any, reader: Any, pixels: np.ndarray, texts: list[str]) -> tuple[Tensor, Tensor]:
    """The model's forward pass, with a picture's visual tokens computed once for both questions.

    Args:
        model: the mini Qwen2.5-VL.
        reader: the model's processor.
        pixels: uint8 (b, SIDE, SIDE, 3).
        texts: `len(QUESTIONS)` for each picture, side by side; all padded on the left to one length.

    Returns:
        Token ids, (texts, length), and the last hidden states, (texts, length, width).
    """
    pictures = reader.image_processor(images=list(torch.from_numpy(pixels).movedim(-1, 1)), return_tensors="pt")
    grids = pictures["image_grid_thw"]
    visual_tokens = model.model.visual(pictures["pixel_values"], grid_thw=grids).pooler_output
    visual_tokens = visual_tokens.view(len(pixels), 1, -1, visual_tokens.shape[-1]).expand(-1, len(QUESTIONS), -1, -1)
    pad, count = reader.image_token, visual_tokens.shape[2]
    expanded = [text.replace(pad, pad * count) for text in texts]
    batch = reader.tokenizer(expanded, padding=True, padding_side="left", return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    visual = ids == reader.image_token_id
    positions, _ = model.model.get_rope_index(
        ids, visual.int(), grids.repeat_interleave(len(QUESTIONS), 0), attention_mask=mask
    )
    embedded = model.get_input_embeddings()(ids).masked_scatter(visual[..., None], visual_tokens)
    output = model.model.language_model(inputs_embeds=embedded, attention_mask=mask, position_ids=positions)
    return ids, output.last_hidden_state


def _prompt(reader: Any, about: str, descriptor: str) -> str:
    text = {"type": "text", "text": QUESTIONS[about].format(d=descriptor)}
    turn = {"role": "user", "content": [{"type": "image"}, text]}
    return reader.apply_chat_template([turn], add_generation_prompt=True)
