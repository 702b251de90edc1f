"""`bob doctor`: data sets and weights on this machine, origins of the missing ones, and licences."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bob import captioners, datasets
from bob.backbones import Backbone
from bob.commands.unpack import unpack
from bob.core import registry
from bob.diffusion import checkpoints

__all__ = ["DoctorCommand", "Finding", "cached", "look", "show"]


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Shows which data sets and weights are on this machine, where the others come from, and their licences.

    With --unpack, unpacks an official archive: all of it or nothing, and nothing outside the folder.

        bob doctor
        bob doctor --unpack images.tar.gz --to /data/oxford-iiit-pet
    """

    unpack: str = ""
    """Archive to unpack: tar, tar.gz, tgz, tar.bz2, tar.xz or zip."""
    to: str = ""
    """Folder to unpack the archive into."""

    def main(self, arguments: Sequence[str]) -> int:
        """Prints the findings, or unpacks the archive; returns the exit code."""
        if bool(self.unpack) != bool(self.to):
            raise ValueError("--unpack names an archive and --to the folder to unpack it into: give both or neither")
        if self.unpack:
            archive, folder = Path(self.unpack).expanduser(), Path(self.to).expanduser()
            print(f"unpacked into {folder}: {', '.join(unpack(archive, folder))}")
        else:
            show(look())
        return 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Data set or weights that a run can use."""

    kind: str
    """`data set`, `checkpoint`, `captioner` or `backbone`."""
    name: str
    found: bool
    place: str
    """Actual or expected location."""
    wants: tuple[str, ...] = ()
    """Files that are read there, if not found."""
    origin: tuple[str, ...] = ()
    """Addresses to get it from."""
    licence: str = ""
    """Licence of the files."""


def look() -> list[Finding]:
    """Looks for every named data set, T2I checkpoint, captioner and backbone; opens no picture, fetches nothing."""
    return [*_datasets(), *_checkpoints(), *_captioners(), *_backbones()]


def show(findings: list[Finding]) -> None:
    """Prints a paragraph for each finding."""
    for finding in findings:
        print(f"{finding.kind} {finding.name}: {'found' if finding.found else 'NOT FOUND'}, {finding.place}")
        if not finding.found and finding.wants:
            print(f"    wants {', '.join(finding.wants)}")
        for origin in finding.origin:
            print(f"    from {origin}")
        if finding.licence:
            print(f"    licence: {finding.licence}")


def _datasets() -> Iterator[Finding]:
    for name in registry.names("dataset"):
        source = registry.load("dataset", name)
        if not isinstance(source, datasets.Source):
            place = "your own pictures" if name == "folder" else "made by this package"
            yield Finding(kind="data set", name=name, found=True, place=place)
            continue
        place = source.place()
        data_is_set = bool(os.environ.get("BOB_DATA"))
        yield Finding(
            kind="data set",
            name=name,
            found=data_is_set and not source.missing(place),
            place=str(place) if data_is_set else f"{source.folder} in $BOB_DATA, which is not set",
            wants=source.wants,
            origin=source.origin,
            licence=source.licence,
        )


def _checkpoints() -> Iterator[Finding]:
    for name, checkpoint in checkpoints.CHECKPOINTS.items():
        place, revision = checkpoints.source(name)
        hub = checkpoint.repository
        found, place = cached(hub, "model_index.json", revision) if revision else (True, place)
        place = place or _expected(name)
        yield Finding(
            kind="checkpoint",
            name=name,
            found=found,
            place=place,
            origin=_hub(hub, checkpoint.revision),
            licence=checkpoint.licence,
        )


def _captioners() -> Iterator[Finding]:
    for name in registry.names("captioner"):
        loader: captioners.Loader = registry.load("captioner", name)
        for argument, (hub, revision, licence) in loader.origins.items():
            try:
                place, found = str(loader.weights(argument)), True
            except ValueError:
                place, found = _expected(f"{name}-{argument}"), False
            full_name = f"{name}:{argument}"
            origin = _hub(hub, revision)
            yield Finding(kind="captioner", name=full_name, found=found, place=place, origin=origin, licence=licence)


def _backbones() -> Iterator[Finding]:
    for name in registry.names("backbone"):
        backbone = registry.load("backbone", name)
        if not isinstance(backbone, Backbone):  # takes any checkpoint
            continue
        own, origin = Path(os.environ.get("BOB_MODELS", ""), name), _hub(backbone.hub, backbone.commit)
        if not backbone.hub or ("BOB_MODELS" in os.environ and own.is_dir()):
            place = str(own) if backbone.hub else "part of this package"
            yield Finding(kind="backbone", name=name, found=True, place=place, origin=origin)
            continue
        found, place = cached(backbone.hub, "model.safetensors", backbone.commit)
        yield Finding(kind="backbone", name=name, found=found, place=place or _expected(name), origin=origin)


def cached(hub: str, file: str, revision: str | None) -> tuple[bool, str]:
    """Returns whether the cache of the Hugging Face hub has a file, and the file's folder."""
    import huggingface_hub

    path = huggingface_hub.try_to_load_from_cache(hub, file, revision=revision)
    return isinstance(path, str), os.path.dirname(path) if isinstance(path, str) else ""


def _expected(name: str) -> str:
    return f"{os.environ.get('BOB_MODELS', '$BOB_MODELS')}/{name} or the cache of the Hugging Face hub"


def _hub(name: str, revision: str) -> tuple[str, ...]:
    return (f"huggingface.co/{name}/tree/{revision}",) if name else ()
