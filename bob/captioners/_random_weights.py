"""Qwen2.5-VL of full size with random weights, in the files of the real ones: see `bob.diffusion.random_weights`."""

from pathlib import Path
from typing import Any

__all__ = ["ARCHITECTURES", "generation", "parts", "write"]

_PROCESSOR = Path(__file__).parents[1] / "skyworld" / "weights" / "captioner"

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "7b": {
        "text": {
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152_064,
        },
        "tie_word_embeddings": False,
    },
    "3b": {
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
        },
        "tie_word_embeddings": True,
    },
}
"""Checkpoint of `qwen_vl` -> what distinguishes its language model; the vision tower is the same for both."""

_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_ROPE = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
_LIMITS = {"shortest_edge": 56 * 56, "longest_edge": 16_384 * 28 * 28}  # pixels, despite the names


def parts(argument: str) -> tuple[Any, Any]:
    """Configuration and processor of an architecture: skyworld's tokenizer, whose ids are below 500, Qwen's pictures.

    Args:
        argument: one of `ARCHITECTURES`.
    """
    from transformers import AutoProcessor, Qwen2_5_VLConfig

    processor: Any = AutoProcessor.from_pretrained(_PROCESSOR, local_files_only=True)
    for part in (processor.image_processor, processor.video_processor):
        part.patch_size, part.size = _VISION["patch_size"], dict(_LIMITS)
    ids = _specials(processor)
    shape = ARCHITECTURES[argument]
    config = Qwen2_5_VLConfig(
        text_config={**shape["text"], "rope_parameters": _ROPE, "max_position_embeddings": 128_000, **_ends(ids)},
        vision_config={**_VISION, "out_hidden_size": shape["text"]["hidden_size"]},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=shape["tie_word_embeddings"],
        dtype="bfloat16",
    )
    return config, processor


def generation(processor: Any) -> Any:
    """Tokens that begin and end an answer, as `GenerationConfig` has them."""
    from transformers import GenerationConfig

    ids = _specials(processor)
    return GenerationConfig(**{**_ends(ids), "eos_token_id": [ids["im_end"], ids["endoftext"]]})


def write(argument: str, folder: Path, *, device: str = "cpu") -> None:
    """Writes a Qwen2.5-VL with random weights in bfloat16.

    Such a model does not end its answers, so that each has the most tokens there may be, 32.

    Args:
        argument: one of `ARCHITECTURES`.
        folder: folder to make; 16.6 GB for `7b`.
        device: device on which the weights are drawn; a GPU needs seconds for what a CPU needs minutes for.
    """
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    config, processor = parts(argument)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # else 7B parameters would take 30 GB in passing
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config = generation(processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _specials(processor: Any) -> dict[str, int]:
    names = ("endoftext", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
    return {name: processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}


def _ends(ids: dict[str, int]) -> dict[str, int]:
    return {"bos_token_id": ids["endoftext"], "eos_token_id": ids["im_end"], "pad_token_id": ids["endoftext"]}
