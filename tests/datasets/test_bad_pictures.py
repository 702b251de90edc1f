"""Unusual and broken picture files: decoded as expected, or refused in one clear sentence."""

import io
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bob.datasets._pictures import open_picture

pytestmark = pytest.mark.timeout(60)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)
CORNERS = Image.fromarray(np.array([[RED, GREEN, WHITE], [BLUE, WHITE, WHITE]], np.uint8)).resize((30, 20), 0)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, kind: str = "PNG") -> bytes:
    """CORNERS as a camera that was held so stores it."""
    turns = [None, 0, 3, 1, 5, 2, 6, 4]  # of PIL's transpositions the one that `orientation` undoes
    turn = turns[orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = CORNERS if turn is None else CORNERS.transpose(Image.Transpose(turn))
    return encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


def with_exif(block: bytes) -> bytes:
    """A JPEG with that EXIF block; Pillow would not write a broken one."""
    plain = encoded(CORNERS, "JPEG", quality=95, subsampling=0)
    segment = b"Exif\0\0" + block
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


def exif_with_text_for_a_number() -> bytes:
    """Orientation 6 and a resolution that is a text, which Pillow can read but not write again."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 0x011A, 2, 4, b"abc\0")
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)


def png(width: int, height: int, *, rows: int) -> bytes:
    """A 1-bit PNG, all white, of which only some rows are there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff" * -(-width // 8)) * rows, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    return encoded(CORNERS, "PNG", pnginfo=text)


def palette() -> bytes:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putdata([0, 1])
    return encoded(picture, "PNG", transparency=1)


def animated(kind: str) -> bytes:
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
    return encoded(first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))


def grey(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, np.uint16))


DECODED: dict[str, tuple[str, Callable[[], bytes], list[tuple[int, int, int]]]] = {
    "CMYK JPEG": ("a.jpg", lambda: encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), [(254, 0, 0)]),
    "progressive JPEG": (
        "a.jpg",
        lambda: encoded(Image.new("RGB", (8, 8), BLUE), "JPEG", progressive=True),
        [(0, 0, 254)],
    ),
    "PNG of 16 bits": ("a.png", lambda: encoded(grey(0x8040), "PNG"), [(128,) * 3]),
    "PNG of 16 bits, nearly black": ("a.png", lambda: encoded(grey(0x0140), "PNG"), [(1,) * 3]),
    "PNG of 1 bit": ("a.png", lambda: png(8, 2, rows=2), [WHITE]),
    "PNG, palette, a colour transparent": ("a.png", palette, [RED, WHITE]),
    "PNG, half transparent": (
        "a.png",
        lambda: encoded(Image.new("RGBA", (2, 2), (*RED, 128)), "PNG"),
        [(255, 127, 127)],
    ),
    "PNG, grey and transparent": ("a.png", lambda: encoded(Image.new("LA", (2, 2), (9, 0)), "PNG"), [WHITE]),
    "GIF, animated": ("a.gif", lambda: animated("GIF"), [RED]),
    "WebP, animated": ("a.webp", lambda: animated("WEBP"), [RED]),
    "PNG named .jpg": ("a.jpg", lambda: encoded(Image.new("RGB", (2, 2), RED), "PNG"), [RED]),
    "1 x 1": ("a.png", lambda: encoded(Image.new("RGB", (1, 1), RED), "PNG"), [RED]),
    "200 x 1": ("a.png", lambda: encoded(Image.new("RGB", (200, 1), RED), "PNG"), [RED]),
    "100 megapixels": ("a.png", lambda: png(10_000, 10_000, rows=10_000), [WHITE]),
}


@pytest.mark.parametrize("case", DECODED)
def test_a_picture_is_decoded(case: str, tmp_path: Path) -> None:
    name, make, expected = DECODED[case]
    (tmp_path / name).write_bytes(make())
    picture = open_picture(tmp_path / name)
    assert picture.mode == "RGB"
    for x, colour in enumerate(expected):
        assert np.abs(np.subtract(picture.getpixel((x, 0)), colour)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(turned(orientation, kind))
    assert np.array_equal(open_picture(tmp_path / "a.png"), CORNERS)


EXIF: dict[str, tuple[Callable[[], bytes], int]] = {
    "noise": (lambda: with_exif(b"II*\0" + bytes(range(250, 50, -1))), 0),
    "not even a header": (lambda: with_exif(b"?"), 0),
    "cut off": (lambda: with_exif(exif_with_text_for_a_number()[:20]), 0),
    "a tag of the wrong type": (lambda: with_exif(exif_with_text_for_a_number()), 1),
    "as large as a JPEG can hold": (lambda: with_exif(exif_with_text_for_a_number() + b"x" * 65_000), 1),
}


@pytest.mark.parametrize("case", EXIF)
def test_a_broken_exif_block_costs_no_picture(case: str, tmp_path: Path) -> None:
    make, turned = EXIF[case]
    (tmp_path / "a.jpg").write_bytes(make())
    expected = CORNERS.transpose(Image.Transpose.ROTATE_270) if turned else CORNERS
    opened = open_picture(tmp_path / "a.jpg")
    assert opened.size == expected.size
    assert np.abs(np.asarray(opened, int) - np.asarray(expected)).mean() < 20


REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "JPEG, truncated": ("a.jpg", lambda: turned(1, "JPEG")[:-60], "[Tt]runcated"),
    "PNG, truncated": ("a.png", lambda: turned(1)[:-60], "(?:truncated|broken)"),
    "GIF, truncated": ("a.gif", lambda: animated("GIF")[:20], "."),
    "no bytes": ("a.png", lambda: b"", "it is no JPEG, PNG, WebP, BMP, GIF or TIFF"),
    "text named .jpg": ("a.jpg", lambda: b"404 not found", "it is no JPEG"),
    "PostScript named .png": ("a.png", lambda: encoded(Image.new("L", (4, 4)), "EPS"), "it is no JPEG"),
    "PNG that claims 60,000 x 60,000": ("a.png", lambda: png(60_000, 60_000, rows=1), "limit of 178956970 pixels"),
    "20,000 x 20,000 of one colour": ("a.png", lambda: png(20_000, 20_000, rows=20_000), "limit of 178956970 pixels"),
    "PNG with a comment that unpacks to more than 1 MB": ("a.png", text_bomb, "too large"),
    "TIFF of 32-bit floats": (
        "a.tif",
        lambda: encoded(Image.new("F", (4, 4), 0.5), "TIFF"),
        "no fixed white: save 8 or",
    ),
    "TIFF of 32-bit integers": ("a.tif", lambda: encoded(Image.new("I", (4, 4), 70_000), "TIFF"), "no fixed white"),
    "1 x 5000": (
        "a.png",
        lambda: encoded(Image.new("L", (1, 5000)), "PNG"),
        "1 x 5000 is a line: .* more than 200 times",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_picture_is_refused(case: str, tmp_path: Path) -> None:
    name, make, reason = REFUSED[case]
    (tmp_path / name).write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ValueError, match=rf"{name} cannot be read as a picture \(.*{reason}.*: replace the file or take"
    ):
        open_picture(tmp_path / name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kB
    assert grown < 200_000  # to decode the larger ones would take gigabytes


def test_the_limit_holds_where_somebody_took_pillows_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000, rows=1))
    with pytest.raises(ValueError, match="60000 x 60000 is more than 178,956,970 pixels"):
        open_picture(tmp_path / "a.png")
