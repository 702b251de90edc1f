"""Qwen2.5-VL-7B with all its layers and next to no width, to measure the host work of captions.

The number of operations follows from depth, picture size and tokens, not from the width. Unlike meta tensors, a narrow
model has numbers, of which the language model's positions and the vision tower's windows are made; what a CPU computes
with them is a few percent of the time.
"""

from typing import Any

import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from benchmarks.counting.meter import Meter, picture
from bob.captioners import _random_weights as qwen
from bob.captioners._qwen_vl import QwenVL

__all__ = ["PICTURES", "TOKENS", "caption"]

PICTURES, TOKENS = 16, 12
"""Pictures of a batch, each with two questions, and tokens of each answer."""
_SIDE = 512  # pixels


def caption(meter: Meter, steps: int) -> None:
    """Asks both questions of a batch of pictures."""
    captioner = _captioner(meter.device)
    pictures = [picture(k, _SIDE, _SIDE) for k in range(PICTURES)]
    meter.activity("processor", type(captioner.processor), "__call__")
    meter.activity("vision tower", captioner.model.model.visual, "forward")
    meter.activity("language model", captioner.model.model.language_model, "forward")
    meter.tick()
    for _ in range(steps):
        captioner.caption(pictures, descriptor="aircraft")
        meter.tick()


def _captioner(device: str) -> QwenVL:
    config, processor = qwen.parts("7b")
    narrow = {"hidden_size": 32, "intermediate_size": 32}
    text = {"num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": None, "vocab_size": 1024}
    rope = {**config.text_config.rope_parameters, "mrope_section": [2, 3, 3]}
    config.text_config.update(narrow | text | {"rope_parameters": rope})
    config.vision_config.update(narrow | {"num_heads": 1, "out_hidden_size": 32})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    # Without an end token, so that each answer has all its tokens.
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=TOKENS, repetition_penalty=1.05, pad_token_id=config.text_config.pad_token_id
    )
    model = torch.nn.Module.to(model, device).eval()
    return QwenVL(name="qwen_vl:7b", revision="", model=model, processor=processor)
