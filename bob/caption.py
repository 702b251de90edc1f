"""Step 1: what a captioner reads from the shots, and the bank that it fills. Plain PyTorch, no Ray."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bob import captioners, datasets, memory, schema
from bob.captioners._cleaning import PROMPT_VERSION, clean
from bob.types import Context, Shot

__all__ = ["PROMPT_VERSION", "Reader", "bank"]

Row = dict[str, Any]

_BATCH = 16  # pictures in memory at once: a photo of a camera takes 70 MB


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Captions shots, one worker's share at a time; its weights are loaded at the first, once."""

    captioner: str
    """As the user wrote it: `qwen_vl`, `qwen_vl:3b` ..."""
    dataset: str
    """As the user wrote it: opens the pictures and tells the class names, which must not leak."""
    descriptor: str = ""
    """One word for what all classes are; empty: the data set's own."""
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda`, `cuda:1`."""

    def __call__(self, shots: Sequence[Shot]) -> tuple[list[Row], list[Row]]:
        """Captions some shots, whichever and in whatever groups they come.

        Returns:
            Rows of `schema.CAPTIONS` in the order of the shots, answers raw and cleaned; and rows of
            `schema.REJECTED` for shots whose picture cannot be opened or over which the captioner raises.

        Raises:
            ValueError: if the data set, the captioner or its weights are not there, or memory does not
                hold one picture.
            Exception: what is raised over every single one of several shots.
        """
        self.load()  # before any row: that these are not there is no shot's fault
        data, model = self._data, self._model
        descriptor = self.descriptor or data.descriptor

        def read(some: Sequence[Shot]) -> list[captioners.Answer]:
            return model.caption([data.open(shot) for shot in some], descriptor=descriptor)

        rows, rejected = [], []
        for shot, answer in zip(shots, self._batches.each(shots, read, size=_BATCH), strict=True):
            if isinstance(answer, Exception):
                rejected.append(schema.rejection(shot.image_id, "caption", answer))
            else:
                rows.append(self._row(shot, answer, descriptor))
        return rows, rejected

    def load(self) -> None:
        """Loads data set and captioner, unless they are; raises as a call does."""
        self._data  # noqa: B018
        self._model  # noqa: B018

    def note(self) -> str:
        """A few words for the receipt if memory has run out since this was last asked."""
        return self._batches.note()

    def _row(self, shot: Shot, answer: captioners.Answer, descriptor: str) -> Row:
        words = {"descriptor": descriptor, "class_names": self._data.class_names}
        background, in_background = clean(answer.background_raw, about="background", **words)
        pose, in_pose = clean(answer.pose_raw, about="pose", **words)
        return {
            "image_id": shot.image_id,
            "background": background,
            "pose": pose,
            "background_raw": answer.background_raw,
            "pose_raw": answer.pose_raw,
            "leaked": in_background or in_pose,
            "captioner": self._model.name,
            "revision": self._model.revision,
            "prompt_version": PROMPT_VERSION,
        }

    @functools.cached_property
    def _batches(self) -> memory.Batches:
        return memory.Batches("captioning")

    @functools.cached_property
    def _data(self) -> datasets.Dataset:
        return datasets.load(self.dataset)

    @functools.cached_property
    def _model(self) -> captioners.Captioner:
        return captioners.load(self.captioner, device=self.device)


def bank(captions: pa.Table) -> dict[str, Context]:
    """The caption bank: image_id -> context, each background with the pose it was read with (sec. 3.1).

    Args:
        captions: rows of `bob.schema.CAPTIONS`, in any order and of any number of workers.

    Returns:
        Ordered by image_id, so that a bank drawn from by position does not depend on who read what.

    Raises:
        ValueError: if an image has been captioned twice.
    """
    rows = sorted(captions.select(["image_id", "background", "pose"]).to_pylist(), key=lambda row: row["image_id"])
    found = {row["image_id"]: Context(background=row["background"], pose=row["pose"]) for row in rows}
    if len(found) < len(rows):
        twice, count = Counter(row["image_id"] for row in rows).most_common(1)[0]
        raise ValueError(
            f"image {twice!r} has {count} captions, a bank holds one an image: pass those of one captioner and one"
            " training set"
        )
    return found
