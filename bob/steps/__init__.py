"""Work units and workers of the steps, one file per step.

A unit's path holds a hash of all that the unit depends on. The same workers run inline in a for-loop and inside Ray's
actors. A worker loads its model at the first unit and keeps it; it commits the unit and returns only a receipt.
"""
