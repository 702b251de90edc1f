"""Decoded images and labels of the classifier: real, synthetic, validation and test."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from bob import store
from bob.backbones import Backbone
from bob.classifier.pixel_cache import array
from bob.core.types import Shot
from bob.datasets import Dataset

__all__ = ["Arrays", "Data", "real_arrays", "synthetic_arrays"]

_DECODER = 1
"""Version of the decoding: bump it when a data set or `Backbone.prepare` makes other pixels of the same bytes."""

Arrays = tuple[np.ndarray, np.ndarray]
"""Images, uint8 (n, kept, kept, 3), and class ids, int64 (n,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """All images of one run, decoded once and shared by its trainings; read-only memory maps if the disk allows."""

    class_names: tuple[str, ...]
    descriptor: str
    real: np.ndarray
    """uint8 (n, kept, kept, 3)."""
    real_labels: np.ndarray
    """int64 (n,)."""
    val: np.ndarray
    """uint8 (v, kept, kept, 3)."""
    val_labels: np.ndarray
    synthetic: np.ndarray
    """uint8 (m, kept, kept, 3); m is 0 for Real Only."""
    synthetic_labels: np.ndarray
    """float32 (m, classes), rows summing to 1."""
    copies: int = 1
    """Number of times that a real image is shown in an epoch; see `bob.core.budget`."""
    test: Callable[[], Arrays] | None = None
    """Loads the test images; None for the sweep. Only a final training calls it."""

    def __post_init__(self) -> None:
        classes = len(self.class_names)
        if not len(self.real) or not len(self.val):
            raise ValueError(
                f"training wants real images and validation images, got {len(self.real)} and {len(self.val)}:"
                " look at the split of the data set"
            )
        for name, labels in (("real", self.real_labels), ("val", self.val_labels)):
            if len(labels) != len(getattr(self, name)) or labels.min() < 0 or labels.max() >= classes:
                raise ValueError(
                    f"{name}_labels must give each of the {len(getattr(self, name))} images a class in"
                    f" [0, {classes}), got {len(labels)} in [{labels.min()}, {labels.max()}]"
                )
        if self.synthetic_labels.shape != (len(self.synthetic), classes):
            wanted = (len(self.synthetic), classes)
            raise ValueError(f"synthetic_labels must have shape {wanted}, got {self.synthetic_labels.shape}")


def real_arrays(dataset: Dataset, shots: Sequence[Shot], backbone: Backbone) -> Arrays:
    """Opens and prepares the images of `shots`, in their order.

    Returns:
        uint8 (n, kept, kept, 3) and class ids, int64 (n,).

    Raises:
        ValueError: if an image cannot be read; names it.
    """
    pictures = _decoded(
        [shot.sha1 for shot in shots], backbone, lambda: (backbone.prepare(dataset.open(shot)) for shot in shots)
    )
    return pictures, np.array([shot.class_id for shot in shots], np.int64)


def synthetic_arrays(images: pa.Table, backbone: Backbone, *, classes: int) -> Arrays:
    """Decodes the `images` table (schema.IMAGES), row by row.

    Returns:
        uint8 (m, kept, kept, 3) and label distributions, float32 (m, classes).

    Raises:
        ValueError: if an image cannot be decoded, or its label is not a distribution over `classes` classes; names the
            request.
    """
    labels = np.zeros((len(images), classes), np.float32)
    for row, image in enumerate(images.select(["request_id", "label_ids", "label_weights"]).to_pylist()):
        name, ids, weights = image["request_id"], image["label_ids"], image["label_weights"]
        valid = len(ids) == len(weights) and all(0 <= k < classes for k in ids)
        if not valid or abs(sum(weights) - 1) > 1e-4:
            raise ValueError(
                f"image {name} wants a label over {classes} classes with weights that sum to 1,"
                f" got ids {ids} and weights {weights}"
            )
        np.add.at(labels[row], ids, weights)  # sums the weights of a class that occurs twice
    contents = [content.as_buffer() for content in images["image"]]
    sha1 = [hashlib.sha1(content, usedforsecurity=False).hexdigest() for content in contents]
    names = images["request_id"].to_pylist()
    return _decoded(sha1, backbone, lambda: map(_decode, names, contents, itertools.repeat(backbone))), labels


def _decode(name: str, content: pa.Buffer, backbone: Backbone) -> np.ndarray:
    """One synthetic image, uint8 (kept, kept, 3)."""
    try:
        with Image.open(pa.BufferReader(content)) as picture:
            return backbone.prepare(picture)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"image {name} cannot be decoded ({error}): draw its unit again") from error


def _decoded(sha1: list[str], backbone: Backbone, pictures: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """Images with these SHA-1s, uint8 (n, kept, kept, 3): from the node's cache, or decoded into it."""
    prepare = type(backbone).prepare  # shared by all backbones that prepare images alike
    key = store.key(_DECODER, prepare.__module__, prepare.__qualname__, backbone.kept, sha1)
    return array(key, (len(sha1), backbone.kept, backbone.kept, 3), pictures)
