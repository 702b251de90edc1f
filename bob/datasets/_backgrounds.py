"""The 12 backgrounds of skyworld, painted with Pillow on the renderer's super-sampled canvas."""

from collections.abc import Callable

import numpy as np
from PIL import ImageDraw

__all__ = ["SCENES", "SIDE", "shade"]

SIDE = 256
"""Side of the canvas in pixels."""


def shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    """An RGB colour times `factor`, each channel kept in 0 to 255."""
    red, green, blue = (max(0, min(255, round(c * factor))) for c in colour)
    return red, green, blue


def _sky(draw: ImageDraw.ImageDraw, top: tuple, bottom: tuple, until: float = 1.0) -> None:
    rows = round(SIDE * until)
    for y in range(rows):
        f = y / rows
        colour = tuple(round(a + f * (b - a)) for a, b in zip(top, bottom, strict=True))
        draw.line([(0, y), (SIDE, y)], fill=colour)


def _ground(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: tuple, horizon: float) -> None:
    top = SIDE * horizon
    draw.rectangle([0, top, SIDE, SIDE], fill=colour)
    for _ in range(14):
        x, y = rng.uniform(0, SIDE), rng.uniform(top, SIDE)
        w, h = rng.uniform(8, 40), rng.uniform(3, 8)
        draw.ellipse([x - w, y - h, x + w, y + h], fill=shade(colour, rng.uniform(0.88, 1.1)))


def _blob(draw: ImageDraw.ImageDraw, x: float, y: float, w: float, h: float, colour: tuple) -> None:
    draw.ellipse([x - w, y - h, x + w, y + h], fill=colour)


def _clear_blue_sky(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, shade((52, 122, 214), rng.uniform(0.92, 1.06)), (150, 200, 244))


def _cloudy_sky(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (120, 156, 196), (176, 196, 214))
    for _ in range(7):
        x, y = rng.uniform(0, SIDE), rng.uniform(0, SIDE)
        for _ in range(4):
            dx, dy = rng.uniform(-34, 34), rng.uniform(-8, 8)
            _blob(draw, x + dx, y + dy, rng.uniform(18, 34), rng.uniform(10, 17), (232, 236, 240))


def _orange_sunset(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (150, 62, 60), (255, 168, 48))
    _blob(draw, rng.uniform(40, SIDE - 40), 0.8 * SIDE, 26, 26, (255, 226, 110))


def _starry_night(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (6, 8, 30), (22, 26, 70))
    for x, y in rng.uniform(0, SIDE, (40, 2)):
        _blob(draw, x, y, 2.5, 2.5, (250, 250, 220))


def _snowy_mountain(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (110, 160, 214), (196, 218, 236))
    for x in (0.12, 0.5, 0.88):
        peak = SIDE * rng.uniform(0.34, 0.46)
        middle, half = SIDE * x + rng.uniform(-16, 16), 88.0
        draw.polygon([(middle, peak), (middle - half, SIDE), (middle + half, SIDE)], fill=(96, 104, 122))
        draw.polygon([(middle, peak), (middle - 34, peak + 62), (middle + 34, peak + 62)], fill=(246, 249, 252))


def _green_field(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (126, 184, 236), (196, 222, 240), 0.55)
    _ground(draw, rng, (76, 154, 56), 0.5)


def _sandy_desert(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (150, 196, 226), (236, 222, 184), 0.55)
    _ground(draw, rng, (222, 184, 112), 0.5)


def _open_ocean(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (140, 190, 230), (206, 226, 238), 0.45)
    _ground(draw, rng, (18, 84, 128), 0.4)
    for _ in range(12):
        x, y = rng.uniform(0, SIDE), rng.uniform(0.45 * SIDE, SIDE)
        draw.line([(x, y), (x + 24, y)], fill=(150, 192, 214), width=3)


def _grey_runway(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (176, 188, 198), (208, 214, 218), 0.5)
    _ground(draw, rng, (104, 106, 110), 0.45)
    offset = rng.uniform(0, 40)
    for k in range(-1, 6):
        x = offset + 48 * k
        draw.rectangle([x, 0.84 * SIDE, x + 26, 0.88 * SIDE], fill=(240, 240, 236))


def _dark_forest(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (84, 112, 116), (120, 146, 136), 0.5)
    draw.rectangle([0, 0.42 * SIDE, SIDE, SIDE], fill=(18, 52, 34))
    for k in range(13):
        x, top = 20 * k + rng.uniform(-6, 6), SIDE * rng.uniform(0.24, 0.36)
        green = shade((24, 66, 42), rng.uniform(0.8, 1.2))
        draw.polygon([(x, top), (x - 17, 0.62 * SIDE), (x + 17, 0.62 * SIDE)], fill=green)


def _city_skyline(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (150, 158, 182), (214, 206, 200))
    x = -8.0
    while x < SIDE:
        width, top = rng.uniform(22, 40), SIDE * rng.uniform(0.36, 0.62)
        draw.rectangle([x, top, x + width, SIDE], fill=shade((92, 84, 98), rng.uniform(0.8, 1.15)))
        for y in np.arange(top + 8, SIDE - 6, 16):
            draw.rectangle([x + 6, y, x + width - 6, y + 5], fill=(244, 216, 130))
        x += width + 2


def _pink_dawn(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (150, 130, 200), (255, 180, 196))
    for _ in range(3):
        _blob(draw, rng.uniform(0, SIDE), rng.uniform(0.5, 0.95) * SIDE, 70, 7, (255, 208, 210))


SCENES: dict[str, Callable[[ImageDraw.ImageDraw, np.random.Generator], None]] = {
    "clear blue sky": _clear_blue_sky,
    "cloudy sky": _cloudy_sky,
    "orange sunset": _orange_sunset,
    "starry night": _starry_night,
    "snowy mountain": _snowy_mountain,
    "green field": _green_field,
    "sandy desert": _sandy_desert,
    "open ocean": _open_ocean,
    "grey runway": _grey_runway,
    "dark forest": _dark_forest,
    "city skyline": _city_skyline,
    "pink dawn": _pink_dawn,
}
"""Background, as `_skyworld.BACKGROUNDS` names them -> function that paints it over a canvas of `SIDE` pixels."""
