"""Distances between image sets, against independent computations."""

import math

import numpy as np
import pytest
import scipy.linalg

from bob.paper import metrics


def normal(n: int, d: int, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Correlated features of very different scales."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(99).normal(size=(d, d)) * 1.0 / np.arange(1, d + 1)
    return rng.normal(size=(n, d)) @ mixed + shift


def by_root(one: np.ndarray, other: np.ndarray) -> float:
    """As it is mostly computed: a matrix root of full covariances."""
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * np.real(root)))


def by_eigenvalues(one: np.ndarray, other: np.ndarray) -> float:
    """The eigenvalue form, which bears singular covariances."""
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values = np.linalg.eigvals(first @ second).real.clip(0)
    shift = one.mean(0) - other.mean(0)
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.sqrt(values).sum())


@pytest.mark.parametrize(("n1", "n2", "d"), [(300, 200, 24), (65, 130, 64), (40, 500, 8)])
def test_fid_is_that_of_a_matrix_root_where_covariances_have_full_rank(n1: int, n2: int, d: int) -> None:
    one, other = normal(n1, d), normal(n2, d, seed=1, shift=0.3)
    assert metrics.fid(one, other) == pytest.approx(by_root(one, other), rel=1e-6)


def test_fid_is_that_of_the_eigenvalues_where_covariances_are_singular() -> None:
    one, other = normal(20, 60), normal(30, 60, seed=1)
    assert metrics.fid(one, other) == pytest.approx(by_eigenvalues(one, other), rel=1e-6)


def test_fid_of_one_dimension_is_the_formula() -> None:
    one, other = np.array([[0.0], [2.0]]), np.array([[10.0], [16.0]])  # deviations sqrt(2) and sqrt(18)
    assert metrics.fid(one, other) == pytest.approx(12**2 + (math.sqrt(18) - math.sqrt(2)) ** 2)


@pytest.mark.parametrize(("n", "d"), [(10, 64), (200, 16)])
def test_fid_of_equal_sets_is_nothing(n: int, d: int) -> None:
    features = normal(n, d)
    assert metrics.fid(features, features) <= 1e-10 * np.trace(np.cov(features, rowvar=False))


@pytest.mark.parametrize("measure", [metrics.fid, metrics.kid])
@pytest.mark.parametrize(("n", "d"), [(15, 40), (90, 12)])
def test_the_order_of_images_and_of_sets_changes_nothing(measure, n: int, d: int) -> None:
    one, other = normal(n, d).astype(np.float32), normal(n + 3, d, seed=1).astype(np.float32)
    value, order = measure(one, other), np.random.default_rng(2).permutation(n)
    assert measure(one[order], other) == pytest.approx(value, rel=1e-9)
    assert measure(other, one) == pytest.approx(value, rel=1e-9)


def test_fid_of_few_images_is_biased_upwards_and_kid_is_not() -> None:
    halves = [(normal(60, 40, seed=k), normal(60, 40, seed=1000 + k)) for k in range(200)]
    spread = np.trace(np.cov(halves[0][0], rowvar=False))
    assert min(metrics.fid(*pair) for pair in halves) > 0.02 * spread
    values = np.array([metrics.kid(*pair) for pair in halves])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))
    far = metrics.kid(normal(60, 40), normal(60, 40, seed=1, shift=1.0))
    assert far > 5 * values.std()


def test_kid_is_the_mean_over_all_pairs() -> None:
    one, other = normal(4, 3), normal(5, 3, seed=1)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / 3 + 1) ** 3

    first = np.mean([kernel(one[i], one[j]) for i in range(4) for j in range(4) if i != j])
    second = np.mean([kernel(other[i], other[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([kernel(x, y) for x in one for y in other])
    assert metrics.kid(one, other) == pytest.approx(first + second - 2 * across)


def test_diversity_counts_images_that_are_unlike() -> None:
    assert metrics.diversity(np.eye(6)) == pytest.approx(6)
    assert metrics.diversity(np.ones((6, 4))) == pytest.approx(1)
    assert metrics.diversity(np.repeat(np.eye(3), 4, axis=0) * 7) == pytest.approx(3)
    half_alike = metrics.diversity(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert 1 < half_alike < 2


def test_entropy_is_in_bits() -> None:
    assert metrics.entropy(["sky"] * 5) == 0
    assert metrics.entropy([("sky", "left"), ("sky", "right"), ("sea", "left"), ("sea", "right")]) == 2
    assert metrics.entropy(["a", "a", "b", "c"]) == 1.5


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (np.ones((1, 3)), np.ones((2, 3)), "two images at least"),
        (np.ones((2, 3)), np.ones((2, 4)), "widths 3 and 4"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "not finite"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(one: np.ndarray, other: np.ndarray, words: str) -> None:
    for measure in (metrics.fid, metrics.kid):
        with pytest.raises(ValueError, match=words):
            measure(one, other)


def test_an_image_without_features_has_no_cosine() -> None:
    with pytest.raises(ValueError, match="not all zero"):
        metrics.diversity(np.array([[1.0, 0.0], [0.0, 0.0]]))
