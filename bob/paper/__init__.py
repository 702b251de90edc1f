"""Step 5: the paper's experiments by name, its tables, figures, countable statements and printed numbers."""
