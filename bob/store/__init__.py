"""Artefacts on any pyarrow filesystem: content-addressed, atomic, present = complete.

`store` is the folder or bucket itself, `keys` what names an artefact, `schema` the tables' columns, `commit` how a
worker writes a unit, `lock` what keeps two commands apart, `images` a set of drawn images.
"""

from bob.store.keys import key, key_of_rows, plain, slug
from bob.store.provenance import FORMAT, OtherFormatError, provenance, user, without_keys
from bob.store.store import Store, quarantine, scores

__all__ = [
    "FORMAT",
    "OtherFormatError",
    "Store",
    "key",
    "key_of_rows",
    "plain",
    "provenance",
    "quarantine",
    "scores",
    "slug",
    "user",
    "without_keys",
]
