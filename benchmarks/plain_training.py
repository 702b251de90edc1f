"""Trainings of a sweep by a plain loop of our own: no Ray, PNG files read at each step, or once.

    python benchmarks/plain_training.py FOLDER CONFIGURATION[:END] SEED THREADS [once]

DataDream's `classify/bash_run.sh` starts one process for one configuration, and its data set opens a file for each
access to an image; with one CONFIGURATION and without `once` this does the same. `written` prepares FOLDER; prints each
configuration's best validation accuracy in per cent.
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bob import backbones
from bob.classifier.data import Data
from bob.classifier.trainer import Training, train
from bob.core import malloc
from bob.core.settings import Point, SweepSettings

PARTS = ("real", "val", "synthetic")


class Pngs:
    """Pictures read from their files at each access, with the interface of a uint8 array."""

    def __init__(self, folder: Path, backbone: backbones.Backbone) -> None:
        self.files, self.backbone = sorted(folder.iterdir()), backbone

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> np.ndarray:
        pictures = []
        for row in rows:
            with Image.open(self.files[row]) as picture:
                pictures.append(self.backbone.prepare(picture))
        return np.stack(pictures) if pictures else np.zeros((0, self.backbone.kept, self.backbone.kept, 3), np.uint8)


def written(folder: Path, data: Data, backbone: str, points: list[Point], settings: SweepSettings) -> None:
    """Writes the pictures as files, and the labels and settings that `training` needs."""
    for name in PARTS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k, picture in enumerate(getattr(data, name)):
            Image.fromarray(picture).save(folder / name / f"{k:05d}.png")
        np.save(folder / f"{name}.npy", getattr(data, f"{name}_labels"))
    about = {"class_names": data.class_names, "descriptor": data.descriptor, "copies": data.copies}
    more = {"backbone": backbone, "points": [vars(point) for point in points], "settings": vars(settings)}
    (folder / "about.json").write_text(json.dumps(about | more))


def training(folder: Path, configuration: int, *, seed: int, once: bool = False) -> list[dict[str, Any]]:
    """The rows of `trainer.train` on the files of `written`; with `once` they are decoded before it."""
    malloc.keep_freed()  # as the processes of `bob.cluster` do
    about = json.loads((folder / "about.json").read_text())
    backbone = backbones.load(about["backbone"])
    pictures: dict[str, Any] = {name: Pngs(folder / name, backbone) for name in PARTS}
    if once:
        pictures = {name: _decoded(folder / name, backbone) for name in PARTS}
    labels: dict[str, Any] = {f"{name}_labels": np.load(folder / f"{name}.npy") for name in PARTS}
    given = {name: about[name] for name in ("descriptor", "copies")}
    data = Data(class_names=tuple(about["class_names"]), **given, **pictures, **labels)
    settings = SweepSettings(**{k: tuple(v) if isinstance(v, list) else v for k, v in about["settings"].items()})
    return list(
        train(
            data,
            Training(
                backbone=backbone.name,
                point=Point(**about["points"][configuration]),
                settings=dataclasses.replace(settings, precision="float32"),
                epochs=settings.sweep_epochs,
                seed=seed,
            ),
        )
    )


def best(rows: list[dict[str, Any]]) -> float:
    """Best validation accuracy in per cent."""
    return 100 * max(row["val_accuracy"] for row in rows)


@functools.cache
def _decoded(folder: Path, backbone: backbones.Backbone) -> np.ndarray:
    files = Pngs(folder, backbone)
    return files[range(len(files))]


if __name__ == "__main__":
    first, _, end = sys.argv[2].partition(":")
    torch.set_num_threads(int(sys.argv[4]))
    for k in range(int(first), int(end or int(first) + 1)):
        print(best(training(Path(sys.argv[1]), k, seed=int(sys.argv[3]), once="once" in sys.argv[5:])))
