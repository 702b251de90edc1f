"""Paths in the repository that tests at any depth use."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository's root."""
