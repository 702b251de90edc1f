"""Basics that all packages share: types, settings, seeds, registry, prompts, batching, timing. No Ray, no files."""
