"""Places in the repository, for tests of whatever depth."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository's root."""
