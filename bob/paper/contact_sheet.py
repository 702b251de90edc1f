"""Contact sheet of real shots and the images of each method, one row per class."""

import io
from collections.abc import Sequence

import pyarrow as pa
from PIL import Image

from bob import datasets
from bob.core.settings import Run
from bob.core.types import Shot

__all__ = ["contact_sheet"]


def contact_sheet(
    run: Run, shots: Sequence[Shot], images: dict[str, pa.Table], *, each: int = 5, side: int = 64
) -> bytes:
    """Returns a PNG with a row for each class and a block of columns for the real shots and for each method.

    Args:
        run: run with the data set.
        shots: training shots of the data set.
        images: title of a block -> rows of schema.IMAGES.
        each: number of pictures per block and row.
        side: side of a picture in pixels.
    """
    from matplotlib import font_manager
    from PIL import ImageDraw, ImageFont

    dataset = datasets.load(run.dataset, run.descriptor)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 15)
    classes = range(len(dataset.class_names))
    blocks: dict[str, list[list[Image.Image]]] = {
        "real shots": [[dataset.open(s) for s in [s for s in shots if s.class_id == k][:each]] for k in classes]
    }
    for title, table in images.items():
        rows = table.to_pylist()
        encoded = [[row["image"] for row in rows if row["class_id"] == k][:each] for k in classes]
        blocks[title] = [[Image.open(io.BytesIO(image)) for image in line] for line in encoded]
    margin, head, gap = 130, 28, 14
    width = margin + len(blocks) * (each * side + gap)
    sheet = Image.new("RGB", (width, head + side * len(dataset.class_names)), "white")
    pen = ImageDraw.Draw(sheet)
    for b, (title, grid) in enumerate(blocks.items()):
        left = margin + b * (each * side + gap)
        pen.text((left, 5), title, fill="black", font=font)
        for k, pictures in enumerate(grid):
            for j, picture in enumerate(pictures):
                sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left + j * side, head + k * side))
    for k, name in enumerate(dataset.class_names):
        pen.text((6, head + k * side + side // 2 - 9), name[:15], fill="black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
