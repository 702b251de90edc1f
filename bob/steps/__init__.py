"""The steps: which units each one has, and the worker that does one."""
