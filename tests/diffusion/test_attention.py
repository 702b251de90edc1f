"""Attention while drawing: the prompts' keys and values once a batch, self-attention in one product."""

from typing import Any

import pytest
import torch
from safetensors.torch import save

from bob.diffusion import checkpoints, lora, sampling, textual_inversion
from bob.diffusion.attention import DrawingAttention
from tests.devices import actions

KINDS = actions.KINDS | {
    "text2img without guidance": {"guidance": 1.0},
    "circle without guidance": actions.KINDS["circle"] | {"guidance": 1.0},
}
TEXTS = {"circle": 3, "circle without guidance": 3}
"""Kinds of drawing with other than one text: that of the inversion, and those before and after the switch."""


def pipeline(adapter: dict[str, bytes]) -> Any:
    made = checkpoints.load("skyworld", device=torch.device("cpu"), dtype=torch.float32)
    if lora.FILE in adapter:
        lora.fuse(made, adapter[lora.FILE])
    if textual_inversion.FILE in adapter:
        textual_inversion.load(made, adapter[textual_inversion.FILE])
    return made


def latents(made: Any, kind: str, *, first: int = 0) -> torch.Tensor:
    names = ("Zephyr in the city skyline", f"Teal {actions.WORD.name} in the city skyline")
    asked = [actions.request(first + k, prompt=f"a {name}", **KINDS[kind]) for k, name in enumerate(names)]
    return sampling.latents(made, asked, sampling.Sources(made, actions.picture))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", ["", "both"])
def test_kept_keys_and_values_change_no_bit(kind, adapter):
    files = actions.adapters()[adapter]
    stock, ours = pipeline(files), pipeline(files)
    kept, calls = DrawingAttention(ours.unet), [0]
    layer = ours.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    layer.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    for first in (0, 2):
        calls[0] = 0
        assert torch.equal(latents(ours, kind, first=first), latents(stock, kind, first=first))
        assert calls[0] == TEXTS.get(kind, 1)
    kept.clear()
    assert all(processor.keys is None and processor.values is None for _, processor in kept._cross)


def test_weights_that_change_between_batches_are_seen_after_clear():
    stock, ours = pipeline({}), pipeline({})
    kept = DrawingAttention(ours.unet)
    text = torch.randn((2, 16, ours.unet.config.cross_attention_dim), generator=torch.Generator().manual_seed(0))
    noise = torch.zeros((2, 16, 8, 8))
    with torch.inference_mode():
        before = ours.unet(noise, 1, text).sample  # a position, where pipelines give a name
        assert torch.equal(before, stock.unet(noise, 1, encoder_hidden_states=text).sample)
        for made in (stock, ours):
            lora.fuse(made, actions.adapters()["LoRA"][lora.FILE])
        kept.clear()
        after = ours.unet(noise, 1, text).sample
        assert torch.equal(after, stock.unet(noise, 1, encoder_hidden_states=text).sample)
    assert not torch.allclose(before, after, atol=1e-3)


def test_one_product_for_queries_keys_and_values_follows_the_adapter():
    stock, ours = pipeline({}), pipeline({})
    clean = {name: tensor.clone() for name, tensor in ours.unet.state_dict().items()}
    DrawingAttention(ours.unet, fused=True)
    assert ours.unet.state_dict().keys() == clean.keys()
    layer = ours.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    layer.to_q.register_forward_pre_hook(lambda *_: pytest.fail("the layer's own projection is not used"))
    bare = latents(stock, "text2img")
    torch.testing.assert_close(latents(ours, "text2img"), bare, atol=1e-4, rtol=1e-4)
    lora.fuse(stock, actions.adapters()["LoRA"][lora.FILE])
    lora.fuse(ours, actions.adapters()["LoRA"][lora.FILE])
    tuned = latents(stock, "text2img", first=2)
    torch.testing.assert_close(latents(ours, "text2img", first=2), tuned, atol=1e-4, rtol=1e-4)
    ours.unet.load_state_dict(clean)
    torch.testing.assert_close(layer.processor.weight[: len(layer.to_q.weight)], layer.to_q.weight)
    assert torch.equal(layer.to_v.weight, clean["mid_block.attentions.0.transformer_blocks.0.attn1.to_v.weight"])


def test_an_adapter_of_another_network_is_refused_and_changes_nothing():
    made, other = pipeline({}), pipeline({})
    made.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q = torch.nn.Linear(96, 95, bias=False)
    wanted = {name: tensor.clone() for name, tensor in made.unet.state_dict().items()}
    with pytest.raises(ValueError, match=r"changes unet\.mid_block\S+to_q by 96 x 96 numbers, the checkpoint has 95 x"):
        lora.fuse(made, actions.adapters()["LoRA"][lora.FILE])
    assert all(torch.equal(wanted[name], tensor) for name, tensor in made.unet.state_dict().items())
    half = save({"unet.x.lora.down.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"is damaged: unet\.x wants the tensors down and up"):
        lora.fuse(other, half)
