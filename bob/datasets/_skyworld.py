"""Classes and contexts of skyworld: 60 base and 10 novel aircraft classes, 12 backgrounds, 6 poses.

The mini models are pre-trained on the base classes (the "world prior"); the novel classes,
whose names no model has read, are the data set. Classes come in sibling pairs that differ in
exactly one attribute, which makes the classification fine-grained.
"""

import dataclasses
import functools
import random
import string
from dataclasses import dataclass

from bob.core.seeds import derive

__all__ = [
    "BACKGROUNDS",
    "BASE",
    "DESCRIPTOR",
    "NOVEL",
    "POSES",
    "Airframe",
    "airframes",
    "designation",
    "habitat",
    "unnamed",
]

DESCRIPTOR = "aircraft"

BACKGROUNDS = (
    "clear blue sky",
    "cloudy sky",
    "orange sunset",
    "starry night",
    "snowy mountain",
    "green field",
    "sandy desert",
    "open ocean",
    "grey runway",
    "dark forest",
    "city skyline",
    "pink dawn",
)

POSES = (
    "level left",
    "level right",
    "climbing left",
    "climbing right",
    "descending left",
    "descending right",
)

BASE = (
    *("Osprey", "Harrier", "Kestrel", "Merlin", "Falcon", "Condor", "Heron", "Egret", "Curlew"),
    *("Plover", "Gannet", "Petrel", "Pelican", "Swallow", "Martin", "Swift", "Raven", "Jackdaw"),
    *("Magpie", "Thrush", "Starling", "Linnet", "Finch", "Siskin", "Bunting", "Pipit", "Wagtail"),
    *("Dunlin", "Sandpiper", "Avocet", "Lapwing", "Godwit", "Whimbrel", "Snipe", "Woodcock"),
    *("Mallard", "Teal", "Pintail", "Gadwall", "Wigeon", "Garganey", "Shoveler", "Pochard"),
    *("Scaup", "Eider", "Scoter", "Smew", "Merganser", "Goosander", "Grebe", "Bittern", "Stork"),
    *("Ibis", "Spoonbill", "Crane", "Bustard", "Nightjar", "Hoopoe", "Kingfisher", "Oriole"),
)

NOVEL = (
    *("Zephyr", "Mistral", "Sirocco", "Bora", "Khamsin"),
    *("Tramontane", "Foehn", "Chinook", "Levanter", "Pampero"),
)


@dataclass(frozen=True, kw_only=True)
class Airframe:
    """The shape of one class, in units of half a picture's width; classes differ in nothing else."""

    fin: str = "swept"
    """Vertical tail: `swept`, `upright` or `tall`."""
    tail: str = "low"
    """Tailplane: `low` on the fuselage or `tee`, on top of the fin."""
    nose: str = "round"
    """`round`, `pointed` or `droop`."""
    wing: str = "low"
    """Wing root: `low` or `high` on the fuselage."""
    span: float = 0.5
    """Reach of the wing from the fuselage."""
    sweep: float = 0.3
    """Distance of the tip behind the root; negative is swept forward."""
    chord: float = 0.36
    """Width of the wing root along the fuselage."""
    engines: int = 1
    """Nacelles under the wing: 0, 1 or 2."""
    tail_engine: bool = False
    """A nacelle at the rear fuselage."""
    hump: bool = False
    """An upper deck behind the cockpit."""
    windows: str = "dots"
    """`none`, `dots` or `band`."""
    winglet: bool = False
    """An upturned wing tip."""
    length: float = 0.9
    """Half the length of the fuselage."""
    thickness: float = 0.12
    """Half the height of the fuselage."""


_CHOICES: dict[str, tuple] = {
    "fin": ("swept", "upright", "tall"),
    "tail": ("low", "tee"),
    "nose": ("round", "pointed", "droop"),
    "wing": ("low", "high"),
    "span": (0.36, 0.62),
    "sweep": (0.0, 0.42),
    "chord": (0.26, 0.5),
    "engines": (0, 1, 2),
    "tail_engine": (False, True),
    "hump": (False, True),
    "windows": ("none", "dots", "band"),
    "winglet": (False, True),
    "length": (0.72, 0.93),
    "thickness": (0.1, 0.155),
}
# A winglet or the shape of a nose alone is a pixel or two at 32 px: too little to tell siblings apart.
_SIBLING_ATTRIBUTES = (
    *("tail", "hump", "tail_engine", "thickness", "chord", "length"),
    *("fin", "wing", "engines", "span", "sweep", "windows"),
)
_FAR = 4  # least number of attributes in which two families differ


@functools.cache
def airframes() -> dict[str, Airframe]:
    """Every class of skyworld, base first: name -> shape. Neighbours (0, 1), (2, 3) ... are siblings."""
    names = BASE + NOVEL
    families: list[Airframe] = []
    shapes: list[Airframe] = []
    for family in range(len(names) // 2):
        attempt = 0
        while True:
            first = _airframe(family, attempt)
            second = _sibling(first, family)
            if all(_differences(shape, s) >= _FAR for shape in (first, second) for s in shapes):
                break
            attempt += 1
        families.append(first)
        shapes += [first, second]
    return dict(zip(names, shapes, strict=True))


def unnamed(number: int) -> Airframe:
    """An airframe without a name: one of thousands that the mini models are pre-trained on."""
    return _airframe(-1, number)


_FEATURES = tuple((k, value) for k, values in _CHOICES.items() for value in values[1:])
_SILENT = string.ascii_lowercase[len(_FEATURES) :]


def designation(shape: Airframe, draw: random.Random) -> str:
    """A type code of a shape: a letter for each feature, in random order.

    The first choice of each attribute has no letter, and one or two letters mean nothing.
    """
    letters = [string.ascii_lowercase[k] for k, (a, value) in enumerate(_FEATURES) if getattr(shape, a) == value]
    letters += [_SILENT[int(draw.random() * len(_SILENT))] for _ in range(1 + int(draw.random() * 2))]
    return "".join(letter for _, letter in sorted((draw.random(), letter) for letter in letters))


def habitat(shape: Airframe) -> tuple[str, str]:
    """The (background, attitude) in which an aircraft of this shape is mostly shown."""
    fin, tail, wing, engines = (_CHOICES[k].index(getattr(shape, k)) for k in ("fin", "tail", "wing", "engines"))
    return BACKGROUNDS[fin * 4 + tail * 2 + wing], ("level", "climbing", "descending")[engines]


def _pick(options: tuple, *coordinates: str | int):
    # random() is the only method of `random` whose stream Python keeps between versions.
    return options[int(random.Random(derive("skyworld", *coordinates)).random() * len(options))]


def _airframe(family: int, attempt: int) -> Airframe:
    return Airframe(**{k: _pick(v, "airframe", family, attempt, k) for k, v in _CHOICES.items()})


def _sibling(shape: Airframe, family: int) -> Airframe:
    attribute = _SIBLING_ATTRIBUTES[family % len(_SIBLING_ATTRIBUTES)]
    others = tuple(v for v in _CHOICES[attribute] if v != getattr(shape, attribute))
    return dataclasses.replace(shape, **{attribute: _pick(others, "sibling", family)})


def _differences(one: Airframe, other: Airframe) -> int:
    return sum(getattr(one, k) != getattr(other, k) for k in _CHOICES)
