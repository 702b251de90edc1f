"""What may leave this machine: names without the folders that they lie in, and what is known of a checkpoint."""

import re
from dataclasses import dataclass

from bob.core import registry
from bob.datasets import Source
from bob.diffusion import checkpoints

__all__ = ["Model", "licence_of", "model", "public"]


def public(name: str) -> str:
    """A data set's, checkpoint's or captioner's name: `folder:/home/jane/birds` -> `folder:birds`."""
    return re.sub(r"(^|:)([^:]*/)", r"\1", name.rstrip("/"))


@dataclass(frozen=True, kw_only=True)
class Model:
    """What drew the images."""

    name: str
    """On the hub, where it is there."""
    revision: str
    licence: str
    """Empty: not known."""

    @property
    def words(self) -> str:
        """Name and revision."""
        return f"{self.name} ({self.revision})" if self.revision else self.name


def model(checkpoint: str) -> Model:
    """What is known of a T2I checkpoint by its name, wherever it now lies."""
    known = checkpoints.CHECKPOINTS.get(checkpoint)
    if known is None:
        return Model(name=public(checkpoint).removeprefix("path:"), revision="", licence="")
    name = known.repository or f"{checkpoint} mini Stable Diffusion of beyond-objects"
    return Model(name=name, revision=known.revision, licence=known.licence)


def licence_of(dataset: str) -> str:
    """What binds the users of a data set's real images; empty where that is not known here."""
    kind = dataset.partition(":")[0]
    source = registry.load("dataset", kind) if kind in registry.names("dataset") else None
    return source.licence if isinstance(source, Source) else ""
