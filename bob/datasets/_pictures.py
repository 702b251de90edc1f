"""Readers of picture files: checked, turned upright and converted to RGB."""

import contextlib
import hashlib
import io
import stat
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decode", "describe", "open_picture", "picture_size", "read_file", "readable"]

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # other formats run programs (EPS) or hold no photographs
_PIXELS = 178_956_970  # Pillow's own limit: a camera's 100 megapixels pass, a decompression bomb does not
_RATIO = 200  # Qwen2.5-VL's limit; fine-tuning would enlarge 1 x 5000 to gigabytes


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns an `OSError` into a `ValueError` that names the file.

    Raises:
        ValueError: if the block raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise ValueError(f"{where} cannot be read ({error.strerror}): replace the file or take it out") from error


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: if the file is missing, unreadable, a folder, pipe or device; names it.
    """
    with readable(path):
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe blocks for ever
            raise ValueError(f"{path} is no file but a folder, pipe or device: take it out")
        return path.read_bytes()


def picture_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header.

    Raises:
        ValueError: if the header is none that `open_picture` accepts; says why.
    """
    with _header(content) as picture:
        return picture.size


def open_picture(path: Path, *, sha1: str = "") -> "Image.Image":
    """Reads one picture file, turns it upright by its EXIF tag and converts it to RGB.

    Transparent pixels become white; of an animation the first picture is read, of 16 bits the
    upper 8. With a broken EXIF block the picture is not turned.

    Args:
        path: a JPEG, PNG, WebP, BMP, GIF or TIFF, whatever its suffix.
        sha1: hex SHA-1 of the file's bytes when the split was drawn; empty: unknown.

    Raises:
        ValueError: if the file is missing, truncated, no picture, has changed, is larger than 179
            megapixels, or one side is more than 200 times the other; names the file.
    """
    return decode(read_file(path), str(path), sha1=sha1)


def decode(content: bytes, name: str, *, sha1: str = "") -> "Image.Image":
    """`open_picture` of a file's bytes; `name` names the file in errors.

    Raises:
        ValueError: as `open_picture` does.
    """
    if sha1 and hashlib.sha1(content, usedforsecurity=False).hexdigest() != sha1:
        raise ValueError(f"{name} has changed since the split was drawn: give the same command again")
    try:
        with _header(content) as picture:
            return _rgb(_upright(picture))
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as a picture ({error}): replace the file or take it out") from error


def describe(content: bytes) -> tuple[str, int, int]:
    """SHA-1, width and height; the size is 0 x 0 if the header is broken, which `decode` then reports."""
    sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    try:
        return sha1, *picture_size(content)
    except ValueError:
        return sha1, 0, 0


@contextlib.contextmanager
def _header(content: bytes) -> Iterator["Image.Image"]:
    """Opens a picture and checks its size; pixels are decoded on access."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and broken tags, which are harmless here
            with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
                width, height = picture.size
                if width * height > _PIXELS:
                    raise ValueError(f"{width} x {height} is more than {_PIXELS:,} pixels")
                if max(width, height) > _RATIO * min(width, height):
                    raise ValueError(f"{width} x {height} is a line: one side is more than {_RATIO} times the other")
                yield picture
    except UnidentifiedImageError as error:
        raise ValueError("it is no JPEG, PNG, WebP, BMP, GIF or TIFF") from error
    # Pillow's readers raise any of these on a broken file.
    except (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error).rstrip(".")) from error


def _upright(picture: "Image.Image") -> "Image.Image":
    """Applies the EXIF orientation. `ImageOps.exif_transpose` rewrites the EXIF block, which fails on a broken one."""
    from PIL import ExifTags, Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    picture.load()  # turns a TIFF and removes its tag
    turn = turns.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: "Image.Image") -> "Image.Image":
    from PIL import Image

    if picture.mode in ("I", "F"):
        raise ValueError(f"mode {picture.mode} holds 32-bit numbers, which have no fixed white: save 8 or 16 bits")
    if picture.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8: nearly all white
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
