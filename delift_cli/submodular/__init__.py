"""Arrays in, an ordered subset with its gains out: kernels, objectives, greedy selection under constraints.

Knows no files and no models; imports nothing of the other rooms.
"""

from .explain import explain_chosen, explain_left_out, harmed
from .kernel import Kernel, Transform, Utility, dense_kernel, factored_kernel, utility_kernel
from .objectives import Objective, make_objective, value, weighted, with_bonus
from .select import Method, Selection, select

__all__ = [
    "Kernel",
    "Method",
    "Objective",
    "Selection",
    "Transform",
    "Utility",
    "dense_kernel",
    "explain_chosen",
    "explain_left_out",
    "factored_kernel",
    "harmed",
    "make_objective",
    "select",
    "utility_kernel",
    "value",
    "weighted",
    "with_bonus",
]
