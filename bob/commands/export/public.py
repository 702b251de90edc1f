"""Public names of data sets and models, without this machine's folders, and their licences."""

import re
from dataclasses import dataclass

from bob.core import registry
from bob.datasets import Source
from bob.diffusion import checkpoints

__all__ = ["Model", "licence_of", "model", "public"]


def public(name: str) -> str:
    """Strips the folders from a name or address: `folder:/home/jane/birds` -> `folder:birds`."""
    return re.sub(r"(^|:)([^:]*/)", r"\1", name.rstrip("/"))


@dataclass(frozen=True, kw_only=True)
class Model:
    """Model that drew the images."""

    name: str
    """Repository on the hub, if any."""
    revision: str
    licence: str
    """Licence of the weights; empty if unknown."""

    @property
    def words(self) -> str:
        """Name and revision."""
        return f"{self.name} ({self.revision})" if self.revision else self.name


def model(checkpoint: str) -> Model:
    """Returns the public name, revision and licence of a T2I checkpoint."""
    official = checkpoints.CHECKPOINTS.get(checkpoint)
    if official is None:
        return Model(name=public(checkpoint).removeprefix("path:"), revision="", licence="")
    name = official.repository or f"{checkpoint} mini Stable Diffusion of beyond-objects"
    return Model(name=name, revision=official.revision, licence=official.licence)


def licence_of(dataset: str) -> str:
    """Returns the licence of a data set's real images; empty if unknown."""
    kind = dataset.partition(":")[0]
    source = registry.load("dataset", kind) if kind in registry.names("dataset") else None
    return source.licence if isinstance(source, Source) else ""
