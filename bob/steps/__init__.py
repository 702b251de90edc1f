"""The steps, a file each: which units a run has, named by all that they depend on, and the worker that does one.

The same workers run inline in a for-loop and inside Ray's actors. Each loads its model at the first unit and keeps it;
a unit is committed by the worker itself, and only its receipt goes back.
"""
