"""Backbones of full size with random weights, in the files of the real ones: see `bob.diffusion.random_weights`."""

from pathlib import Path

from bob.backbones import Backbone

__all__ = ["write"]

_TOKENIZER = Path(__file__).parents[1] / "skyworld" / "weights" / "clip"
_TIMM = {"resnet50": "resnet50.tv_in1k", "mae_vit_b16": "vit_base_patch16_224.mae"}
"""Backbone -> timm's name of its weights; MAE as published, without a head."""


def write(backbone: Backbone, folder: Path) -> None:
    """Writes a backbone's weights, in float16, which takes half the space.

    Args:
        backbone: `clip_vit_b16`, `resnet50`, `mae_vit_b16` or `timm:MODEL`.
        folder: folder to make, as `$BOB_MODELS` holds one for each backbone.

    Raises:
        ValueError: for another backbone, whose architecture only its files tell.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        if backbone.name == "clip_vit_b16":
            _write_clip(folder)
        elif model := _TIMM.get(backbone.name) or _timm_model(backbone):
            _write_timm(model, folder)
        else:
            raise ValueError(f"the architecture of {backbone.name} is in its files only, which are not on this machine")


def _timm_model(backbone: Backbone) -> str:
    """timm's name of `timm:MODEL` or `timm:MODEL@COMMIT`; empty for another backbone."""
    return backbone.name.removesuffix(f"@{backbone.commit}").partition("timm:")[2]


def _write_clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(_TOKENIZER, model_max_length=77)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    CLIPModel(CLIPConfig(text_config=ends, vision_config={"patch_size": 16})).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_timm(model: str, folder: Path) -> None:
    import timm
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    state = timm.create_model(model, pretrained=False).state_dict()
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
