"""Measures of sets of images, from their features: numpy alone, float64 throughout.

A set of features is an array (n, d), a row an image, of any float type. No measure depends on the order of its rows.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

__all__ = ["diversity", "entropy", "fid", "kid"]


def fid(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance between the normal distributions with the means and covariances of two sets.

        |mean1 - mean2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2)

    The last trace is exact whatever the rank: with the centred sets A and B it is the nuclear norm of A B^T divided
    by sqrt((n1 - 1)(n2 - 1)). So there is no matrix root, and no epsilon for singular covariances.

    Where n is not much larger than d the distance is biased upwards by far: two sets of one distribution do not give 0.
    Compare only values of the same n, and with the value between two real sets.

    Source: Heusel et al. 2017, arXiv:1706.08500 (FID, there of Inception features).

    Args:
        one: (n1, d), n1 at least 2.
        other: (n2, d), n2 at least 2.

    Returns:
        The distance in the features' units squared; 0 for equal sets.

    Raises:
        ValueError: if a set has fewer than two rows or values that are not finite, or the widths differ.
    """
    one, other = _pair(one, other)
    a, b = one - one.mean(0), other - other.mean(0)
    scale_a, scale_b = len(a) - 1, len(b) - 1
    nuclear = np.linalg.svd(_root(a) @ _root(b).T, compute_uv=False).sum() / np.sqrt(scale_a * scale_b)
    shift = one.mean(0) - other.mean(0)
    distance = shift @ shift + (a * a).sum() / scale_a + (b * b).sum() / scale_b - 2 * nuclear
    return max(0.0, float(distance))


def kid(one: np.ndarray, other: np.ndarray) -> float:
    """Kernel distance: the unbiased estimate of MMD^2 with the kernel (x.y / d + 1)^3.

    Takes all pairs of the two sets. The usual mean over subsets of 1,000 estimates the same distance with more
    variance, and a class has about 100 images.

    Source: Binkowski et al. 2018, arXiv:1801.01401 (KID, there of Inception features).

    Args:
        one: (n1, d), n1 at least 2.
        other: (n2, d), n2 at least 2.

    Returns:
        The estimate, without unit; its mean over sets of one distribution is 0, so it may be negative.

    Raises:
        ValueError: as `fid` does.
    """
    one, other = _pair(one, other)
    return float(_within(one) + _within(other) - 2 * _cubic(one, other).mean())


def diversity(features: np.ndarray) -> float:
    """Vendi score: the number of completely dissimilar images that are as diverse as the set.

    exp of the entropy (in nats) of the eigenvalues of K / n, K being the cosines between the images. The score grows
    with n: compare only sets of the same n.

    Source: Friedman and Dieng 2023, arXiv:2210.02410.

    Args:
        features: (n, d), n at least 2.

    Returns:
        A number of images, from 1 (all alike) to n (all at right angles).

    Raises:
        ValueError: if there are fewer than two rows, or a row is zero or not finite.
    """
    features = _checked(features)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    if not length.all():
        raise ValueError("a cosine wants features that are not all zero; the extractor sees nothing in some image")
    share = np.linalg.svd(features / length, compute_uv=False) ** 2 / len(features)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def entropy(values: Sequence[Hashable]) -> float:
    """Entropy of the values' frequencies in bits, from 0 (all the same) to log2(n) (all different)."""
    share = np.array(sorted(Counter(values).values())) / len(values)
    return float(abs((share * np.log2(share)).sum()))


def _cubic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _within(features: np.ndarray) -> float:
    kernel = _cubic(features, features)
    return (kernel.sum() - kernel.trace()) / (len(features) * (len(features) - 1))


def _root(centred: np.ndarray) -> np.ndarray:
    """Returns a matrix with the same A^T A in at most as many rows as columns, so that products stay small."""
    return centred if len(centred) <= centred.shape[1] else np.asarray(np.linalg.qr(centred, mode="r"))


def _pair(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    one, other = _checked(one), _checked(other)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"two sets want features of one extractor, got widths {one.shape[1]} and {other.shape[1]}")
    return one, other


def _checked(features: np.ndarray) -> np.ndarray:
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        raise ValueError(f"a set of features has the shape (images, width), two images at least, got {features.shape}")
    features = features.astype(np.float64)
    if not np.isfinite(features).all():
        raise ValueError("a set of features holds values that are not finite")
    return features
