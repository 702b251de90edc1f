"""Contact sheet of the images that every method draws: a row per class, a block of columns per method.

    bob run baselines --out out
    python benchmarks/methods_grid.py out grid.png

Reads the output of a run. In blocks of image to image and of circles, each drawing's real source is shown above it,
at half size. The images shown are spread evenly over all kept images of a class, since strengths and sources come in
turn.
"""

import argparse
import io
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from bob import datasets
from bob.core.types import Shot
from bob.store import Store, schema
from bob.store.images import read_images

_SIDE, _HEAD, _GAP, _LEFT = 64, 28, 18, 110


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", help="the --out of `bob run`")
    parser.add_argument("picture", help="the PNG to write")
    parser.add_argument("--each", type=int, default=5, help="images per class and method")
    parser.add_argument("--classes", type=int, default=6)
    given = parser.parse_args()
    artefacts = Store(given.out)
    paths = sorted(artefacts.listing())
    tables = [artefacts.read_checked(p, schema.SHOTS) for p in paths if p.startswith("shots/")]
    shots = {row["image_id"]: Shot(**row) for table in tables for row in table.to_pylist()}
    blocks = {}
    for path in (path for path in paths if path.endswith("/requests.parquet")):
        run = artefacts.manifest(path)["config"]
        images = read_images(artefacts, path.rpartition("/")[0]).to_pylist()
        classes = [[row for row in images if row["class_id"] == k] for k in range(given.classes)]
        step = [max(1, len(rows) // given.each) for rows in classes]
        blocks[run["method"]] = [rows[::n][: given.each] for rows, n in zip(classes, step, strict=True)]
        dataset = datasets.load(run["dataset"], run["descriptor"])
    if not blocks:
        raise SystemExit(f"nothing was drawn in {given.out} yet: run `bob run baselines --out {given.out}` first")
    real = [[s for s in shots.values() if (s.class_id, s.split) == (k, "train")] for k in range(given.classes)]
    grid = {"real shots": [[dataset.open(shot) for shot in row[: given.each]] for row in real]}
    grid |= {name: [[_cell(row, shots, dataset) for row in rows] for rows in block] for name, block in blocks.items()}
    _sheet(grid, dataset.class_names, given.each).save(Path(given.picture))


def _cell(row: dict[str, Any], shots: dict[str, Shot], dataset: Any) -> Image.Image:
    """The drawing, with its sources above at half size."""
    drawn = Image.open(io.BytesIO(row["image"])).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    if not row["source_ids"]:
        return drawn
    cell = Image.new("RGB", (_SIDE, _SIDE * 3 // 2), "white")
    cell.paste(drawn, (0, _SIDE // 2))
    for k, name in enumerate(row["source_ids"]):
        cell.paste(dataset.open(shots[name]).resize((_SIDE // 2, _SIDE // 2)), (k * _SIDE // 2, 0))
    return cell


def _sheet(grid: dict[str, list[list[Image.Image]]], names: tuple[str, ...], each: int) -> Image.Image:
    rows, high = len(next(iter(grid.values()))), _SIDE * 3 // 2 + 6
    sheet = Image.new("RGB", (_LEFT + len(grid) * (each * _SIDE + _GAP), _HEAD + rows * high), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 15)
    for b, (title, block) in enumerate(grid.items()):
        left = _LEFT + b * (each * _SIDE + _GAP)
        pen.text((left, 5), title, fill="black", font=font)
        for k, cells in enumerate(block):
            for j, cell in enumerate(cells):
                tile = cell if cell.height > _SIDE else cell.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
                sheet.paste(tile, (left + j * _SIDE, _HEAD + (k + 1) * high - 6 - tile.height))
    for k in range(rows):
        pen.text((6, _HEAD + (k + 1) * high - _SIDE // 2 - 14), names[k], fill="black", font=font)
    return sheet


if __name__ == "__main__":
    main()
