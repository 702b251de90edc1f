"""The only source of randomness: a seed is a hash of the coordinates of what it is for.

Nothing in `bob` calls a global random generator. An image, a split, a shuffle or an
initialisation gets `derive("image", dataset, run_seed, class_id, index)` or the like, so a result
does not depend on shard, worker, order or retry.
"""

import hashlib
import json

__all__ = ["derive"]

_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))  # to make one takes as long as to use it


def derive(*coordinates: str | int | float | bool | None) -> int:
    """A seed in [0, 2**63) from what it is for.

    Args:
        coordinates: what tells this use from every other, most general first. Their types
            count: `derive(1)` is not `derive("1")`.

    Returns:
        The first 63 bits of the SHA-256 of the coordinates as JSON. The same on every machine and
        for ever; fits `torch.Generator.manual_seed` and `numpy.random.default_rng`.

    Raises:
        TypeError: if a coordinate is not plain data, for its text might change between runs.
    """
    for coordinate in coordinates:
        if not isinstance(coordinate, str | int | float | bool | None):
            raise TypeError(
                f"a seed is derived from strings, numbers and None, got {type(coordinate).__name__}"
                f" {coordinate!r}: pass its id or name instead"
            )
    text = _ENCODER.encode(coordinates)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
