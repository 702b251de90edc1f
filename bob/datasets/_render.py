"""Renderer of skyworld: one picture of an aircraft of a class, in a background and a pose.

Pictures are drawn with Pillow on a 4 x super-sampled canvas and averaged down to a 64 px master; the mini models
see 32 px. The class fixes the shape (`_skyworld.Airframe`), the context one of 12 backgrounds (`_backgrounds`) and one
of 6 poses. Livery, scale, shift, a few degrees of rotation and the details of the background are random.
"""

import math
from collections.abc import Collection

import numpy as np
from PIL import Image, ImageDraw

from bob.core.seeds import derive
from bob.datasets._backgrounds import SCENES, SIDE, shade
from bob.datasets._skyworld import BACKGROUNDS, POSES, Airframe, airframes

__all__ = ["MASTER", "render"]

MASTER = SIDE // 4
"""Side of a master picture in pixels."""

_OUTLINE = (38, 42, 50)
_LIVERIES = (
    ((240, 242, 245), (206, 46, 52)),
    ((240, 242, 245), (34, 84, 176)),
    ((222, 226, 232), (24, 128, 88)),
    ((248, 240, 214), (232, 140, 24)),
)
"""(fuselage, accent) colours; independent of the class."""
_CLIMB = 17.0  # degrees of a climb or a descent


def render(aircraft: str | Airframe, background: str, pose: str, *, seed: int, size: int = MASTER) -> Image.Image:
    """One picture, RGB, `size` x `size`.

    Args:
        aircraft: a name in `_skyworld.airframes()`, or any other shape.
        background: one of `_skyworld.BACKGROUNDS`.
        pose: one of `_skyworld.POSES`.
        seed: seed of livery, scale, shift, rotation and background details; from `seeds.derive`.
        size: side in pixels, at most `MASTER`, averaged down from the super-sampled canvas.

    Raises:
        ValueError: if the class, background or pose does not exist in skyworld.
    """
    shape = airframes()[_known("class", aircraft, airframes())] if isinstance(aircraft, str) else aircraft
    _known("background", background, BACKGROUNDS)
    _known("pose", pose, POSES)
    rng = np.random.default_rng(derive("skyworld", "nuisance", seed))
    canvas = Image.new("RGB", (SIDE, SIDE))
    SCENES[background](ImageDraw.Draw(canvas), rng)
    _draw_aircraft(ImageDraw.Draw(canvas), shape, pose, rng)
    return canvas.resize((size, size), Image.Resampling.BOX)


def _known(what: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise ValueError(f"skyworld has no {what} {value!r}; it has {', '.join(known)}")
    return value


def _draw_aircraft(draw: ImageDraw.ImageDraw, a: Airframe, pose: str, rng: np.random.Generator) -> None:
    attitude, heading = pose.split()
    angle = {"level": 0.0, "climbing": _CLIMB, "descending": -_CLIMB}[attitude] + rng.uniform(-2.5, 2.5)
    scale = rng.uniform(0.95, 1.02) * SIDE / 2
    shift = rng.uniform(-0.035, 0.035, 2)
    body, accent = _LIVERIES[int(rng.integers(len(_LIVERIES)))]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    mirror = -1.0 if heading == "left" else 1.0

    def place(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Aircraft axes (x to the nose, y up, half a picture = 1) to canvas pixels."""
        xy = []
        for x, y in points:
            rx, ry = x * cos - y * sin, x * sin + y * cos
            xy.append((SIDE / 2 + scale * (mirror * rx + shift[0]), SIDE / 2 - scale * (ry + shift[1])))
        return xy

    def shape(points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        xy = place(points)
        draw.polygon(xy, fill=fill)
        draw.line([*xy, xy[0]], fill=_OUTLINE, width=3, joint="curve")

    shape(_far_wing(a), shade(body, 0.72))
    shape(_fin(a), accent)
    shape(_fuselage(a), body)
    if a.hump:
        shape(_hump(a), body)
    for strip in _windows(a):
        draw.polygon(place(strip), fill=(52, 62, 86))
    if a.tail_engine:
        shape(_nacelle(-0.58 * a.length, 0.7 * a.thickness, 0.17, 0.062), shade(accent, 0.75))
    shape(_tailplane(a), shade(body, 0.85))
    shape(_wing(a), shade(body, 0.85))
    if a.winglet:
        shape(_winglet(a), accent)
    for x, y in _engine_places(a):
        shape(_nacelle(x, y, 0.13, 0.058), shade(accent, 0.75))


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
