"""What to do about a matrix that does not fit in memory."""

from __future__ import annotations

import math

from ..machine.memory import free_memory
from ..submodular.kernel import DenseKernel
from ..submodular.objectives import Objective

PART = 4  # a part of a matrix takes a quarter of the free memory


def beyond_memory(goal: Objective) -> str | None:
    """How to select where the objective's matrix is larger than the free memory; None where it is not."""
    kernel = goal.kernel
    if not isinstance(kernel, DenseKernel) or kernel.matrix.nbytes <= (free := free_memory()):
        return None
    size = kernel.matrix.nbytes
    parts = max(2, math.ceil(PART * size / free))
    return (
        f"the matrix has {size / 1e9:.3g} GB and {free / 1e9:.3g} GB of memory are free: exact greedy will read from "
        f"the disk again and again; --greedy partitioned --parts {parts} reads from end to end instead"
    )
