"""Skyworld's untrained mini Qwen2.5-VL: the real model's classes and file formats in a small size."""

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from bob.captioners import QUESTIONS
from bob.datasets._skyworld import BACKGROUNDS, DESCRIPTOR, POSES
from bob.skyworld.models import SIDE

__all__ = ["DESCRIPTORS", "model", "processor"]

DESCRIPTORS = (
    *("bird", "car", "pet", "flower", "mushroom", "dog", "cat", "insect", "butterfly", "fish", "tree"),
    *("plane", "airplane", "ship", "boat", "train", "truck", "bike", "food", "dish", "fruit", "plant"),
    *("leaf", "shell", "stone", "coin", "building", "house", "tool", "toy", "shoe", "animal", "object"),
)
"""Descriptors in the questions of the training, beside `_skyworld.DESCRIPTOR`."""

_WIDTH = 96
_SPREAD = 0.08
"""Standard deviation of the initial weights. With Qwen's 0.02, made for widths of thousands, these layers hardly add
to the residual stream: after 1,000 steps left and right were still told apart no better than by chance."""
_VISION = {
    "depth": 3,
    "initializer_range": _SPREAD,
    "hidden_size": _WIDTH,
    "intermediate_size": 2 * _WIDTH,
    "num_heads": 4,
    "patch_size": 4,
    "window_size": 16,
    "fullatt_block_indexes": [1, 2],
    "out_hidden_size": _WIDTH,
}
_SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
_CHAT = """\
{%- for message in messages %}
{%- if loop.first and message.role != 'system' %}
{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{%- for item in message.content %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' if item.type == 'image' else item.text }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}"""


def processor() -> Qwen2_5_VLProcessor:
    """Returns Qwen's processor for pictures of `SIDE` x `SIDE`: 8x8 patches, 16 visual tokens."""
    shape: dict[str, Any] = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}  # pixels, despite the names
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **shape),
        tokenizer=_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(size=size, **shape),
        chat_template=_CHAT,
    )


def model(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Returns an untrained model of 0.9 M parameters: three vision layers and three text layers of width 96."""
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIALS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "initializer_range": _SPREAD,
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 4, 4]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config=_VISION,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    config.initializer_range = _SPREAD
    untrained = Qwen2_5_VLForConditionalGeneration(config)
    untrained.generation_config = GenerationConfig(
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    return untrained


def _tokenizer() -> Qwen2Tokenizer:
    """Returns Qwen's byte-level BPE, with merges learnt from the questions and answers of skyworld.

    An unknown descriptor falls into pieces, single bytes at the smallest.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=1, show_progress=False, initial_alphabet=alphabet)
    bpe.train_from_iterator(_corpus(), trainer)
    tokenizer = Qwen2Tokenizer(
        vocab=bpe.get_vocab(),
        merges=_merges(bpe),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        padding_side="left",
        model_max_length=512,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIALS)})
    return tokenizer


def _corpus() -> Iterator[str]:
    yield "system\nYou are a helpful assistant.\nuser\nassistant\n"
    for question in QUESTIONS.values():
        yield question.format(d=DESCRIPTOR)
    yield from BACKGROUNDS
    yield from POSES


def _merges(bpe: Tokenizer) -> list[Any]:
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in merges]
