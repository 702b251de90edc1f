"""Step 1: what a captioner reads from the shots, and the bank that it fills. Plain PyTorch, no Ray."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import pyarrow as pa

from bob.captioners import Answer
from bob.captioners._cleaning import PROMPT_VERSION, clean
from bob.core.types import Context, Shot
from bob.steps.ask import Asker, Row

__all__ = ["PROMPT_VERSION", "Reader", "bank"]


@final
@dataclass(frozen=True, kw_only=True)
class Reader(Asker):
    """Captions shots: rows of `schema.CAPTIONS`, raw and cleaned, for no class name must leak."""

    step = "caption"
    doing = "captioning"

    def _ask(self, pictures: list[Any]) -> Sequence[Answer]:
        return self._model.caption(pictures, descriptor=self._noun)

    def _row(self, shot: Shot, answer: Answer) -> Row:
        words = {"descriptor": self._noun, "class_names": self._data.class_names}
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


def bank(captions: pa.Table) -> dict[str, Context]:
    """The caption bank: image_id -> context, each background with the pose it was read with (sec. 3.1).

    Args:
        captions: rows of `bob.store.schema.CAPTIONS`, in any order and of any number of workers.

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
