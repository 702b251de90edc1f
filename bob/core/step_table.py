"""The version of each step's meaning, part of the key of all that it makes.

Raise a number by hand when the same inputs would give another output; never for a refactoring.
"""

__all__ = ["STEPS"]

STEPS = {"caption": 1, "finetune": 1, "generate": 1, "embed": 1, "recognise": 1, "classify": 1}
