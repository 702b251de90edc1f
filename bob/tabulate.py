"""Step 5: results -> tables and pictures. Every cell is a mean over seeds; a missing one shows as missing."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from bob import datasets, schema, store
from bob.pixels import read_images
from bob.settings import Run
from bob.types import Outcome, Shot

__all__ = ["contact_sheet", "markdown", "rows", "to_csv", "write"]


def write(outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str) -> pa.Table:
    """Writes `tables/NAME.parquet`, `.csv`, `.md` and a picture for each data set, shots and seed.

    Returns:
        Rows of schema.TABLES.
    """
    finals = dict.fromkeys(outcome.final for outcome in outcomes)
    results = pa.concat_tables([artefacts.read_checked(path, schema.RESULTS, least=1) for path in finals])
    runs = [dataclasses.replace(outcome.run, dataset=outcome.dataset) for outcome in outcomes]  # as the results have it
    table = rows(results, runs, name=name)
    artefacts.write_table(f"tables/{name}.parquet", table, store.provenance([outcome.run for outcome in outcomes]))
    artefacts.write(f"tables/{name}.csv", to_csv(table).encode())
    artefacts.write(f"tables/{name}.md", markdown(table).encode())
    for split in dict.fromkeys(outcome.split for outcome in outcomes):
        alike = [outcome for outcome in outcomes if outcome.split == split]
        folders = {
            f"{outcome.run.method} ({outcome.run.checkpoint})": outcome.images for outcome in alike if outcome.images
        }
        drawn = {title: read_images(artefacts, folder) for title, folder in folders.items()}
        run = alike[0].run
        picture = f"tables/{name}-{store.slug(alike[0].dataset)}-{run.setting}.png"
        artefacts.write(picture, contact_sheet(run, alike[0].shots, drawn))
    return table


def rows(results: pa.Table, runs: Sequence[Run], *, name: str) -> pa.Table:
    """Test accuracy of each method, with its checkpoint and backbone, over the seeds.

    Few-shot it is the mean over images. Of a long tail there are four columns, each a mean over classes of class
    accuracy: many, medium and few shots, and all (methods.md 3.7).

    Args:
        results: rows of schema.RESULTS of final trainings.
        runs: the order of rows and columns; `dataset` as the results have it.
        name: of the table.

    Returns:
        Rows of schema.TABLES, accuracies in per cent. `paper` is empty: the paper has no skyworld.
    """
    tested = [(_row(r), _columns(r).get(r["metric"]), r["value"]) for r in results.to_pylist() if r["split"] == "test"]
    made = []
    for row, column in dict.fromkeys((_row(run), column) for run in runs for column in _columns(run).values()):
        values = [100 * value for *place, value in tested if place == [row, column]]
        made.append(
            {
                "table": name,
                "row": row,
                "column": column,
                "ours": statistics.fmean(values) if values else None,
                "ours_std": statistics.stdev(values) if len(values) > 1 else None,
                "seeds": len(values),
                "paper": None,
                "difference": None,
            }
        )
    return schema.table(made, schema.TABLES)


def _get(of: Run | dict[str, Any], name: str) -> Any:
    return of[name] if isinstance(of, dict) else getattr(of, name)


def _row(of: Run | dict[str, Any]) -> str:
    return f"{_get(of, 'method')} ({_get(of, 'checkpoint')}, {_get(of, 'backbone')})"


def _columns(of: Run | dict[str, Any]) -> dict[str, str]:
    """Metric -> what its column is called."""
    if shots := _get(of, "shots"):
        return {"accuracy": f"{_get(of, 'dataset')} {shots}-shot"}
    name = datasets.title(_get(of, "dataset"))
    groups = {f"accuracy_{group}": f"{name} {group}" for group in ("many", "medium", "few")}
    return {**groups, "accuracy_class_mean": f"{name} all"}


def cell(row: Mapping[str, Any]) -> str:
    """`54.31 ± 1.20 (3 seeds)`, or a dash where nothing was run."""
    if row["ours"] is None:
        return "-"
    spread = "" if row["ours_std"] is None else f" ± {row['ours_std']:.2f} ({row['seeds']} seeds)"
    return f"{row['ours']:.2f}{spread}"


def markdown(table: pa.Table) -> str:
    """The table as GitHub prints it: a row a method, a column a setting."""
    held = table.to_pylist()
    columns = list(dict.fromkeys(row["column"] for row in held))
    cells = {(row["row"], row["column"]): cell(row) for row in held}
    lines = ["| test accuracy, % | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(row["row"] for row in held):
        lines.append(f"| {name} | " + " | ".join(cells.get((name, column), "-") for column in columns) + " |")
    return "\n".join(lines) + "\n"


def to_csv(table: pa.Table) -> str:
    """The table in its long form."""
    text = io.StringIO()
    writer = csv.DictWriter(text, table.schema.names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.to_pylist())
    return text.getvalue()


def contact_sheet(
    run: Run, shots: Sequence[Shot], images: dict[str, pa.Table], *, each: int = 5, side: int = 64
) -> bytes:
    """A PNG with a row for each class and a block of columns for the real shots and for each method.

    Args:
        run: names the data set.
        shots: its training shots.
        images: title of a block -> rows of schema.IMAGES.
        each: pictures of a block's row.
        side: of a picture, in pixels.
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
        drawn = table.to_pylist()
        some = [[row["image"] for row in drawn if row["class_id"] == k][:each] for k in classes]
        blocks[title] = [[Image.open(io.BytesIO(image)) for image in images] for images in some]
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
