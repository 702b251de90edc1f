"""Seeds, the only source of randomness: hashes of the coordinates of their use.

Nothing in `bob` calls a global random generator. An image, a split, a shuffle or an initialisation gets
`derive("image", dataset, run_seed, class_id, index)` or the like, so a result does not depend on shard, worker, order
or retry.
"""

import hashlib
import json

__all__ = ["derive"]

_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))  # creating an encoder takes as long as using it


def derive(*coordinates: str | int | float | bool | None) -> int:
    """Returns a seed in [0, 2**63) from the coordinates of its use.

    Args:
        coordinates: values that identify this use, most general first. Their types count: `derive(1)` is not
            `derive("1")`.

    Returns:
        The first 63 bits of the SHA-256 of the coordinates as JSON. The same on every machine and for ever; fits
        `torch.Generator.manual_seed` and `numpy.random.default_rng`.

    Raises:
        TypeError: if a coordinate is not plain data, whose text might change between runs.
    """
    for coordinate in coordinates:
        if not isinstance(coordinate, str | int | float | bool | None):
            raise TypeError(
                f"a seed is derived from strings, numbers and None, got {type(coordinate).__name__}"
                f" {coordinate!r}: pass its id or name instead"
            )
    text = _ENCODER.encode(coordinates)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
