"""Table 7: which breeds of Oxford-IIIT Pets are classes of ImageNet, derived from the names of both.

The paper (sec. B.3) says that 22 of 39 are, and lists 35. There are 37: its table lacks American Bulldog and Yorkshire
Terrier. By names 25 are: the paper's 22, Yorkshire Terrier, Leonberger (ImageNet's Leonberg) and American Pit Bull
Terrier, which ImageNet holds as a synonym of American Staffordshire terrier.
"""

import csv
import importlib.resources
from collections.abc import Sequence

import pyarrow as pa

from bob import store
from bob.core.types import Outcome
from bob.store import schema, tables

__all__ = ["BREEDS", "present", "rows"]

BREEDS = tuple(
    "Abyssinian, American Bulldog, American Pit Bull Terrier, Basset Hound, Beagle, Bengal, Birman, Bombay, Boxer,"
    " British Shorthair, Chihuahua, Egyptian Mau, English Cocker Spaniel, English Setter, German Shorthaired,"
    " Great Pyrenees, Havanese, Japanese Chin, Keeshond, Leonberger, Maine Coon, Miniature Pinscher, Newfoundland,"
    " Persian, Pomeranian, Pug, Ragdoll, Russian Blue, Saint Bernard, Samoyed, Scottish Terrier, Shiba Inu, Siamese,"
    " Sphynx, Staffordshire Bull Terrier, Wheaten Terrier, Yorkshire Terrier".split(", ")
)
"""The data set's classes, in the order of class ids."""

_IMAGENET_NAMES = {
    "Egyptian Mau": "Egyptian cat",
    "German Shorthaired": "German short-haired pointer",
    "Japanese Chin": "Japanese spaniel",
    "Leonberger": "Leonberg",
    "Wheaten Terrier": "soft-coated wheaten terrier",
}
"""Breed -> its name in ImageNet, where the two differ."""


def rows() -> pa.Table:
    """Returns rows of schema.OVERLAP, a breed each, in the order of class ids."""
    from timm.data import ImageNetInfo

    imagenet = ImageNetInfo()
    classes = {}
    for synset in imagenet.label_names():
        described = str(imagenet.label_name_to_description(synset, detailed=False))
        for name in described.split(", "):
            classes.setdefault(_plain(name), (synset, described))
    text = (importlib.resources.files("bob") / "paper" / "table7_pets.csv").read_text(encoding="utf-8")
    printed = {row["class"]: row["imagenet_id"] for row in csv.DictReader(text.splitlines())}
    rows = []
    for breed in BREEDS:
        name = _plain(_IMAGENET_NAMES.get(breed, breed))
        imagenet_id, imagenet_name = next(
            (classes[n] for n in (name, f"{name}cat", f"{name}dog") if n in classes), ("", "")
        )
        paper = printed.get(breed)
        names = {"class_name": breed, "imagenet_id": imagenet_id, "imagenet_name": imagenet_name}
        rows.append({**names, "paper": paper})
    return tables.from_rows(rows, schema.OVERLAP)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalpha())


def present(outcomes: Sequence[Outcome], artefacts: store.Store, *, name: str) -> str:
    """Writes `tables/NAME.parquet` and `.md`, and returns the Markdown; needs no outcomes."""
    table = rows()
    lines = ["| breed | ImageNet | called | paper |", "|---|---|---|---|"]
    for row in table.to_pylist():
        paper = "not listed" if row["paper"] is None else row["paper"] or "-"
        lines.append(f"| {row['class_name']} | {row['imagenet_id'] or '-'} | {row['imagenet_name'] or '-'} | {paper} |")
    ours, theirs = (sum(1 for value in table[column].to_pylist() if value) for column in ("imagenet_id", "paper"))
    lines.append(f"\n{ours} of {len(table)} breeds are classes of ImageNet; the paper finds {theirs} of its 35.")
    text = "\n".join(lines) + "\n"
    artefacts.write_table(f"tables/{name}.parquet", table, store.provenance([]))
    artefacts.write(f"tables/{name}.md", text.encode())
    return text
