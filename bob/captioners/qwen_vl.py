"""Qwen2.5-VL, the paper's captioner (sec. 3.1): 7B as published, 3B (Figure 5), or skyworld's mini one.

    qwen_vl  qwen_vl:7b  qwen_vl:3b  qwen_vl:skyworld  qwen_vl:path:FOLDER

All run the same lines. 7B takes 17 GB of a GPU in bfloat16, and then some for its activations.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

import huggingface_hub
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoProcessor, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from bob.captioners import NAMING, QUESTIONS, Answer, Captioner, Loader, Recognition
from bob.core import registry
from bob.store.keys import fingerprint

__all__ = ["CHECKPOINTS", "Checkpoint", "QwenVL", "captioner", "weights"]


class Checkpoint(NamedTuple):
    """Where a checkpoint comes from."""

    hub_id: str
    revision: str
    """Commit of the repository on the hub."""
    licence: str


CHECKPOINTS = {
    "7b": Checkpoint("Qwen/Qwen2.5-VL-7B-Instruct", "cc594898137f460bfe9f0759e9844b3ce807cfb5", "Apache-2.0"),
    "3b": Checkpoint(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "66285546d2b821cf421d4f5eb2576359d3770cd3",
        "Qwen Research License (no commercial use)",
    ),
}
"""Short name -> origin; `$BOB_MODELS/qwen_vl-7b` is looked at before the cache of the hub."""

_MAX_PIXELS = 512 * 512  # 324 visual tokens; the hub's own limit is 16,384, for pages of text
_MAX_NEW_TOKENS = 32
_BATCH = 16  # pictures; twice as many sequences
_NAMES = 32  # sequences at once, each with the 1,000 tokens of a picture and a hundred names before it


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class QwenVL(Captioner):
    """A loaded Qwen2.5-VL that answers greedily, so that the same picture gets the same words."""

    model: Any = field(repr=False)
    """`Qwen2_5_VLForConditionalGeneration`; like the processor it has no usable static type."""
    processor: Any = field(repr=False)
    """`Qwen2_5_VLProcessor`."""

    def caption(self, images: Sequence[Image.Image], *, descriptor: str) -> list[Answer]:
        """Asks both questions of each picture.

        Source: Yang et al. 2025, arXiv:2510.24078, sec. 3.1 for the words; that it decodes greedily
        is ours, the paper names no temperature.

        Raises:
            ValueError: if a picture is more than 200 times as long as it is wide.
        """
        batches = (images[k : k + _BATCH] for k in range(0, len(images), _BATCH))
        return [answer for some in batches for answer in self._ask(some, descriptor)]

    @torch.inference_mode()
    def _ask(self, images: Sequence[Image.Image], descriptor: str) -> list[Answer]:
        prompts = [self._prompt(question.format(d=descriptor)) for question in QUESTIONS.values()]
        inputs = self.processor(
            text=prompts * len(images),
            images=[image for image in images for _ in prompts],
            images_kwargs={"size": _capped(self.processor.image_processor.size)},
            padding=True,
            padding_side="left",  # a decoder goes on from the last token, which must not be padding
            return_tensors="pt",
        ).to(self.model.device)
        written = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(written, skip_special_tokens=True)
        return [
            Answer(background_raw=background, pose_raw=pose)
            for background, pose in zip(texts[::2], texts[1::2], strict=True)
        ]

    @torch.inference_mode()
    def recognise(
        self, images: Sequence[Image.Image], *, descriptor: str, class_names: Sequence[str]
    ) -> list[Recognition]:
        """The name that is most likely to be the whole answer, its end included; no name is favoured for its length.

        A picture and the question are read once: every name goes on from the same keys and values.

        Raises:
            ValueError: if a picture is more than 200 times as long as it is wide.
        """
        tokenizer = self.processor.tokenizer
        names = [[*tokenizer(name)["input_ids"], tokenizer.eos_token_id] for name in class_names]
        prompt = self._prompt(NAMING.format(d=descriptor, names="; ".join(class_names)))
        return [self._likeliest(image, prompt, names) for image in images]

    def _likeliest(self, image: Image.Image, prompt: str, names: Sequence[Sequence[int]]) -> Recognition:
        inputs = self.processor(
            text=[prompt],
            images=[image],
            images_kwargs={"size": _capped(self.processor.image_processor.size)},
            return_tensors="pt",
        ).to(self.model.device)
        read = self.model(**inputs, use_cache=True, logits_to_keep=1)
        # Positions of a picture's tokens are those of a grid: text goes on earlier than their number says.
        begin = int(inputs["input_ids"].shape[1] + self.model.model.rope_deltas)
        parts = [self._likelihoods(read, names[k : k + _NAMES], begin) for k in range(0, len(names), _NAMES)]
        best = torch.cat(parts).max(0)
        return Recognition(guess=int(best.indices), log_likelihood=float(best.values))

    def _likelihoods(self, read: Any, names: Sequence[Sequence[int]], begin: int) -> torch.Tensor:
        """float32 (names,): log-likelihood of each after what has been read, in nats."""
        tokens = pad_sequence([torch.tensor(name) for name in names], batch_first=True).to(self.model.device)
        lengths = torch.tensor([len(name) for name in names], device=tokens.device)
        cache = copy.deepcopy(read.past_key_values)  # it grows
        cache.batch_repeat_interleave(len(names))
        positions = torch.arange(begin, begin + tokens.shape[1] - 1, device=tokens.device)
        # Attention looks back only, so what fills up the shorter names on their right changes nothing.
        written = self.model(
            input_ids=tokens[:, :-1],
            past_key_values=cache,
            position_ids=positions.expand(3, len(names), -1),
        )
        logits = torch.cat([read.logits[:, -1:].expand(len(names), -1, -1), written.logits], 1).float()
        each = logits.log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
        return each.where(torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None], 0).sum(1)

    def _prompt(self, question: str) -> str:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True)


def _load(argument: str, device: str) -> QwenVL:
    """Loads one checkpoint: bfloat16 on a GPU, float32 on a CPU.

    Args:
        argument: `7b` (also if empty), `3b`, `skyworld` or `path:FOLDER`.
        device: as torch names it.

    Raises:
        ValueError: if the argument is another, or the weights are not on this machine: nothing is
            fetched here, for every worker of a cluster would.
    """
    argument = argument or "7b"
    folder = weights(argument)
    model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder,
        dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32,
        use_safetensors=True,
        local_files_only=True,
    )
    model.generation_config = _greedy(model.generation_config)
    return QwenVL(
        name=f"qwen_vl:{argument}",
        revision=fingerprint(folder),
        model=model.to(device).eval(),
        processor=AutoProcessor.from_pretrained(folder, local_files_only=True),
    )


def _revision(argument: str) -> str:
    """The commit of a checkpoint on the hub; of a folder, a fingerprint of its files."""
    argument = argument or "7b"
    return CHECKPOINTS[argument].revision if argument in CHECKPOINTS else fingerprint(weights(argument))


def _capped(own: Mapping[str, int]) -> dict[str, int]:
    """The checkpoint's limits on the pixels of a picture, for that is what Qwen's "edges" count."""
    return {edge: min(own[edge], _MAX_PIXELS) for edge in ("shortest_edge", "longest_edge")}


def _greedy(own: GenerationConfig) -> GenerationConfig:
    """The checkpoint's tokens and repetition penalty (1.05 on the hub), none of its sampling."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=_MAX_NEW_TOKENS,
        repetition_penalty=own.repetition_penalty,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )


def weights(argument: str) -> Path:
    """The folder on this machine that holds a checkpoint.

    Raises:
        ValueError: if there is none; says where it was looked for and what to do.
    """
    if argument == "skyworld":
        folder = Path(__file__).parents[1] / "skyworld" / "weights" / "captioner"
        return _checked(folder, "it is part of the package, install that again")
    if argument.startswith("path:"):
        return _checked(Path(argument.removeprefix("path:")), "name the folder that holds config.json")
    if argument not in CHECKPOINTS:
        raise ValueError(registry.unknown("checkpoint of qwen_vl", argument, [*CHECKPOINTS, "skyworld", "path:FOLDER"]))
    origin, models = CHECKPOINTS[argument], os.environ.get("BOB_MODELS")
    if models and (folder := Path(models) / f"qwen_vl-{argument}").is_dir():
        return _checked(folder, f"put all files of {origin.hub_id} there")
    command = f"hf download {origin.hub_id} --revision {origin.revision}"
    try:
        cached = huggingface_hub.snapshot_download(origin.hub_id, revision=origin.revision, local_files_only=True)
        return _checked(Path(cached), f"finish the download: {command}")
    except LocalEntryNotFoundError as error:
        first = f"{Path(models) / f'qwen_vl-{argument}'}, then in " if models else ""
        raise ValueError(
            f"the weights of captioner qwen_vl:{argument} ({origin.hub_id}, {origin.licence}) are not on this machine:"
            f" looked in {first}the Hugging Face cache. Run `{command}`,"
            f" or put the files into $BOB_MODELS/qwen_vl-{argument}, or name their folder: qwen_vl:path:FOLDER."
            " Without a GPU, qwen_vl:skyworld runs the data set skyworld."
        ) from error


def _checked(folder: Path, advice: str) -> Path:
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return folder
    raise ValueError(
        f"no Qwen2.5-VL checkpoint in {folder}: wanted config.json and *.safetensors (no other weights"
        f" are loaded, a pickle runs code); {advice}"
    )


captioner = Loader(
    load=_load,
    revision=_revision,
    weights=weights,
    origins={name: (of.hub_id, of.licence) for name, of in CHECKPOINTS.items()} | {"skyworld": ("", "Apache-2.0")},
)
