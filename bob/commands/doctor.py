"""What is on this machine and what is not: data sets and weights, with where to get them and who may use them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bob import captioners, datasets
from bob.backbones import Backbone
from bob.commands.unpack import unpack
from bob.core import registry
from bob.diffusion import checkpoints

__all__ = ["DoctorCommand", "Finding", "look", "show"]


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Shows which data sets and weights are on this machine, where the others come from, and their licences.

    Unpacks an official archive, all of it or nothing, and nothing outside the folder.

        bob doctor
        bob doctor --unpack images.tar.gz --to /data/oxford-iiit-pet
    """

    unpack: str = ""
    """An archive to unpack: tar, tar.gz, tgz, tar.bz2, tar.xz or zip."""
    to: str = ""
    """The folder to unpack it into."""

    def main(self, arguments: Sequence[str]) -> int:
        """Does it and prints what came; returns the exit code."""
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
    """One thing that a run can ask for."""

    kind: str
    """`data set`, `checkpoint`, `captioner` or `backbone`."""
    name: str
    found: bool
    place: str
    """Where it lies, or should lie."""
    wants: tuple[str, ...] = ()
    """The files that are read there; of what is not found."""
    origin: tuple[str, ...] = ()
    """Where it comes from."""
    licence: str = ""
    """What binds the user."""


def look() -> list[Finding]:
    """Every data set, T2I checkpoint, captioner and backbone that has a name; opens no picture, fetches nothing."""
    return [*_datasets(), *_checkpoints(), *_captioners(), *_backbones()]


def show(findings: list[Finding]) -> None:
    """Prints them, a paragraph each."""
    for of in findings:
        print(f"{of.kind} {of.name}: {'found' if of.found else 'NOT FOUND'}, {of.place}")
        if not of.found and of.wants:
            print(f"    wants {', '.join(of.wants)}")
        for origin in of.origin:
            print(f"    from {origin}")
        if of.licence:
            print(f"    licence: {of.licence}")


def _datasets() -> Iterator[Finding]:
    for name in registry.names("dataset"):
        source = registry.load("dataset", name)
        if not isinstance(source, datasets.Source):
            place = "your own pictures" if name == "folder" else "made by this package"
            yield Finding(kind="data set", name=name, found=True, place=place)
            continue
        place = source.place()
        known = bool(os.environ.get("BOB_DATA"))
        yield Finding(
            kind="data set",
            name=name,
            found=known and not source.missing(place),
            place=str(place) if known else f"{source.folder} in $BOB_DATA, which is not set",
            wants=source.wants,
            origin=source.origin,
            licence=source.licence,
        )


def _checkpoints() -> Iterator[Finding]:
    for name, known in checkpoints.CHECKPOINTS.items():
        place, revision = checkpoints.source(name)
        hub = known.repository
        found, place = _cached(hub, "model_index.json", revision) if revision else (True, place)
        place = place or _wanted(name)
        yield Finding(kind="checkpoint", name=name, found=found, place=place, origin=_hub(hub), licence=known.licence)


def _captioners() -> Iterator[Finding]:
    for name in registry.names("captioner"):
        loader: captioners.Loader = registry.load("captioner", name)
        for argument, (hub, licence) in loader.origins.items():
            try:
                place, found = str(loader.weights(argument)), True
            except ValueError:
                place, found = _wanted(f"{name}-{argument}"), False
            called = f"{name}:{argument}"
            yield Finding(kind="captioner", name=called, found=found, place=place, origin=_hub(hub), licence=licence)


def _backbones() -> Iterator[Finding]:
    for name in registry.names("backbone"):
        backbone = registry.load("backbone", name)
        if not isinstance(backbone, Backbone):  # takes any checkpoint
            continue
        own = Path(os.environ.get("BOB_MODELS", ""), name)
        if not backbone.hub or ("BOB_MODELS" in os.environ and own.is_dir()):
            place = str(own) if backbone.hub else "part of this package"
            yield Finding(kind="backbone", name=name, found=True, place=place, origin=_hub(backbone.hub))
            continue
        found, place = _cached(backbone.hub, "model.safetensors", None)
        yield Finding(kind="backbone", name=name, found=found, place=place or _wanted(name), origin=_hub(backbone.hub))


def _cached(hub: str, file: str, revision: str | None) -> tuple[bool, str]:
    """Whether the cache of the Hugging Face hub has a file, and the folder that it is in."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(hub, file, revision=revision)
    return isinstance(found, str), os.path.dirname(found) if isinstance(found, str) else ""


def _wanted(name: str) -> str:
    return f"{os.environ.get('BOB_MODELS', '$BOB_MODELS')}/{name} or the cache of the Hugging Face hub"


def _hub(name: str) -> tuple[str, ...]:
    return (f"huggingface.co/{name}",) if name else ()
