"""Safe unpacking of foreign archives: all of an archive or nothing, and nothing outside the folder."""

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

__all__ = ["unpack"]


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpacks a tar (also .tar.gz, .tgz, .tar.bz2, .tar.xz) or zip archive.

    The members are first unpacked into a hidden folder inside `folder` and moved at the end; existing files stay.

    Args:
        archive: a local file.
        folder: target folder; created if missing.

    Returns:
        The names added to `folder`, sorted.

    Raises:
        ValueError: if the file is no archive or is damaged, a member would land outside of `folder` or is a device, or
            a name exists already; nothing is left behind.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as staging:
            _extract(archive, Path(staging))
            names = sorted(child.name for child in Path(staging).iterdir())
            if existing := [name for name in names if (folder / name).exists()]:
                raise ValueError(f"{folder} has {existing[0]} already: move that away, or unpack somewhere else")
            for name in names:
                shutil.move(Path(staging, name), folder / name)
        return names
    except OSError as error:
        raise ValueError(f"cannot unpack {archive} into {folder} ({error}): nothing was left there") from error


def _extract(archive: Path, staging: Path) -> None:
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(staging, filter=_data_filter)
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for name in _require_inside(packed.namelist(), archive):
                    packed.extract(name, staging)
        else:
            raise ValueError(f"{archive} is no tar or zip archive: download it again")
    except tarfile.FilterError as error:
        raise ValueError(f"nothing of {archive} was unpacked: {error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} is damaged ({error}): download it again") from error


def _data_filter(member: tarfile.TarInfo, place: str) -> tarfile.TarInfo:
    """Python's data filter, but refuses absolute names, from which that filter only strips the slash."""
    if _is_outside(member.name):
        raise tarfile.OutsideDestinationError(member, member.name)
    return tarfile.data_filter(member, place)


def _require_inside(names: list[str], archive: Path) -> Iterator[str]:
    for name in names:
        if _is_outside(name):
            raise ValueError(f"nothing of {archive} was unpacked: {name!r} would land outside of the folder")
        yield name


def _is_outside(name: str) -> bool:
    absolute = PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)
    return absolute or ".." in PureWindowsPath(name).parts
