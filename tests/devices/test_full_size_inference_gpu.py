"""Networks at full size that nothing trains, on a GPU without numbers: adapters, CLIP filter, captions, features."""

from typing import Any

import pytest
import torch

from bob.classifier.embedder import Embedder
from bob.core.types import Filter
from bob.diffusion import checkpoints, clip_filter, lora, textual_inversion
from bob.diffusion.image_generator import ImageGenerator
from tests.devices import actions, checks, full_size

slow = pytest.mark.slow


class Passes:
    """What a network is given and gives: of each pass the shapes of its tensors on the GPU, by dtype."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.given: list[tuple[torch.dtype, tuple[int, ...]]] = []
        self.gives: list[tuple[torch.dtype, tuple[int, ...]]] = []
        network.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, network: Any, args: tuple[Any, ...], named: dict[str, Any], returned: Any) -> None:
        for found, seen in ((self.given, (args, named)), (self.gives, returned)):
            for tensor in _tensors(seen):
                assert tensor.is_cuda
                found.append((tensor.dtype, tuple(tensor.shape)))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def adapters(name: str) -> dict[str, dict[str, bytes]]:
    """Files of that checkpoint's adapters with LoRA, with a word, with both, and with neither."""
    pipeline, word = full_size.pipeline(name, torch.float32), actions.WORD
    lora.add(pipeline.unet, pipeline.text_encoder, rank=2)
    branches = {lora.FILE: lora.serialize(pipeline.unet, pipeline.text_encoder)}
    textual_inversion.add(pipeline, (word,))
    words = {textual_inversion.FILE: textual_inversion.serialize(pipeline, (word,))}
    return {"": {}, "LoRA": branches, "words": words, "both": branches | words}


@pytest.mark.parametrize("name", ["sd15", pytest.param("sd21", marks=slow)])
def test_adapters_are_swapped(numberless_gpu, monkeypatch, name):
    """The weights are copied to the CPU once, when they are loaded; a swap waits for nothing."""
    gpu, files, width = numberless_gpu, adapters(name), full_size.WIDTH[name]
    monkeypatch.setattr(checkpoints, "load", lambda name, *, device, dtype: full_size.pipeline(name, dtype))
    generator, shapes = ImageGenerator("cuda"), {}
    for k, what in enumerate(("", "LoRA", "words", "both", "")):
        gpu.waits.clear()
        generator.use(name, what, lambda what=what: files[what])
        unet, text = generator._tuned()
        held = [tensor for part in generator._clean for tensor in part.values()]
        gpu.require({} if k else {"_copy": len(held)})
        assert checks.on_gpu(generator), what
        shapes[what] = {key: tuple(x.shape) for part in (unet, text) for key, x in part.state_dict().items()}
        rows = len(generator._pipeline.tokenizer)
        assert text.get_input_embeddings().weight.shape == (rows, width)
    words, more = len(full_size.models.clip_tokenizer()), actions.WORD.vectors
    table = "embeddings.token_embedding.weight"
    assert {what: found.pop(table)[0] for what, found in shapes.items()} == {
        "": words,
        "LoRA": words,
        "words": words + more,
        "both": words + more,
    }
    assert shapes[""] == shapes["LoRA"] == shapes["words"] == shapes["both"]


@slow
@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_a_generator_draws_with_an_adapter(numberless_gpu, monkeypatch, name):
    """Zeros are read, also for what is finite: the generator rejects the pictures."""
    files = adapters(name)
    monkeypatch.setattr(checkpoints, "load", lambda name, *, device, dtype: full_size.pipeline(name, dtype))
    generator = ImageGenerator("cuda")
    generator.use(name, "both", lambda: files["both"])
    seen = full_size.Seen(generator._pipeline.unet)
    text = Passes(generator._pipeline.text_encoder)
    numberless_gpu.waits.clear()
    requests = [actions.request(k, prompt=f"a {actions.WORD.name} aircraft", steps=1) for k in range(2)]
    rows, rejected = generator.draw(requests, batch=2)
    numberless_gpu.require(checks.BATCH)
    assert rows == []
    assert ["not finite" in row["message"] for row in rejected] == [True, True]
    assert seen.shapes == {((4, 64, 64), (77, full_size.WIDTH[name]))}
    assert seen.dtypes == {torch.float16}
    assert (torch.int64, (2, 77)) in text.given
    assert {dtype for dtype, _ in text.gives} == {torch.float16}


def test_the_clip_filter_scores(numberless_gpu, monkeypatch):
    full_size.clip_without_weights(monkeypatch, patch_size=32)
    scorer = clip_filter.ClipScorer("sd15", torch.device("cuda"))
    assert all(tensor.is_cuda for tensor in scorer._clip.state_dict().values())
    vision, text = Passes(scorer._clip.vision_model), Passes(scorer._clip.text_model)
    rule, pictures = Filter(texts=("a photo of a Zephyr", "a boat"), own=True), [actions.picture(k) for k in "abc"]
    numberless_gpu.waits.clear()
    assert scorer.scores(pictures, rule, [0, 1, 0]) == [0, 0, 0]
    numberless_gpu.require({"ClipScorer._encoded": 2, "ClipScorer.scores": 1})
    numberless_gpu.waits.clear()
    assert len(scorer.scores(pictures[:1], rule, [1])) == 1
    numberless_gpu.require({"ClipScorer.scores": 1})
    assert vision.given == [(torch.float32, (3, 3, 224, 224)), (torch.float32, (1, 3, 224, 224))]
    assert vision.gives[-1] == (torch.float32, (1, 768))
    assert text.gives[-1] == (torch.float32, (2, 512))


@pytest.mark.parametrize(
    ("name", "first", "width"),
    [("resnet50", "conv1", 2048), ("mae_vit_b16", "patch_embed", 768), ("clip_vit_b16", "clip.vision_model", 512)],
)
def test_features_are_extracted(numberless_gpu, monkeypatch, name, first, width):
    full_size.backbones_without_weights(monkeypatch)
    embedder = Embedder(name, device="cuda")
    embedder.load()
    assert all(parameter.is_cuda for parameter in embedder._model.parameters())
    seen = Passes(embedder._model.get_submodule(first))
    numberless_gpu.waits.clear()
    rows, rejected = embedder("abc", [0, 1, 2], lambda k: actions.picture("abc"[k]))
    numberless_gpu.require({"Embedder._features": 1})
    assert rejected == []
    assert [(row["features"].dtype, row["features"].shape) for row in rows] == [("float32", (width,))] * 3
    assert seen.given == [(torch.float32, (3, 3, 224, 224))]


@pytest.fixture
def captioner(numberless_gpu, monkeypatch, tmp_path) -> Any:
    """Qwen2.5-VL-7B whose answers have three tokens."""
    made = full_size.captioner(monkeypatch, tmp_path)
    made.model.generation_config.max_new_tokens = 3
    # Zero is read where a token is compared with the end's, and where is asked whether all answers have ended.
    made.model.generation_config.eos_token_id = None
    assert all(tensor.is_cuda for tensor in made.model.state_dict().values())
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.bfloat16}
    return made


def test_captions(numberless_gpu, captioner):
    """Each picture of 512 x 512 pixels goes through the vision tower once, and gives 324 tokens to either question."""
    network = captioner.model.model
    tower, decoder, head = (Passes(part) for part in (network.visual, network.language_model, captioner.model.lm_head))
    numberless_gpu.waits.clear()
    answers = captioner.caption([actions.picture("a").resize((512, 512))], descriptor="aircraft")
    assert len(answers) == 1
    numberless_gpu.waits = [wait for wait in numberless_gpu.waits if not wait.library]
    numberless_gpu.require({})
    assert tower.given == [(torch.bfloat16, (1296, 1176)), (torch.int64, (1, 3))]
    assert tower.gives[-1] == (torch.bfloat16, (324, 3584))
    embedded = [shape for dtype, shape in decoder.given if dtype == torch.bfloat16]
    assert [len(shape) for shape in embedded] == [3, 3, 3]
    assert [shape[1] > 324 for shape in embedded] == [True, False, False]
    assert {shape for dtype, shape in decoder.given if dtype != torch.bfloat16} == {
        (4, 2, shape[1]) for shape in embedded
    }
    assert head.gives == [(torch.bfloat16, (2, 1, 152_064))] * 3


def test_classes_are_recognised(numberless_gpu, captioner):
    """The picture and the question once, then the names in two groups."""
    head, names = Passes(captioner.model.lm_head), [f"aircraft {k}" for k in range(40)]
    numberless_gpu.waits.clear()
    (found,) = captioner.recognise([actions.picture("a").resize((512, 512))], descriptor="aircraft", class_names=names)
    assert found.guess == 0
    numberless_gpu.waits = [wait for wait in numberless_gpu.waits if not wait.library]
    numberless_gpu.require({"QwenVL._likeliest": 3})
    assert {dtype for dtype, _ in head.gives} == {torch.bfloat16}
    assert [shape[0] for _, shape in head.gives] == [1, 32, 8]
