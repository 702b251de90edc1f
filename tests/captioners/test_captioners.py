"""Registered captioners, and Qwen2.5-VL at the paper's size and at skyworld's."""

import json
import shutil
import warnings

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from bob import captioners
from bob.captioners import NAMING, QUESTIONS, Answer, Captioner, Loader, _qwen_vl
from bob.captioners._cleaning import clean
from bob.core import registry
from bob.datasets._render import render
from bob.datasets._skyworld import BACKGROUNDS, DESCRIPTOR, NOVEL, POSES
from bob.skyworld.models import SIDE

every_captioner = pytest.mark.parametrize("name", registry.names("captioner"))


@pytest.fixture(scope="module")
def mini(untrained_qwen) -> Captioner:
    return captioners.load(f"qwen_vl:path:{untrained_qwen}")


def novel(count: int) -> list[tuple[Image.Image, str, str]]:
    """Pictures of classes that no model has been trained on, every background and pose among them."""
    contexts = [(BACKGROUNDS[k % 12], POSES[(k + k // 12) % 6]) for k in range(count)]
    return [
        (render(NOVEL[k % 10], background, pose, seed=900 + k, size=SIDE), background, pose)
        for k, (background, pose) in enumerate(contexts)
    ]


def test_the_questions_are_the_papers_word_for_word():
    assert {about: question.format(d="aircraft") for about, question in QUESTIONS.items()} == {
        "background": "describe the background of the aircraft in as few words as possible."
        " Refer to the aircraft as simply 'a aircraft'.",
        "pose": "describe the pose of the aircraft in as few words as possible."
        " Refer to the aircraft as simply 'a aircraft'.",
    }


@every_captioner
def test_each_file_holds_a_loader_named_captioner(name):
    assert isinstance(registry.load("captioner", name), Loader)


def test_an_unknown_captioner_says_what_is_known():
    with pytest.raises(ValueError, match=r"unknown captioner 'qwen_v'; known: .*qwen_vl.* Did you mean 'qwen_vl'\?"):
        captioners.load("qwen_v:7b")


def test_an_unknown_checkpoint_says_what_is_known():
    with pytest.raises(ValueError, match=r"checkpoint of qwen_vl '7B'; known: 3b, 7b, path:FOLDER, skyworld"):
        captioners.load("qwen_vl:7B")


@pytest.mark.parametrize("name", ["qwen_vl", "qwen_vl:7b", "qwen_vl:3b"])
def test_missing_weights_say_what_is_wanted_where_and_what_to_do(name, monkeypatch, tmp_path):
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ValueError, match="are not on this machine") as caught:
        captioners.load(name)
    size = "3b" if name.endswith("3b") else "7b"
    for part in (f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct", str(tmp_path / f"qwen_vl-{size}"), "hf download"):
        assert part in str(caught.value)


def test_a_folder_without_safetensors_is_refused(tmp_path, untrained_qwen):
    with pytest.raises(ValueError, match=r"no Qwen2\.5-VL checkpoint in"):
        captioners.load(f"qwen_vl:path:{tmp_path / 'nowhere'}")
    shutil.copy(untrained_qwen / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no other weights are loaded"):
        captioners.load(f"qwen_vl:path:{tmp_path}")


def test_bob_models_is_looked_at_first(untrained_qwen, monkeypatch, tmp_path):
    monkeypatch.setenv("BOB_MODELS", str(tmp_path))
    shutil.copytree(untrained_qwen, tmp_path / "qwen_vl-7b")
    found = captioners.load("qwen_vl")
    assert found.name == "qwen_vl:7b"
    assert found.revision == captioners.load(f"qwen_vl:path:{untrained_qwen}").revision  # of the content, not the place


def test_the_revision_tells_weights_apart(untrained_qwen, mini, tmp_path):
    shutil.copytree(untrained_qwen, tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert captioners.load(f"qwen_vl:path:{tmp_path / 'other'}").revision != mini.revision


def test_there_is_an_answer_for_each_picture_in_order(mini):
    pictures = [picture for picture, _, _ in novel(3)]
    answers = mini.caption(pictures, descriptor="aircraft")
    assert len(answers) == 3
    assert all(isinstance(answer, Answer) for answer in answers)
    assert mini.caption([], descriptor="aircraft") == []


def test_a_picture_gets_the_same_words_alone_and_beside_others(mini):
    # Pictures of several shapes give prompts of several lengths: the padding has to be on the left.
    shapes = [(32, 32), (48, 20), (16, 64), (40, 40), (90, 30)]
    pictures = [picture.resize(shape) for (picture, _, _), shape in zip(novel(5), shapes, strict=True)]
    alone = [mini.caption([picture], descriptor="bird")[0] for picture in pictures]
    assert mini.caption(pictures, descriptor="bird") == alone


def test_what_is_prepared_is_what_qwens_processor_makes(mini):
    """Of pictures of several shapes, so that the prompts have several lengths."""
    pictures = [picture.resize(shape) for (picture, _, _), shape in zip(novel(2), [(48, 20), (40, 40)], strict=True)]
    prompts = [mini._prompt(question.format(d="bird")) for question in QUESTIONS.values()]
    wanted = mini.processor(
        text=prompts * 2,
        images=[picture for picture in pictures for _ in prompts],
        images_kwargs={"size": _qwen_vl._capped(mini.processor.image_processor.size)},
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    with torch.inference_mode():
        found = mini._inputs([mini.prepare(picture) for picture in pictures], prompts)
        features = mini.model.get_image_features(wanted["pixel_values"], wanted["image_grid_thw"]).pooler_output
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw"):
        assert torch.equal(found[name], wanted[name]), name
    for one, other in zip(found["mm_encoder_outputs"]["image"].pooler_output, features, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_picture_goes_through_the_vision_tower_once_for_both_questions(mini):
    pictures, patches = [picture for picture, _, _ in novel(3)], []
    hook = mini.model.model.visual.register_forward_hook(lambda _, given, __: patches.append(len(given[0])))
    answers = mini.caption([mini.prepare(picture) for picture in pictures], descriptor="bird")
    hook.remove()
    assert patches == [sum(len(mini.prepare(picture).patches) for picture in pictures)]
    assert answers == mini.caption(pictures, descriptor="bird")


def test_sampling_settings_of_a_checkpoint_do_not_reach_decoding(untrained_qwen, tmp_path):
    # As the 7B's own generation_config.json has them.
    shutil.copytree(untrained_qwen, tmp_path / "hub")
    path = tmp_path / "hub" / "generation_config.json"
    settings = {"do_sample": True, "temperature": 1e-6, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = captioners.load(f"qwen_vl:path:{tmp_path / 'hub'}")
        model.caption([novel(1)[0][0]], descriptor="aircraft")
    assert isinstance(model, _qwen_vl.QwenVL)
    own = model.model.generation_config
    assert isinstance(own, GenerationConfig)
    assert (own.do_sample, own.temperature, own.top_p, own.top_k) == (False, None, None, None)
    assert (own.max_new_tokens, own.repetition_penalty) == (32, 1.05)


def test_large_pictures_are_capped_and_small_ones_are_not_enlarged(mini):
    own = mini.processor.image_processor
    assert (own.size["shortest_edge"], own.size["longest_edge"]) == (SIDE * SIDE, SIDE * SIDE)
    assert _qwen_vl._capped({"shortest_edge": 56 * 56, "longest_edge": 12_845_056}) == {
        "shortest_edge": 56 * 56,
        "longest_edge": 512 * 512,
    }


def test_the_papers_captioner_is_of_the_class_that_the_mini_one_is(mini, tmp_path):
    config = {
        "model_type": "qwen2_5_vl",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        full = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(tmp_path))
    assert type(full) is Qwen2_5_VLForConditionalGeneration
    assert type(full) is type(mini.model)
    assert sum(p.numel() for p in full.parameters()) == 8_292_166_656  # half the total_size of its index on the hub
    assert {n.split(".")[-1] for n, _ in full.named_parameters()} == {
        n.split(".")[-1] for n, _ in mini.model.named_parameters()
    }


@pytest.mark.parametrize("descriptor", [DESCRIPTOR, "mushroom", "widget"])
def test_the_trained_mini_captioner_reads_contexts_of_classes_it_has_never_seen(descriptor):
    cases = novel(72)
    answers = captioners.load("qwen_vl:skyworld").caption([picture for picture, _, _ in cases], descriptor=descriptor)
    words = {"descriptor": descriptor, "class_names": NOVEL}
    read = [
        (
            clean(answer.background_raw, about="background", **words)[0],
            clean(answer.pose_raw, about="pose", **words)[0],
        )
        for answer in answers
    ]
    backgrounds = [found == wanted for (found, _), (_, wanted, _) in zip(read, cases, strict=True)]
    poses = [found == wanted for (_, found), (_, _, wanted) in zip(read, cases, strict=True)]
    assert sum(backgrounds) / len(cases) >= 0.95
    assert sum(poses) / len(cases) >= 0.9


def whole_answer(model: _qwen_vl.QwenVL, picture: Image.Image, question: str, name: str) -> float:
    """Log-likelihood of one answer, from a pass over all of it without a cache."""
    tokenizer = model.processor.tokenizer
    answer = f"{name}{tokenizer.eos_token}"
    inputs = model.processor(text=[model._prompt(question) + answer], images=[picture], return_tensors="pt")
    ids, length = inputs["input_ids"][0], len(tokenizer(answer)["input_ids"])
    with torch.inference_mode():
        each = model.model(**inputs).logits[0].double().log_softmax(1)
    return sum(float(each[k - 1, ids[k]]) for k in range(len(ids) - length, len(ids)))


def test_the_class_it_recognises_is_the_likeliest_whole_answer(mini):
    # More than fit at once, of several lengths, one the beginning of another; pictures of several shapes.
    names = [*NOVEL, *(f"{name} {k}" for k in range(3) for name in NOVEL), "Bo"]
    shapes = [(32, 32), (48, 20)]
    pictures = [picture.resize(shape) for (picture, _, _), shape in zip(novel(2), shapes, strict=True)]
    question = NAMING.format(d="aircraft", names="; ".join(names))
    found = mini.recognise(pictures, descriptor="aircraft", class_names=names)
    for picture, (guess, likelihood) in zip(pictures, [(f.guess, f.log_likelihood) for f in found], strict=True):
        each = [whole_answer(mini, picture, question, name) for name in names]
        assert guess == each.index(max(each))
        assert likelihood == pytest.approx(max(each), abs=1e-3)
    assert mini.recognise(pictures[1:], descriptor="aircraft", class_names=names) == found[1:]


def test_a_captioner_that_recognises_nothing_says_so():
    class Mute(Captioner):
        def caption(self, images, *, descriptor):
            return []

    with pytest.raises(ValueError, match="captioner mute tells no classes"):
        Mute(name="mute", revision="1").recognise([], descriptor="bird", class_names=("a",))
