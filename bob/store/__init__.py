"""Artefacts on any pyarrow filesystem: content-addressed, atomic, present = complete.

`store` reads and writes the folder or bucket, `keys` hashes what an artefact depends on, `schema` defines the tables,
`commit` writes a finished unit, `lock` keeps a second command out, `images` reads a set of drawn images.
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
