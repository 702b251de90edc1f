"""One training of the sweep of `classify.py` as DataDream's script does it: a process, and PNG files read at each step.

    python benchmarks/plain_training.py FOLDER CONFIGURATION SEED THREADS

DataDream's `classify/bash_run.sh` starts `python main.py` for one configuration, and its data set opens a file whenever
an image is asked for. FOLDER is as `written` makes it; prints the best validation accuracy, per cent.
"""

import dataclasses
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
    """Pictures that are read from their files whenever they are asked for; in all else a uint8 array of them."""

    def __init__(self, folder: Path, backbone: backbones.Backbone) -> None:
        self.files, self.backbone = sorted(folder.iterdir()), backbone

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any) -> np.ndarray:
        made = []
        for row in rows:
            with Image.open(self.files[row]) as picture:
                made.append(self.backbone.prepare(picture))
        return np.stack(made) if made else np.zeros((0, self.backbone.kept, self.backbone.kept, 3), np.uint8)


def written(folder: Path, held: Data, backbone: str, points: list[Point], settings: SweepSettings) -> None:
    """Writes the pictures as files, and what else `training` needs."""
    for name in PARTS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k, picture in enumerate(getattr(held, name)):
            Image.fromarray(picture).save(folder / name / f"{k:05d}.png")
        np.save(folder / f"{name}.npy", getattr(held, f"{name}_labels"))
    about = {"class_names": held.class_names, "descriptor": held.descriptor, "copies": held.copies}
    more = {"backbone": backbone, "points": [vars(point) for point in points], "settings": vars(settings)}
    (folder / "about.json").write_text(json.dumps(about | more))


def training(folder: Path, configuration: int, *, seed: int) -> list[dict[str, Any]]:
    """The rows of `trainer.train`, from the files."""
    malloc.keep_freed()  # as the processes of ours do
    about = json.loads((folder / "about.json").read_text())
    backbone = backbones.load(about["backbone"])
    pictures: dict[str, Any] = {name: Pngs(folder / name, backbone) for name in PARTS}
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
    """Per cent."""
    return 100 * max(row["val_accuracy"] for row in rows)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    print(best(training(Path(sys.argv[1]), int(sys.argv[2]), seed=int(sys.argv[3]))))
