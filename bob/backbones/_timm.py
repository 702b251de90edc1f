"""Helpers of the timm backbones: weights (safetensors only), fresh heads, layer decay, small ResNets."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["find", "fresh_head", "layer_groups", "small_resnet"]

_FILE = "model.safetensors"


def find(name: str, *, hub: str = "", commit: str = "", packaged: Path | None = None) -> Path:
    """The weights of the backbone `name`: `$BOB_MODELS/NAME/model.safetensors` if that exists.

    Args:
        name: name of the backbone and of its folder, where colons and slashes become dashes.
        hub: repository on the Hugging Face hub to search last.
        commit: revision of `hub`.
        packaged: folder inside this package to search second.

    Raises:
        ValueError: if none of these has the weights; says which places were searched and what to do.
    """
    folders = [packaged] if packaged else []
    folder_name = name.removesuffix(f"@{commit}").replace(":", "-").replace("/", "-")
    if root := os.environ.get("BOB_MODELS"):
        folders.insert(0, Path(root) / folder_name)
    for folder in folders:
        if (folder / _FILE).exists():
            return folder / _FILE
    why = ""
    if hub:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

        try:
            return Path(hf_hub_download(hub, _FILE, revision=commit))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            why = f" ({type(error).__name__})"
    searched = [*(str(folder / _FILE) for folder in folders), *([f"huggingface.co/{hub}{why}"] if hub else [])]
    raise ValueError(
        f"wanted the weights of {name}, found none in: {', '.join(searched)}. Set BOB_MODELS to a folder that"
        f" holds {folder_name}/{_FILE}" + (f", or go online once, so that {hub} is cached" if hub else "")
    )


def fresh_head(
    model: "nn.Module", weights: Path, *, head: str = "fc", std: float = 0.01, norm: tuple[str, str] = ("", "")
) -> "nn.Module":
    """Loads `model` from a file, except its linear layer `head`, which is drawn from N(0, std).

    Args:
        model: a model of timm.
        weights: a safetensors file.
        head: name of the linear layer.
        std: standard deviation of the head's weights; its bias is zero.
        norm: names of a layer norm in the file only and of its fresh replacement in the model (a ViT that is
            pre-trained with one pooling and tuned with another); empty for none.

    Raises:
        ValueError: if the file lacks a tensor of the model, or has one of another shape or name.
    """
    from safetensors.torch import load_file
    from torch import nn

    skipped, fresh = (tuple(f"{layer}." for layer in (*layers, head) if layer) for layers in ((norm[0],), (norm[1],)))
    state = {k: v.float() for k, v in load_file(weights).items() if not k.startswith(skipped)}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {type(model).__name__}: {error}") from error
    missing = [k for k in missing if not k.startswith(fresh)]
    if missing or unexpected:
        raise ValueError(f"{weights} does not fit {type(model).__name__}: lacks {missing}, has also {unexpected}")
    layer = model.get_submodule(head)
    assert isinstance(layer, nn.Linear)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return model


def layer_groups(model: Any, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """timm's AdamW groups with `lr_scale` = layer_decay ** (layers above), as in MAE's fine-tuning.

    The scale is 1 for the head, layer_decay for the last block ... Norms, biases, class token and position embeddings
    have no weight decay.
    """
    from timm.optim import param_groups_layer_decay

    return param_groups_layer_decay(
        model,
        weight_decay=weight_decay,
        no_weight_decay_list=model.no_weight_decay() if hasattr(model, "no_weight_decay") else (),
        layer_decay=layer_decay,
    )


def small_resnet(
    classes: int, *, layers: tuple[int, ...], channels: tuple[int, ...], strides: tuple[int, int, int]
) -> "nn.Module":
    """timm's ResNet of basic blocks for 32 px, with random weights.

    Args:
        classes: width of the linear layer `fc`; 0 for none, then the model returns features.
        layers: blocks of each stage.
        channels: channels of each stage.
        strides: strides of the stem's three convolutions. No pooling follows: wings and fins of a
            32 px aircraft are two pixels wide.
    """
    import timm
    from torch import nn

    model = timm.create_model(
        "resnet18", layers=layers, channels=channels, stem_type="deep", stem_width=16, num_classes=classes
    )
    for name, stride in zip(("conv1.0", "conv1.3", "conv1.6"), strides, strict=True):
        convolution = model.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (stride, stride)
    model.maxpool = nn.Identity()
    return model
