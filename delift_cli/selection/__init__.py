"""Caches in, the subset's lines out: the kernels of one objective, plainer methods, what is written.

`embedded`, which may run the model, is not imported here.
"""

from .baselines import modular, scores
from .blocks import KernelOptions, as_block, default_objective, kernels, objective_over
from .output import render, write

__all__ = [
    "KernelOptions",
    "as_block",
    "default_objective",
    "kernels",
    "modular",
    "objective_over",
    "render",
    "scores",
    "write",
]
