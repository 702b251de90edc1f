"""Unpacks an archive somebody else made: all of it or nothing, and nothing outside the folder."""

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

__all__ = ["unpack"]


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpacks a tar (also .tar.gz, .tgz, .tar.bz2, .tar.xz) or zip archive.

    Everything is first unpacked beside its place, out of sight, and moved there at the end; what lies there stays.

    Args:
        archive: a local file.
        folder: where to; made if it is not there.

    Returns:
        The names that are new in `folder`, sorted.

    Raises:
        ValueError: if it is no archive, is damaged, a member would land outside of `folder` or is a device, or a name
            is there already; nothing is left behind.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as aside:
            _extract(archive, Path(aside))
            names = sorted(child.name for child in Path(aside).iterdir())
            if twice := [name for name in names if (folder / name).exists()]:
                raise ValueError(f"{folder} has {twice[0]} already: move that away, or unpack somewhere else")
            for name in names:
                shutil.move(Path(aside, name), folder / name)
        return names
    except OSError as error:
        raise ValueError(f"cannot unpack {archive} into {folder} ({error}): nothing was left there") from error


def _extract(archive: Path, aside: Path) -> None:
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(aside, filter=_guarded)
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for name in _inside(packed.namelist(), archive):
                    packed.extract(name, aside)
        else:
            raise ValueError(f"{archive} is no tar or zip archive: download it again")
    except tarfile.FilterError as error:
        raise ValueError(f"nothing of {archive} was unpacked: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} is damaged ({error}): download it again") from error


def _guarded(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
    """Python's own filter, which only takes the slash off an absolute name."""
    if _leaves(member.name):
        raise tarfile.OutsideDestinationError(member, member.name)
    return tarfile.data_filter(member, place)


def _inside(names: list[str], archive: Path) -> Iterator[str]:
    for name in names:
        if _leaves(name):
            raise ValueError(f"nothing of {archive} was unpacked: {name!r} would land outside of the folder")
        yield name


def _leaves(name: str) -> bool:
    absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
    return absolute or ".." in PureWindowsPath(name).parts
