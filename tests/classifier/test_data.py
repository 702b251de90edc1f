"""Training data of the classifier: shape and label checks, decoding of generated images."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bob import backbones
from bob.classifier.data import Data, synthetic_arrays


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"real_labels": np.array([0, 1, 2, 0, 1, 7])}, r"real_labels must .* \[0, 3\), got 6 in \[0, 7\]"),
        ({"synthetic_labels": np.zeros((12, 2), np.float32)}, r"shape \(12, 3\), got \(12, 2\)"),
        ({"val": np.zeros((0, 32, 32, 3), np.uint8)}, "got 6 and 0"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes, words):
    fields = {
        "class_names": ("red", "green", "blue"),
        "descriptor": "square",
        "real": np.zeros((6, 32, 32, 3), np.uint8),
        "real_labels": np.arange(6) % 3,
        "val": np.zeros((9, 32, 32, 3), np.uint8),
        "val_labels": np.arange(9) % 3,
        "synthetic": np.zeros((12, 32, 32, 3), np.uint8),
        "synthetic_labels": np.eye(3, dtype=np.float32)[np.arange(12) % 3],
    }
    assert Data(**fields).copies == 1
    with pytest.raises(ValueError, match=words):
        Data(**fields | changes)


def drawn(**changes) -> pa.Table:
    png = io.BytesIO()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(png, "png")
    row = {"request_id": "0/7", "image": png.getvalue(), "label_ids": [0, 2], "label_weights": [0.25, 0.75]}
    return pa.Table.from_pylist([row | changes])


def test_decodes_drawn_pictures_with_soft_labels():
    decoded, labels = synthetic_arrays(drawn(), backbones.load("resnet_mini"), classes=3)
    assert decoded.shape == (1, 32, 32, 3)
    assert (decoded == (255, 0, 0)).all()
    assert labels.tolist() == [[0.25, 0.0, 0.75]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": b"no picture"}, "image 0/7 cannot be decoded"),
        ({"label_ids": [0, 3]}, "image 0/7 wants a label over 3 classes"),
        ({"label_weights": [0.5, 0.75]}, "weights that sum to 1"),
    ],
)
def test_a_bad_row_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        synthetic_arrays(drawn(**changes), backbones.load("resnet_mini"), classes=3)
