"""Qwen2.5-VL as a captioner: answers two questions about each picture, or names its class."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoProcessor, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from bob.captioners import NAMING, QUESTIONS, Answer, Captioner, Recognition
from bob.store.keys import fingerprint

__all__ = ["QwenVL", "load"]

_MAX_PIXELS = 512 * 512  # 324 visual tokens; the hub's limit is 16,384, for pages of text
_MAX_NEW_TOKENS = 32
_BATCH = 16  # pictures; twice as many sequences
_NAMES = 32  # sequences at once, each after the 1,000 tokens of a picture and a hundred names


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A picture as the vision tower takes it, on the CPU."""

    patches: torch.Tensor
    """float32 (patches, values of a patch), normalised."""
    grid: torch.Tensor
    """int64 (1, 3): patches along time, height and width."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class QwenVL(Captioner):
    """A loaded Qwen2.5-VL with greedy decoding, so that the same picture gets the same words."""

    model: Any = field(repr=False)
    """`Qwen2_5_VLForConditionalGeneration`; like the processor, without a usable static type."""
    processor: Any = field(repr=False)
    """`Qwen2_5_VLProcessor`."""

    def prepare(self, image: Image.Image) -> Prepared:
        """Resizes and normalises a picture, and cuts it into patches.

        Raises:
            ValueError: if the picture is more than 200 times as long as it is wide.
        """
        processor = self.processor.image_processor
        made = processor(images=[image], size=_capped(processor.size), return_tensors="pt")
        return Prepared(patches=made["pixel_values"], grid=made["image_grid_thw"])

    def caption(self, images: Sequence[Image.Image | Prepared], *, descriptor: str) -> list[Answer]:
        """Asks both questions of each picture, which passes through the vision tower once.

        Source: Yang et al. 2025, arXiv:2510.24078, sec. 3.1 for the words; greedy decoding is our
        choice, the paper names no temperature.

        Raises:
            ValueError: if a picture is more than 200 times as long as it is wide.
        """
        batches = (images[k : k + _BATCH] for k in range(0, len(images), _BATCH))
        return [answer for batch in batches for answer in self._ask(batch, descriptor)]

    @torch.inference_mode()
    def _ask(self, images: Sequence[Image.Image | Prepared], descriptor: str) -> list[Answer]:
        prompts = [self._prompt(question.format(d=descriptor)) for question in QUESTIONS.values()]
        inputs = self._inputs(images, prompts)
        written = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(written, skip_special_tokens=True)
        return [
            Answer(background_raw=background, pose_raw=pose)
            for background, pose in zip(texts[::2], texts[1::2], strict=True)
        ]

    def _inputs(self, images: Sequence[Image.Image | Prepared], prompts: Sequence[str]) -> dict[str, Any]:
        """The model's inputs, on its device: each prompt about the first picture, each about the second, and so on."""
        device, prepared = self.model.device, [self._prepared(image) for image in images]
        grids = torch.cat([picture.grid for picture in prepared])
        seen = self.model.get_image_features(
            pixel_values=torch.cat([picture.patches for picture in prepared]).to(device),
            image_grid_thw=grids.to(device),
            return_dict=True,
        )
        seen.pooler_output = [features for features in seen.pooler_output for _ in prompts]
        rows = self._tokens(prompts, grids.prod(1) // self.processor.image_processor.merge_size**2)
        # A decoder continues the last token, which must not be padding.
        pad = {"batch_first": True, "padding_side": "left"}
        ids = pad_sequence(rows, padding_value=self.processor.tokenizer.pad_token_id, **pad)
        return {
            "input_ids": ids.to(device),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], **pad).to(device),
            "mm_token_type_ids": (ids == self.processor.image_token_id).int().to(device),
            "image_grid_thw": grids.repeat_interleave(len(prompts), 0).to(device),
            "mm_encoder_outputs": {"image": seen},
        }

    def _tokens(self, prompts: Sequence[str], lengths: torch.Tensor) -> list[torch.Tensor]:
        """int64 (length,): ids of each prompt about each picture, given the pictures' numbers of visual tokens."""
        rows = []
        asked = [torch.tensor(ids) for ids in self.processor.tokenizer(list(prompts))["input_ids"]]
        for length in lengths:
            for ids in asked:
                times = torch.where(ids == self.processor.image_token_id, length, 1)
                rows.append(ids.repeat_interleave(times))
        return rows

    def _prepared(self, image: Image.Image | Prepared) -> Prepared:
        return image if isinstance(image, Prepared) else self.prepare(image)

    @torch.inference_mode()
    def recognise(
        self, images: Sequence[Image.Image | Prepared], *, descriptor: str, class_names: Sequence[str]
    ) -> list[Recognition]:
        """The name with the highest likelihood as the whole answer, end token included.

        Picture and question are encoded once: all names continue the same keys and values.

        Raises:
            ValueError: if a picture is more than 200 times as long as it is wide.
        """
        tokenizer = self.processor.tokenizer
        names = [[*tokenizer(name)["input_ids"], tokenizer.eos_token_id] for name in class_names]
        prompt = self._prompt(NAMING.format(d=descriptor, names="; ".join(class_names)))
        return [self._likeliest(image, prompt, names) for image in images]

    def _likeliest(self, image: Image.Image | Prepared, prompt: str, names: Sequence[Sequence[int]]) -> Recognition:
        inputs = self._inputs([image], [prompt])
        context = self.model(**inputs, use_cache=True, logits_to_keep=1)
        # A picture's tokens have grid positions, so the text after them starts below the token count.
        start = int(inputs["input_ids"].shape[1] + self.model.model.rope_deltas)
        parts = [self._likelihoods(context, names[k : k + _NAMES], start) for k in range(0, len(names), _NAMES)]
        best = torch.cat(parts).max(0)
        return Recognition(guess=int(best.indices), log_likelihood=float(best.values))

    def _likelihoods(self, context: Any, names: Sequence[Sequence[int]], start: int) -> torch.Tensor:
        """float32 (names,): log-likelihood of each name after the context, in nats."""
        tokens = pad_sequence([torch.tensor(name) for name in names], batch_first=True).to(self.model.device)
        lengths = torch.tensor([len(name) for name in names], device=tokens.device)
        cache = copy.deepcopy(context.past_key_values)  # the model appends to it
        cache.batch_repeat_interleave(len(names))
        positions = torch.arange(start, start + tokens.shape[1] - 1, device=tokens.device)
        # Attention is causal, so padding on the right of shorter names changes nothing.
        written = self.model(
            input_ids=tokens[:, :-1],
            past_key_values=cache,
            position_ids=positions.expand(3, len(names), -1),
        )
        logits = torch.cat([context.logits[:, -1:].expand(len(names), -1, -1), written.logits], 1).float()
        token_scores = logits.log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
        return token_scores.where(torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None], 0).sum(1)

    def _prompt(self, question: str) -> str:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True)


def load(folder: Path, *, name: str, device: str) -> QwenVL:
    """Loads the checkpoint in a folder: bfloat16 on a GPU, float32 on a CPU.

    Args:
        folder: folder with config.json and safetensors weights; nothing is downloaded.
        name: name of the captioner with its checkpoint: `qwen_vl:7b`.
        device: as torch names it.
    """
    model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder,
        dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32,
        use_safetensors=True,
        local_files_only=True,
    )
    model.generation_config = _greedy(model.generation_config)
    return QwenVL(
        name=name,
        revision=fingerprint(folder),
        model=model.to(device).eval(),
        processor=AutoProcessor.from_pretrained(folder, local_files_only=True),
    )


def _capped(size: Mapping[str, int]) -> dict[str, int]:
    """The checkpoint's limits, cut to `_MAX_PIXELS`; Qwen's "edges" count the pixels of a picture."""
    return {edge: min(size[edge], _MAX_PIXELS) for edge in ("shortest_edge", "longest_edge")}


def _greedy(config: GenerationConfig) -> GenerationConfig:
    """The checkpoint's special tokens and repetition penalty (1.05 on the hub), without sampling."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=_MAX_NEW_TOKENS,
        repetition_penalty=config.repetition_penalty,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
