"""Untrained mini models of skyworld: the architectures of the real checkpoints in small sizes.

The class that loads the full-size checkpoint builds each model, so code that runs on skyworld runs on SD 1.5,
Qwen2.5-VL, ResNet-50, CLIP and MAE. Imports torch; the trained weights do not need this module.
"""

from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bob.skyworld.captions import corpus

__all__ = ["SIDE", "TOKENS", "clip", "clip_tokenizer", "text_encoder", "unet", "vae"]

SIDE = 32
"""Side of the mini models' pictures in pixels."""
TOKENS = 40
"""Length of a prompt in tokens; SD's 77 would only make the cross-attention slower."""

_TEXT_WIDTH = 96
_LATENT_CHANNELS = 16


def vae() -> AutoencoderKL:
    """Autoencoder, f4 with 16 latent channels: with 4 the wings and fins of a 32 px aircraft do not survive.

    The last convolution of every residual branch starts at zero, so the untrained network is
    close to a linear one: 1 dB better than the default after the same 1,000 steps.
    """
    blocks: dict[str, Any] = {  # diffusers types each of these as a tuple of one
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (16, 32, 64),
    }
    model = AutoencoderKL(
        **blocks,
        layers_per_block=1,
        latent_channels=_LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    for name, parameter in model.named_parameters():
        if ".resnets." in name and ".conv2." in name:
            nn.init.zeros_(parameter)
    return model


def unet() -> UNet2DConditionModel:
    """U-Net of 2.8 M parameters on 8x8 latents, with cross-attention in both blocks."""
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 96),
        layers_per_block=1,
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def text_encoder(tokenizer: Any) -> CLIPTextModel:
    """Text encoder with three layers of width 96."""
    return CLIPTextModel(CLIPTextConfig(**_text(tokenizer)))


def clip(tokenizer: Any) -> CLIPModel:
    """CLIP: the text encoder, and the ViT of the mini MAE, four layers of width 96 on patches of 4 px."""
    vision = {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": SIDE,
        "patch_size": 4,
        "hidden_size": _TEXT_WIDTH,
        "intermediate_size": 4 * _TEXT_WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    return CLIPModel(CLIPConfig(text_config=_text(tokenizer), vision_config=vision, projection_dim=64))


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": _TEXT_WIDTH,
        "intermediate_size": 4 * _TEXT_WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def clip_tokenizer() -> Any:
    """CLIP's byte-level BPE, its merges learnt from the base world only.

    Names of base classes become one token each; a novel name falls into pieces, like a name that is new to CLIP.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=1, show_progress=False, end_of_word_suffix="</w>")
    bpe.train_from_iterator(corpus(), trainer)
    merges: Any = [tuple(merge) for merge in _merges(bpe)]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(a + b for a, b in merges)]
    vocabulary = {token: k for k, token in enumerate(dict.fromkeys(tokens))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def _merges(bpe: Tokenizer) -> list[list[str]]:
    import json

    return [m if isinstance(m, list) else m.split(" ") for m in json.loads(bpe.to_str())["model"]["merges"]]
