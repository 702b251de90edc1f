"""`bob report`: one HTML file with the tables, figures and pictures of a store. Needs no server and no network.

Text from users, such as names of classes and prompts, cannot become markup: it is escaped here, the script inserts it
as text, and the page's content security policy allows no other script and no requests.
"""

import base64
import hashlib
import html
import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any

import tyro
from pyarrow import fs

from bob.commands import console
from bob.commands.report.gallery import TINY, Gallery, collect
from bob.store import Store, files
from bob.store.images import Walk

__all__ = ["Report", "ReportCommand", "show", "write"]

LIMIT = 10_000
"""Most pictures on a page that a telephone can show."""
_PAPER = re.compile(r"(.*), (paper [\d.]+(?:, [-+][\d.]+)?)")
"""Value of a cell and the paper's, as `bob.paper.render` writes them."""


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Writes one HTML file with the tables, figures and pictures of a folder. It needs no server and no network.

    bob report out
    bob report s3://bucket/out --to report.html
    """

    out: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="OUT")]] = "out"
    """The --out of `bob run`: a folder, s3://bucket/prefix or gs://bucket/prefix."""
    to: str = ""
    """File to write; empty: report.html in the folder itself."""

    def main(self, arguments: Sequence[str]) -> int:
        """Writes the page and prints its content and size; returns the exit code."""
        show(write(Store(self.out), to=self.to, walk=console.walk))
        return 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """Place and content of a written page."""

    place: str
    size: int
    """Bytes."""
    tables: int
    figures: int
    pictures: int


def write(artefacts: Store, *, to: str = "", limit: int = LIMIT, walk: Walk = iter) -> Report:
    """Writes the page, whole or not at all.

    Args:
        artefacts: the store; may be in use.
        to: path on this machine; empty: `report.html` in the store.
        limit: the most pictures; see `gallery.collect`.
        walk: shows progress.

    Raises:
        ValueError: if the store does not exist or has nothing to show, a file in it is damaged, or `to` cannot be
            written.
    """
    listing = sorted(artefacts.listing())
    tables = [path for path in listing if path.startswith("tables/") and path.endswith(".md")]
    sheets = [path for path in listing if path.startswith("tables/") and path.endswith(".png")]
    figures = [path for path in listing if path.startswith("figures/") and path.endswith(".svg")]
    target = _target(to)
    gallery = collect(artefacts, limit=limit, walk=walk)
    if not (tables or figures or gallery.images):
        raise ValueError(f"nothing in {artefacts.place()} can be shown: name a folder that `bob run` has written to")
    content = _page(artefacts, tables, sheets, figures, gallery).encode()
    if target:
        try:
            files.create(fs.LocalFileSystem(), str(target), lambda sink: sink.write(content))
        except OSError as error:
            raise ValueError(f"cannot write {target}: {files.words(error)}. Choose another --to") from error
    else:
        artefacts.write("report.html", content)
    return Report(
        place=str(target or artefacts.place("report.html")),
        size=len(content),
        tables=len(tables),
        figures=len(figures),
        pictures=len(gallery.images),
    )


def show(report: Report) -> None:
    """Prints place, content and size of the page."""
    content = f"{report.pictures:,} pictures, {report.tables} tables, {report.figures} figures"
    print(f"{report.place}: {content}, {console.amount(report.size)}")


def _target(to: str) -> Path | None:
    if "://" in to:
        raise ValueError(f"--to is a file on this machine, got {to!r}: leave it out, and the page is kept in the store")
    target = Path(to).expanduser().absolute() if to else None
    if target and target.is_dir():
        raise ValueError(f"--to is a file, but {target} is a folder: give the file's name too")
    return target


def _page(
    artefacts: Store, tables: Iterable[str], sheets: Iterable[str], figures: Sequence[str], gallery: Gallery
) -> str:
    folder = importlib.resources.files("bob.commands.report")
    style, script, page = (
        folder.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html")
    )
    return Template(page).substitute(
        place=html.escape(artefacts.place()),
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)};"
        " base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        notes="".join(f"<p class=note>{html.escape(note)}</p>" for note in _notes(gallery)),
        tables="".join(_table(artefacts, path) for path in tables)
        or "<p class=none>No tables yet: a run ends with one.</p>",
        sheets="".join(_sheet(artefacts, path) for path in sheets),
        figures="".join(_figure(artefacts, path) for path in figures),
        figures_hidden="" if figures else "hidden",
        data=_json({"tiny": TINY, "sets": gallery.sets, "texts": gallery.texts, "images": gallery.images}),
        thumbnails="\n".join(gallery.thumbnails),
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: Any) -> str:
    """Encodes data for a script element, which ends at the first `</script`."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _notes(gallery: Gallery) -> Iterator[str]:
    if gallery.each:
        yield (
            f"There are {gallery.whole:,} images. The page shows {len(gallery.images):,} of them: the first"
            f" {gallery.each:,} of each set and class."
        )
    yield from gallery.notes


def _table(artefacts: Store, path: str) -> str:
    """Renders a Markdown table, with its marks of the best cells; other lines become paragraphs."""
    lines = artefacts.read(path).decode().splitlines()
    rows = [_parts(line) for line in lines if line.startswith("|")]
    others = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line.strip() and not line.startswith("|"))
    name = html.escape(Path(path).stem)
    head = "".join(f"<th scope=col>{_cell(text)}</th>" for text in rows[0]) if rows else ""
    body = []
    for first, *rest in rows[2:]:  # rows[1] is the line of dashes
        cells = "".join(f"<td>{_cell(text)}</td>" for text in rest)
        body.append(f"<tr><th scope=row>{_cell(first)}</th>{cells}</tr>")
    return (
        f'<div class=scroll tabindex=0 role=region aria-label="Table {name}"><table><caption>{name}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{others}"
    )


def _parts(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _cell(text: str) -> str:
    """Renders a cell with its mark, and the paper's value below ours."""
    for mark, tag in ((r"\*\*(.*)\*\*", "b"), ("<u>(.*)</u>", "u")):
        if marked := re.fullmatch(mark, text):
            return f"<{tag}>{_cell(marked[1])}</{tag}>"
    ours, paper = _PAPER.sub(r"\1", text), _PAPER.sub(r"\2", text)
    return html.escape(ours) + (f"<small>{html.escape(paper)}</small>" if paper != ours else "")


def _figure(artefacts: Store, path: str) -> str:
    """Embeds a figure as an image, in which an SVG runs no script and fetches nothing."""
    name, data = html.escape(Path(path).stem), base64.b64encode(artefacts.read(path)).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<figure><img src="{source}" alt="Figure {name}"><figcaption>{name}</figcaption></figure>'


def _sheet(artefacts: Store, path: str) -> str:
    name, data = html.escape(Path(path).stem), base64.b64encode(artefacts.read(path)).decode()
    picture = f'<img src="data:image/png;base64,{data}" alt="The first images of each class and method">'
    return f"<details><summary>Contact sheet {name}</summary><div class=scroll tabindex=0>{picture}</div></details>"
