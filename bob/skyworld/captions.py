"""Captions of the rendered pictures that the mini models are pre-trained on."""

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
"""Templates and their shares. The first two are BOB's and DataDream's; empty captions come on top.

The last one names no class: poses are first learnt from it."""


def caption(template: str, class_name: str, background: str, pose: str) -> str:
    """Returns a filled template."""
    return template.format(d=DESCRIPTOR, c=class_name, b=background, p=pose)


def corpus() -> Iterator[str]:
    """Yields every caption of the base world at least once: the corpus from which the tokenizers learn their merges."""
    for name in (*BASE, DESCRIPTOR):
        for background in BACKGROUNDS:
            for pose in POSES:
                for template, _ in TEMPLATES:
                    yield caption(template, name, background, pose)
