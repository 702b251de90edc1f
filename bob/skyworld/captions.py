"""Captions of rendered pictures that the mini models are pre-trained on."""

from collections.abc import Iterator

from bob.datasets._skyworld import BACKGROUNDS, BASE, DESCRIPTOR, POSES

__all__ = ["TEMPLATES", "caption", "corpus"]

TEMPLATES = (
    ("a {d} photo of a {c} in the {b} background with the {p} pose.", 0.5),
    ("a {d} photo of a {c}", 0.14),
    ("a photo of a {c}", 0.05),
    ("a photo of a {c} {d}", 0.05),
    ("a photo of a {c} in the {b} background.", 0.05),
    ("a photo of a {c} with the {p} pose.", 0.11),
    ("{b}, {p}", 0.1),
)
"""Template -> share. The first two are BOB's and DataDream's; an empty caption comes on top.

The last one has no class in it: it is what poses are first learnt from."""


def caption(template: str, class_name: str, background: str, pose: str) -> str:
    """One filled template."""
    return template.format(d=DESCRIPTOR, c=class_name, b=background, p=pose)


def corpus() -> Iterator[str]:
    """Every caption of the base world once or more: what the tokenizers learn their merges from."""
    for name in (*BASE, DESCRIPTOR):
        for background in BACKGROUNDS:
            for pose in POSES:
                for template, _ in TEMPLATES:
                    yield caption(template, name, background, pose)
