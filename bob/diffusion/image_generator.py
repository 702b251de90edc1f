"""Step 3: requests -> images. Draws the synthetic training set, one committed shard a unit.

An image depends on its request and adapter alone: each has its own CPU generator, so batch, shard,
worker, order and retry cannot change it (beyond float reduction order across batch shapes).
"""

import copy
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from bob.core import batching
from bob.core.timing import Stopwatch
from bob.core.types import Filter, Request
from bob.diffusion import checkpoints, clip_filter, lora, sampling, textual_inversion
from bob.store import images, tables

__all__ = ["Painter"]

Row = dict[str, Any]

_JUDGED = 256  # pictures at once


class Painter:
    """One resident checkpoint on one device; swaps adapters from a clean copy of its weights."""

    def __init__(self, device: str) -> None:
        self.times = Stopwatch(device)
        """Of the unit in hand, whose worker sets it: gets laps of encode, denoise, decode and write."""
        self.occupancy = 0.0
        """Of the last `draw`: requests / (batches x size of a batch), in (0, 1]."""
        self._device = torch.device(device)
        self._dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._loaded: tuple[str, str, str] | None = None
        self._pipeline: Any = None
        self._clean: list[dict[str, torch.Tensor]] = []
        self._tokenizer: Any = None
        self._words = 0
        self._sources: Any = None
        self._scorer: tuple[str, clip_filter.ClipScorer] | None = None
        self._batches = batching.Batches("drawing")
        self._drawn = 0  # batches, of the last `draw`

    def use(
        self,
        checkpoint: str,
        adapter: str,
        read: Callable[[], Mapping[str, bytes]],
        dataset: str = "",
        source: Callable[[str], Image.Image] | None = None,
    ) -> None:
        """Makes ready to draw with a checkpoint and an adapter.

        Args:
            checkpoint: as `checkpoints.load` takes it.
            adapter: names the adapter; empty for the bare checkpoint.
            read: gives the adapter's files, name -> bytes; called only if it is not in use already.
            dataset: names what `source` opens images of.
            source: opens the real image of an id; called once for each while all of these stay in use.
        """
        if self._loaded == (checkpoint, adapter, dataset):
            self._sources.read = source
            return
        loaded, self._loaded = self._loaded, None  # a failure below must not leave half an adapter as if it were whole
        if loaded is None or loaded[0] != checkpoint:
            self._pipeline = checkpoints.load(checkpoint, device=self._device, dtype=self._dtype)
            self._pipeline.unet.to(memory_format=torch.channels_last)
            for encoder in (self._pipeline.text_encoder, self._pipeline.vae.encoder):  # which diffusers calls
                self._watch(encoder)
            self._clean = [_copy(model) for model in self._tuned()]
            self._tokenizer = copy.deepcopy(self._pipeline.tokenizer)
            self._words = self._pipeline.text_encoder.get_input_embeddings().num_embeddings
            self._batches = batching.Batches("drawing")
        else:
            textual_inversion.take_out(self._pipeline, copy.deepcopy(self._tokenizer), rows=self._words)
            for model, clean in zip(self._tuned(), self._clean, strict=True):
                model.load_state_dict(clean)
        if adapter:
            files = read()
            if lora.FILE in files:
                lora.fuse(self._pipeline, files[lora.FILE])
            if textual_inversion.FILE in files:
                textual_inversion.load(self._pipeline, files[textual_inversion.FILE])
        self._sources = sampling.Sources(self._pipeline, source)
        self._loaded = (checkpoint, adapter, dataset)

    def draw(self, requests: Sequence[Request], *, batch: int) -> tuple[list[Row], list[Row]]:
        """Draws requests, at most `batch` at once; fewer, from then on, where memory runs out.

        Returns:
            Rows of `schema.IMAGES`, and rows of `schema.REJECTED` for requests over which the pipeline
            raises, and for pictures that are not finite or of one colour.

        Raises:
            ValueError: if memory does not hold one picture.
            Exception: what is raised over every single one of several requests.
        """
        assert self._loaded is not None, "use() comes first"
        made: dict[int, Any] = {}
        self._drawn = 0
        for alike in _alike(requests):
            drawn = self._batches.each([requests[k] for k in alike], self._timed, size=batch)
            made.update(zip(alike, drawn, strict=True))
        self.occupancy = len(requests) / (self._drawn * batch)
        with self.times("write"):
            return self._encoded(requests, made)

    def _encoded(self, requests: Sequence[Request], made: Mapping[int, Any]) -> tuple[list[Row], list[Row]]:
        """Rows of what was made of each request: a picture and its seconds, or an exception."""
        assert self._loaded is not None
        rows, rejected = [], []
        for k, request in enumerate(requests):
            drawn = made[k]
            if not isinstance(drawn, Exception):
                picture, seconds = drawn
                drawn = _fault(picture) or images.image_row(
                    request, picture, checkpoint=self._loaded[0], seconds=seconds
                )
            if isinstance(drawn, Exception):
                rejected.append(tables.rejection(request.request_id, "generate", drawn))
            else:
                rows.append(drawn)
        return rows, rejected

    def judge(self, rows: Sequence[Row], rule: Filter) -> list[Row]:
        """Rows of `schema.SCORES` of rows of `schema.IMAGES`, by the CLIP beside the checkpoint in use.

        Raises:
            ValueError: if its weights are not there.
        """
        assert self._loaded is not None, "use() comes first"
        checkpoint = self._loaded[0]
        if self._scorer is None or self._scorer[0] != checkpoint:
            self._scorer = checkpoint, clip_filter.ClipScorer(checkpoint, self._device)
        scorer = self._scorer[1]

        def scores(some: Sequence[Row]) -> list[float]:
            pictures = [Image.open(io.BytesIO(row["image"])) for row in some]
            return scorer.scores(pictures, rule, [row["class_id"] for row in some])

        found = [score for some in batching.Batches("judging").map(rows, scores, size=_JUDGED) for score in some]
        names = [row["request_id"] for row in rows]
        return [
            {"request_id": name, "score": score, "clip": scorer.name} for name, score in zip(names, found, strict=True)
        ]

    def note(self) -> str:
        """A few words for the receipt if memory has run out since this was last asked."""
        return self._batches.note()

    def _timed(self, some: Sequence[Request]) -> list[tuple[Image.Image | None, float]]:
        begun = time.monotonic()
        self._drawn += 1
        pictures = sampling.draw(self._pipeline, some, self._sources, times=self.times)
        each = (time.monotonic() - begun) / len(some)
        return [(picture, each) for picture in pictures]

    def _watch(self, encoder: torch.nn.Module) -> None:
        outer: list[str] = []

        def begin(*_: object) -> None:
            outer.append(self.times.switch("encode"))

        def end(*_: object) -> None:
            self.times.switch(outer.pop())

        encoder.register_forward_pre_hook(begin)
        encoder.register_forward_hook(end, always_call=True)  # after memory ran out, too

    def _tuned(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        return self._pipeline.unet, self._pipeline.text_encoder


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _alike(requests: Sequence[Request]) -> Iterator[list[int]]:
    """Places of requests that agree in what a batch must agree in."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, r in enumerate(requests):
        alike = (r.kind, r.guidance, r.steps, r.scheduler, r.strength, r.switch_at)
        groups.setdefault(alike, []).append(k)
    yield from groups.values()


def _fault(picture: Image.Image | None) -> ValueError | None:
    if picture is None:
        return ValueError("values that are not finite: the checkpoint or its adapter is broken")
    pixels = np.asarray(picture)
    if (pixels == pixels[0, 0]).all():
        return ValueError("one colour all over: the checkpoint or its adapter is broken")
    return None
