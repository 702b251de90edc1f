"""Step 5 and all that is run by name: the paper's experiments, tables, figures, statements and printed numbers."""
