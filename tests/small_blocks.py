"""Small random kernels for every objective, with the formula beside it."""

from __future__ import annotations

import numpy as np
import plain_greedy

from delift_cli.submodular.kernel import dense_kernel
from delift_cli.submodular.objectives import make_objective
from delift_cli.submodular.sweeps import similarities

N, T, E = 25, 9, 6


def blocks(name, seed=0):
    """Kernels for an objective, self-pairs excluded, some similarities negative."""
    rng = np.random.default_rng(seed)

    def block(rows, columns):
        return (rng.random((rows, columns)) - 0.4).astype(np.float32)

    pool = dense_kernel(block(N, N), example_group=range(N), target_group=range(N))
    needs = {
        "flmi": ("target",),
        "flvmi": ("target",),
        "fl1mi": ("target",),
        "flcmi": ("target", "existing"),
        "flcg": ("existing",),
    }.get(name, ())
    target = dense_kernel(block(T, N) if name in ("fl1mi", "flcmi") else block(N, T))
    made = {"target": target, "existing": dense_kernel(block(E, N))}
    return pool, {role: made[role] for role in needs}


def both(name, pool, others, **parameters):
    """The objective and its formula over the same blocks."""
    plain = {role: similarities(block) for role, block in others.items()}
    return (
        make_objective(name, pool, **others, **parameters),
        plain_greedy.formula(name, None if pool is None else similarities(pool), **plain, **parameters),
    )
