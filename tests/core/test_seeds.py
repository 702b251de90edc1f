"""Golden values of derived seeds: a change here changes every image, split and initialisation ever made."""

import pytest

from bob.core.seeds import derive

GOLDEN = {
    (): 2858069222894195974,
    ("image", "skyworld", 0, 3, 7): 832567321755412601,
    ("image", "skyworld", 0, 3, "7"): 1626780676067541190,
    ("Müller/…", None, True, 0.1): 5017561945628062234,
}


@pytest.mark.parametrize(("coordinates", "seed"), GOLDEN.items())
def test_a_seed_never_changes(coordinates: tuple, seed: int) -> None:
    assert derive(*coordinates) == seed


def test_types_and_borders_count() -> None:
    spellings = [(1,), ("1",), (1.0,), (True,), (None,), ("",), (), ("a", "b"), ("a,b",), ('a","b',), ("b", "a")]
    assert len({derive(*s) for s in spellings}) == len(spellings)


def test_a_seed_fits_every_generator() -> None:
    seeds = [derive("fits", k) for k in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    assert 0.45 < sum(seed >= 2**62 for seed in seeds) / len(seeds) < 0.55


@pytest.mark.parametrize("odd", [[1], (1, 2), b"a", {1}, object()])
def test_only_plain_data_is_taken(odd: object) -> None:
    with pytest.raises(TypeError, match=r"derived from strings, numbers and None, got \w+ .*: pass its id or name"):
        derive("image", odd)  # pyright: ignore[reportArgumentType]
