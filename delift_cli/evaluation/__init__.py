"""Subsets and held-out records in, intervals out: what a subset is worth to the model, without training.

`in_context` and `evaluate` run the model, the others do not.
"""
