"""What every other package shares: types, settings, seeds, registry, prompts, batching, timing. No Ray, no files."""
