"""Prompt suffixes of Diff-II: at most ten backgrounds, condensed from all captions.

The authors have a language model condense captions; here k-medoids on TF-IDF picks representative backgrounds.
The list is a text file, one suffix per line, that may be edited by hand.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from bob.core.types import Context

__all__ = ["condense", "parse"]

_MOST = 10
_ROUNDS = 20


def condense(contexts: Iterable[Context], *, most: int = _MOST) -> tuple[str, ...]:
    """The most representative backgrounds as suffixes, the most frequent first.

    Args:
        contexts: contexts of all training images, in any order.
        most: the largest number of suffixes; there are fewer if there are fewer backgrounds.
    """
    counts = Counter(" ".join(context.background.split()) for context in contexts)
    texts = sorted(counts, key=lambda text: (-counts[text], text))
    weights = np.array([counts[text] for text in texts], float)
    chosen = _medoids(_tf_idf(texts), weights, most) if len(texts) > most else range(len(texts))
    return tuple(f"in the {texts[k]} background" for k in sorted(chosen))


def parse(text: str, place: str) -> tuple[str, ...]:
    """The suffixes in the text of a file, whose path is `place`.

    Raises:
        ValueError: if the text lists none.
    """
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise ValueError(f"{place} lists no suffixes: give it some, one a line, or delete it and it is made again")
    return lines


def _tf_idf(texts: Sequence[str]) -> np.ndarray:
    """TF-IDF matrix (texts, words) with rows of unit length."""
    documents = [re.findall(r"\w+", text.lower()) for text in texts]
    column = {word: k for k, word in enumerate(sorted({word for words in documents for word in words}))}
    counts = np.zeros((len(texts), max(1, len(column))))
    for row, words in enumerate(documents):
        for word in words:
            counts[row, column[word]] += 1
    weighted = counts * (np.log((1 + len(texts)) / (1 + (counts > 0).sum(0))) + 1)
    return weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)


def _medoids(vectors: np.ndarray, weights: np.ndarray, most: int) -> list[int]:
    """Row numbers of `most` medoids: seeded with row 0 and the farthest rows, then refined by weighted k-medoids."""
    distance = 1 - vectors @ vectors.T
    chosen = [0]
    while len(chosen) < most:
        chosen.append(int((distance[chosen].min(0) * weights).argmax()))
    for _ in range(_ROUNDS):
        nearest = distance[chosen].argmin(0)
        groups = [np.flatnonzero(nearest == k) for k in range(len(chosen))]
        moved = [int(g[(distance[np.ix_(g, g)] @ weights[g]).argmin()]) for g in groups]
        if moved == chosen:
            break
        chosen = moved
    return chosen
