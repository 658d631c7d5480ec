"""Subsets and held-out records in, intervals out: what a subset is worth to the model, without training.

`in_context`, which runs the model, is not imported here.
"""

from .intervals import Interval, Outcome, outcomes, random_subsets

__all__ = ["Interval", "Outcome", "outcomes", "random_subsets"]
