"""Step 3: requests -> images: draws the synthetic training set with one checkpoint and one adapter at a time.

An image depends only on its request and its adapter: each has its own CPU generator, so batch, shard, worker, order and
retry cannot change it (beyond float reduction order across batch shapes).
"""

import copy
import functools
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image

from bob.core import batching, memory
from bob.core.timing import Stopwatch
from bob.core.types import Filter, Request
from bob.diffusion import checkpoints, clip_filter, lora, sampling, textual_inversion, timesteps
from bob.diffusion.attention import DrawingAttention
from bob.diffusion.compiled import CompiledUnet
from bob.diffusion.finished import Finished, Row, finish

__all__ = ["ImageGenerator"]

_SCORE_BATCH = 256  # images

_THREADS = 2
"""Threads that encode pictures; one encodes about 50 a second at 512 px, more than a GPU draws."""


class ImageGenerator:
    """Draws images with one resident checkpoint on one device; swaps adapters from a clean copy of its weights."""

    def __init__(self, device: str) -> None:
        self.times = Stopwatch(device)
        """Stopwatch of the current unit, set by its worker; gets the laps encode, denoise, decode and write."""
        self.occupancy = 0.0
        """Of the last unit: requests / (number of batches x batch size), in (0, 1]."""
        self._device = torch.device(device)
        self._dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._loaded: tuple[str, str, str] | None = None
        self._pipeline: Any = None
        self._attention: DrawingAttention | None = None
        self._compiled: CompiledUnet | None = None
        self._clean: list[dict[str, torch.Tensor]] = []
        self._tokenizer: Any = None
        self._vocabulary = 0
        self._sources: Any = None
        self._scorer: tuple[str, clip_filter.ClipScorer] | None = None
        self._batcher = batching.AdaptiveBatcher("drawing")
        self._threads = ThreadPoolExecutor(_THREADS)
        self._room = 0  # images of the batches of the last unit, had they all been full

    def use(
        self,
        checkpoint: str,
        adapter: str,
        read: Callable[[], Mapping[str, bytes]],
        dataset: str = "",
        source: Callable[[str], Image.Image] | None = None,
    ) -> None:
        """Loads a checkpoint and an adapter, unless they are loaded.

        Args:
            checkpoint: name or path, as `checkpoints.load` takes it.
            adapter: identifies the adapter; empty for the bare checkpoint.
            read: returns the adapter's files, name -> bytes; called only if another adapter is loaded.
            dataset: identifies the data set whose images `source` opens.
            source: image id -> real image; called once an id while checkpoint, adapter and dataset stay the same.

        Raises:
            ValueError: if the checkpoint is unknown or has no weights, or if a file of the adapter is damaged.
        """
        if self._loaded == (checkpoint, adapter, dataset):
            self._sources.read = source
            return
        loaded, self._loaded = self._loaded, None  # so that no half-loaded adapter is used after a failure
        if loaded is None or loaded[0] != checkpoint:
            self._pipeline = checkpoints.load(checkpoint, device=self._device, dtype=self._dtype)
            self._pipeline.unet.to(memory_format=torch.channels_last)
            if self._device.type == "cuda":  # on a CPU it would round otherwise
                self._pipeline.vae.to(memory_format=torch.channels_last)
                timesteps.keep_on_device(self._pipeline.unet)
            self._attention = DrawingAttention(self._pipeline.unet, fused=self._device.type == "cuda")
            self._compiled = None
            for encoder in (self._pipeline.text_encoder, self._pipeline.vae.encoder):  # diffusers calls them
                self._time_encoder(encoder)
            self._clean = [_copy(model) for model in self._tuned()]
            self._tokenizer = copy.deepcopy(self._pipeline.tokenizer)
            self._vocabulary = self._pipeline.text_encoder.get_input_embeddings().num_embeddings
            self._batcher = batching.AdaptiveBatcher("drawing")  # another checkpoint may need less memory
        else:
            textual_inversion.unload(self._pipeline, copy.deepcopy(self._tokenizer), rows=self._vocabulary)
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
        """`start`, and its rows as `Finished.rows` gives them."""
        return self.start(requests, batch=batch).rows(self.times)

    def start(self, requests: Sequence[Request], *, batch: int, compile_: str = "auto") -> Finished:
        """Draws requests in batches of `at_once`, and of fewer from the time that memory runs out.

        Threads encode the pictures of a batch while the next is drawn, or the next unit.

        Args:
            requests: of a unit.
            batch: most images at once on a CPU, and fewest on a GPU with the memory for them.
            compile_: as `DrawSettings.compile`.

        Returns:
            What has the rows when the threads are done.

        Raises:
            ValueError: if memory does not hold one image.
            Exception: an error that every single one of several requests raises.
        """
        assert self._loaded is not None, "use() comes first"
        drawn: dict[int, Any] = {}
        self._room = 0
        for positions in _alike(requests):
            size = self.at_once(batch, of=len(positions))
            self._expect(size * (2 if requests[positions[0]].guidance > 1 else 1), compile_)
            do = functools.partial(self._draw_batch, size=size)
            results = self._batcher.each([requests[k] for k in positions], do, size=size)
            drawn.update(zip(positions, results, strict=True))
        self.occupancy = len(requests) / self._room
        return Finished(requests, [drawn[k] for k in range(len(requests))])

    def at_once(self, batch: int, *, of: int) -> int:
        """Number of images in a batch: on a CPU `batch`; on a GPU as many as its free memory takes, if these are more.

        See `memory.drawn_at_once`. Where the memory model does not know the network, `batch`.
        """
        footprint = memory.generate(checkpoints.recognise(self._pipeline.unet.config))
        if footprint is None or self._device.type != "cuda":
            return batch
        return memory.drawn_at_once(footprint, free=batching.free_memory(self._device), batch=batch, of=of)

    def score(self, rows: Sequence[Row], rule: Filter) -> list[Row]:
        """Scores images with the CLIP model that belongs to the checkpoint: rows of `schema.IMAGES` -> `schema.SCORES`.

        Raises:
            ValueError: if CLIP's weights are missing.
        """
        assert self._loaded is not None, "use() comes first"
        checkpoint = self._loaded[0]
        if self._scorer is None or self._scorer[0] != checkpoint:
            self._scorer = checkpoint, clip_filter.ClipScorer(checkpoint, self._device)
        scorer = self._scorer[1]

        def probabilities(batch: Sequence[Row]) -> list[float]:
            pictures = [Image.open(io.BytesIO(row["image"])) for row in batch]
            return scorer.scores(pictures, rule, [row["class_id"] for row in batch])

        batches = batching.AdaptiveBatcher("scoring").map(rows, probabilities, size=_SCORE_BATCH)
        scores = [value for batch in batches for value in batch]
        return [
            {"request_id": row["request_id"], "score": value, "clip": scorer.name}
            for row, value in zip(rows, scores, strict=True)
        ]

    def note(self) -> str:
        """For the receipt: whether memory has run out, or compiling failed, since the last call; empty if not."""
        notes = self._batcher.note(), self._compiled.note() if self._compiled else ""
        return "; ".join(filter(None, notes))

    def _expect(self, rows: int, compile_: str) -> None:
        """Compiles the U-Net for batches of `rows`, or says that it may be, or must not."""
        wanted = compile_ == "on" or (compile_ == "auto" and self._device.type == "cuda")
        if wanted and self._compiled is None:
            self._compiled = CompiledUnet(self._pipeline.unet)
        if self._compiled:
            self._compiled.expect(rows if wanted else 0, required=compile_ == "on")

    def _draw_batch(self, batch: Sequence[Request], *, size: int) -> list[Future[tuple[Row | ValueError, float]]]:
        """What threads make of the pictures; each took an equal part of the batch's seconds."""
        assert self._attention is not None
        assert self._loaded is not None
        start = time.monotonic()
        self._room += size
        try:
            pictures = sampling.draw(self._pipeline, batch, self._sources, times=self.times)
        finally:
            self._attention.clear()
            if self._compiled:
                self._compiled.clear()
        seconds = (time.monotonic() - start) / len(batch)
        do = functools.partial(finish, checkpoint=self._loaded[0], seconds=seconds)
        return [self._threads.submit(do, *each) for each in zip(batch, pictures, strict=True)]

    def _time_encoder(self, encoder: torch.nn.Module) -> None:
        """Makes each call of an encoder a lap."""
        outer: list[str] = []

        def begin(*_: object) -> None:
            outer.append(self.times.switch("encode"))

        def end(*_: object) -> None:
            self.times.switch(outer.pop())

        encoder.register_forward_pre_hook(begin)
        encoder.register_forward_hook(end, always_call=True)  # also when the encoder raises

    def _tuned(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """Models that an adapter may change."""
        return self._pipeline.unet, self._pipeline.text_encoder


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's state on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _alike(requests: Sequence[Request]) -> Iterator[list[int]]:
    """Positions of requests that may share a batch: those with equal sampling settings."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for k, r in enumerate(requests):
        shared = (r.kind, r.guidance, r.steps, r.scheduler, r.strength, r.switch_at)
        groups.setdefault(shared, []).append(k)
    yield from groups.values()
