"""Draws one photograph of skyworld: an airframe in a context, with a little nuisance.

Everything is drawn with Pillow on a 4 x super-sampled canvas and averaged down to a 64 px master;
the mini models see 32 px. What the class fixes is in `_skyworld.Airframe`; what the context fixes is
one of 12 backgrounds and 6 poses; livery, scale, shift, a degree or two of rotation and the
details of sky and ground are nuisance.
"""

import math
from collections.abc import Callable, Collection

import numpy as np
from PIL import Image, ImageDraw

from bob.core.seeds import derive
from bob.datasets._skyworld import BACKGROUNDS, POSES, Airframe, airframes

__all__ = ["MASTER", "render"]

MASTER = 64
"""Side of a master picture in pixels."""

_SIDE = 4 * MASTER
_OUTLINE = (38, 42, 50)
_LIVERIES = (
    ((240, 242, 245), (206, 46, 52)),
    ((240, 242, 245), (34, 84, 176)),
    ((222, 226, 232), (24, 128, 88)),
    ((248, 240, 214), (232, 140, 24)),
)
"""Fuselage and accent colour; which of them is drawn tells nothing about the class."""
_CLIMB = 17.0  # degrees of a climb or a descent


def render(aircraft: str | Airframe, background: str, pose: str, *, seed: int, size: int = MASTER) -> Image.Image:
    """One picture, RGB, `size` x `size`.

    Args:
        aircraft: one of `_skyworld.airframes()`, or a shape of any other.
        background: one of `_skyworld.BACKGROUNDS`.
        pose: one of `_skyworld.POSES`.
        seed: fixes the nuisance; from `seeds.derive`.
        size: side in pixels, at most `MASTER`, averaged down from the super-sampled canvas.

    Raises:
        ValueError: if the class, background or pose does not exist in skyworld.
    """
    shape = airframes()[_known("class", aircraft, airframes())] if isinstance(aircraft, str) else aircraft
    _known("background", background, BACKGROUNDS)
    _known("pose", pose, POSES)
    rng = np.random.default_rng(derive("skyworld", "nuisance", seed))
    canvas = Image.new("RGB", (_SIDE, _SIDE))
    _SCENES[background](ImageDraw.Draw(canvas), rng)
    _draw_aircraft(ImageDraw.Draw(canvas), shape, pose, rng)
    return canvas.resize((size, size), Image.Resampling.BOX)


def _known(what: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise ValueError(f"skyworld has no {what} {value!r}; it has {', '.join(known)}")
    return value


# -- the aircraft -------------------------------------------------------------------------------


def _draw_aircraft(draw: ImageDraw.ImageDraw, a: Airframe, pose: str, rng: np.random.Generator) -> None:
    attitude, heading = pose.split()
    angle = {"level": 0.0, "climbing": _CLIMB, "descending": -_CLIMB}[attitude] + rng.uniform(-2.5, 2.5)
    scale = rng.uniform(0.95, 1.02) * _SIDE / 2
    shift = rng.uniform(-0.035, 0.035, 2)
    body, accent = _LIVERIES[int(rng.integers(len(_LIVERIES)))]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    mirror = -1.0 if heading == "left" else 1.0

    def place(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Aircraft axes (x to the nose, y up, half a picture = 1) to canvas pixels."""
        xy = []
        for x, y in points:
            rx, ry = x * cos - y * sin, x * sin + y * cos
            xy.append((_SIDE / 2 + scale * (mirror * rx + shift[0]), _SIDE / 2 - scale * (ry + shift[1])))
        return xy

    def shape(points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        xy = place(points)
        draw.polygon(xy, fill=fill)
        draw.line([*xy, xy[0]], fill=_OUTLINE, width=3, joint="curve")

    shape(_far_wing(a), _shade(body, 0.72))
    shape(_fin(a), accent)
    shape(_fuselage(a), body)
    if a.hump:
        shape(_hump(a), body)
    for strip in _windows(a):
        draw.polygon(place(strip), fill=(52, 62, 86))
    if a.tail_engine:
        shape(_nacelle(-0.58 * a.length, 0.7 * a.thickness, 0.17, 0.062), _shade(accent, 0.75))
    shape(_tailplane(a), _shade(body, 0.85))
    shape(_wing(a), _shade(body, 0.85))
    if a.winglet:
        shape(_winglet(a), accent)
    for x, y in _engine_places(a):
        shape(_nacelle(x, y, 0.13, 0.058), _shade(accent, 0.75))


def _fuselage(a: Airframe) -> list[tuple[float, float]]:
    length, t = a.length, a.thickness
    tip = {"round": (0.0, 0.16), "pointed": (0.1, 0.34), "droop": (-0.7, 0.3)}[a.nose]
    points = [(-length, 0.55 * t), (-0.62 * length, t)]
    for k in range(7):  # the nose: half an ellipse whose tip moves down for a droop
        phi = math.pi / 2 * (1 - k / 3)
        lean = math.cos(phi)
        points.append((length - tip[1] * (1 - lean), t * math.sin(phi) + tip[0] * t * lean))
    return [*points, (-0.5 * length, -t), (-length, 0.2 * t)]


def _hump(a: Airframe) -> list[tuple[float, float]]:
    x, t = 0.62 * a.length, a.thickness
    return [(x + 0.13, 0.8 * t), (x, t + 0.1), (x - 0.28, t + 0.1), (x - 0.42, 0.95 * t)]


def _fin(a: Airframe) -> list[tuple[float, float]]:
    x, t = -a.length, a.thickness
    if a.fin == "upright":
        return [(x + 0.02, t * 0.5), (x + 0.02, t + 0.26), (x + 0.2, t + 0.26), (x + 0.3, t * 0.5)]
    height, lean = {"swept": (0.3, -0.04), "tall": (0.46, 0.02)}[a.fin]
    return [(x + 0.02, t * 0.5), (x + lean, t + height), (x + lean + 0.14, t + height), (x + 0.36, t * 0.5)]


def _tailplane(a: Airframe) -> list[tuple[float, float]]:
    x = -a.length
    if a.tail == "low":
        y = 0.45 * a.thickness
        return [(x + 0.3, y), (x - 0.01, y - 0.13), (x - 0.08, y - 0.12), (x + 0.06, y)]
    y = a.thickness + {"upright": 0.26, "swept": 0.3, "tall": 0.46}[a.fin]
    return [(x + 0.3, y + 0.01), (x - 0.14, y + 0.06), (x - 0.16, y - 0.01), (x + 0.28, y - 0.05)]


def _wing_root(a: Airframe) -> tuple[float, float]:
    return 0.12 + a.chord / 2, (-0.45 if a.wing == "low" else 0.75) * a.thickness


def _wing(a: Airframe) -> list[tuple[float, float]]:
    x, y = _wing_root(a)
    tip_x, tip_y = x - a.sweep - 0.35 * a.chord, y - a.span
    return [(x, y), (tip_x, tip_y), (tip_x - 0.3 * a.chord, tip_y), (x - a.chord, y)]


def _far_wing(a: Airframe) -> list[tuple[float, float]]:
    x, y = _wing_root(a)
    y = max(y, 0.6 * a.thickness)
    tip_x, tip_y = x - 0.6 * a.sweep - 0.35 * a.chord, y + 0.42 * a.span
    return [(x, y), (tip_x, tip_y), (tip_x - 0.25 * a.chord, tip_y), (x - 0.9 * a.chord, y)]


def _winglet(a: Airframe) -> list[tuple[float, float]]:
    (x, y), (end, _) = _wing(a)[1], _wing(a)[2]
    return [(x, y), (end - 0.06, y + 0.17), (end - 0.13, y + 0.17), (end, y)]


def _engine_places(a: Airframe) -> list[tuple[float, float]]:
    (x, y), (tip_x, tip_y) = _wing(a)[:2]
    at = {0: (), 1: (0.4,), 2: (0.28, 0.7)}[a.engines]
    return [(x + f * (tip_x - x) + 0.05, y + f * (tip_y - y)) for f in at]


def _nacelle(x: float, y: float, half_length: float, half_height: float) -> list[tuple[float, float]]:
    turn = [2 * math.pi * k / 12 for k in range(12)]
    return [(x + half_length * math.cos(p), y + half_height * math.sin(p)) for p in turn]


def _windows(a: Airframe) -> list[list[tuple[float, float]]]:
    low, high, front, back = 0.2 * a.thickness, 0.62 * a.thickness, 0.72 * a.length, -0.6 * a.length
    if a.windows == "band":
        return [[(front, low), (front, high), (back, high), (back, low)]]
    if a.windows == "dots":
        step = (front - back) / 9
        return [
            [(x, low), (x, high), (x - 0.5 * step, high), (x - 0.5 * step, low)]
            for x in (front - k * step for k in range(9))
        ]
    return []


# -- the backgrounds ----------------------------------------------------------------------------


def _shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, round(c * factor))) for c in colour)
    return red, green, blue


def _sky(draw: ImageDraw.ImageDraw, top: tuple, bottom: tuple, until: float = 1.0) -> None:
    rows = round(_SIDE * until)
    for y in range(rows):
        f = y / rows
        colour = tuple(round(a + f * (b - a)) for a, b in zip(top, bottom, strict=True))
        draw.line([(0, y), (_SIDE, y)], fill=colour)


def _ground(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colour: tuple, horizon: float) -> None:
    top = _SIDE * horizon
    draw.rectangle([0, top, _SIDE, _SIDE], fill=colour)
    for _ in range(14):
        x, y = rng.uniform(0, _SIDE), rng.uniform(top, _SIDE)
        w, h = rng.uniform(8, 40), rng.uniform(3, 8)
        draw.ellipse([x - w, y - h, x + w, y + h], fill=_shade(colour, rng.uniform(0.88, 1.1)))


def _blob(draw: ImageDraw.ImageDraw, x: float, y: float, w: float, h: float, colour: tuple) -> None:
    draw.ellipse([x - w, y - h, x + w, y + h], fill=colour)


def _clear_blue_sky(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, _shade((52, 122, 214), rng.uniform(0.92, 1.06)), (150, 200, 244))


def _cloudy_sky(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (120, 156, 196), (176, 196, 214))
    for _ in range(7):
        x, y = rng.uniform(0, _SIDE), rng.uniform(0, _SIDE)
        for _ in range(4):
            dx, dy = rng.uniform(-34, 34), rng.uniform(-8, 8)
            _blob(draw, x + dx, y + dy, rng.uniform(18, 34), rng.uniform(10, 17), (232, 236, 240))


def _orange_sunset(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (150, 62, 60), (255, 168, 48))
    _blob(draw, rng.uniform(40, _SIDE - 40), 0.8 * _SIDE, 26, 26, (255, 226, 110))


def _starry_night(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (6, 8, 30), (22, 26, 70))
    for x, y in rng.uniform(0, _SIDE, (40, 2)):
        _blob(draw, x, y, 2.5, 2.5, (250, 250, 220))


def _snowy_mountain(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (110, 160, 214), (196, 218, 236))
    for x in (0.12, 0.5, 0.88):
        peak = _SIDE * rng.uniform(0.34, 0.46)
        middle, half = _SIDE * x + rng.uniform(-16, 16), 88.0
        draw.polygon([(middle, peak), (middle - half, _SIDE), (middle + half, _SIDE)], fill=(96, 104, 122))
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
        x, y = rng.uniform(0, _SIDE), rng.uniform(0.45 * _SIDE, _SIDE)
        draw.line([(x, y), (x + 24, y)], fill=(150, 192, 214), width=3)


def _grey_runway(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (176, 188, 198), (208, 214, 218), 0.5)
    _ground(draw, rng, (104, 106, 110), 0.45)
    offset = rng.uniform(0, 40)
    for k in range(-1, 6):
        x = offset + 48 * k
        draw.rectangle([x, 0.84 * _SIDE, x + 26, 0.88 * _SIDE], fill=(240, 240, 236))


def _dark_forest(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (84, 112, 116), (120, 146, 136), 0.5)
    draw.rectangle([0, 0.42 * _SIDE, _SIDE, _SIDE], fill=(18, 52, 34))
    for k in range(13):
        x, top = 20 * k + rng.uniform(-6, 6), _SIDE * rng.uniform(0.24, 0.36)
        green = _shade((24, 66, 42), rng.uniform(0.8, 1.2))
        draw.polygon([(x, top), (x - 17, 0.62 * _SIDE), (x + 17, 0.62 * _SIDE)], fill=green)


def _city_skyline(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (150, 158, 182), (214, 206, 200))
    x = -8.0
    while x < _SIDE:
        width, top = rng.uniform(22, 40), _SIDE * rng.uniform(0.36, 0.62)
        draw.rectangle([x, top, x + width, _SIDE], fill=_shade((92, 84, 98), rng.uniform(0.8, 1.15)))
        for y in np.arange(top + 8, _SIDE - 6, 16):
            draw.rectangle([x + 6, y, x + width - 6, y + 5], fill=(244, 216, 130))
        x += width + 2


def _pink_dawn(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(draw, (150, 130, 200), (255, 180, 196))
    for _ in range(3):
        _blob(draw, rng.uniform(0, _SIDE), rng.uniform(0.5, 0.95) * _SIDE, 70, 7, (255, 208, 210))


_SCENES: dict[str, Callable[[ImageDraw.ImageDraw, np.random.Generator], None]] = {
    name: globals()[f"_{name.replace(' ', '_')}"] for name in BACKGROUNDS
}
