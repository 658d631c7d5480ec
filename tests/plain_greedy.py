"""The objectives as their formulas stand, and a greedy that evaluates them anew for every candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Value = Callable[[list[int]], float]


def formula(
    name: str,
    pool: Any = None,
    target: Any = None,
    existing: Any = None,
    eta: float = 1.0,
    nu: float = 1.0,
    alpha: float = 0.3,
    p: float = 2.0,
    beta: float = 1.0,
    depth: int = 3,
) -> Value:
    """f(A) from similarity matrices: pool V x V; target V x T, or T x V for fl1mi and flcmi; existing E x V."""
    pool, target, existing = (None if block is None else np.maximum(0.0, block) for block in (pool, target, existing))

    def best(rows: Any) -> Any:
        return rows.max(axis=0) if rows.shape[0] else np.zeros(rows.shape[1])

    def relevance(block: Any, A: list[int]) -> float:
        return eta * float(sum(block[j].max() for j in A))

    if name == "fl":
        return lambda A: best(pool[A]).sum()
    if name == "flmi":
        return lambda A: best(pool[A]).sum() + relevance(target, A)
    if name == "flvmi":
        return lambda A: best(target[A]).sum() + relevance(target, A)
    if name == "fl1mi":
        return lambda A: np.minimum(best(pool[A]), eta * best(target)).sum()
    if name == "flcg":
        return lambda A: np.maximum(best(pool[A]) - nu * best(existing), 0.0).sum()
    if name == "flcmi":
        return lambda A: np.maximum(np.minimum(best(pool[A]), eta * best(target)) - nu * best(existing), 0.0).sum()
    swept = pool if target is None else target
    if name == "topm":
        weights = 1.0 / np.arange(1, depth + 1)[:, None]
        known = np.zeros((depth, swept.shape[1])) if existing is None else nu * existing

        def ranked(rows: Any) -> float:
            padded = np.concatenate([rows, np.zeros((depth, rows.shape[1]))])
            return float((weights * np.sort(padded, axis=0)[::-1][:depth]).sum())

        return lambda A: ranked(np.concatenate([known, swept[A]])) - ranked(known) + relevance(swept, A)

    def inside(s: Any) -> Any:
        """What is added up."""
        if name == "lp":
            return s**p
        with np.errstate(divide="ignore"):  # what is certain leaves nothing to others
            return -beta * np.log1p(-np.minimum(s, 1.0)) if name == "noisyor" else s

    summed = inside(swept)
    before = np.zeros(swept.shape[1]) if existing is None else nu * inside(existing).sum(axis=0)
    curves = {
        "sqrt": np.sqrt,
        "log1p": np.log1p,
        "saturated": lambda x: np.minimum(x, alpha * swept.sum(axis=0)),
        "lp": lambda x: x ** (1.0 / p),
        "noisyor": lambda x: -np.expm1(-x),
    }
    curve = curves[name]
    return lambda A: (curve(before + summed[A].sum(axis=0)) - curve(before)).sum() + relevance(swept, A)


def plain_greedy(f: Value, n: int, k: int) -> tuple[list[int], list[float]]:
    """The k best in turn, ties (to 1e-12) to the lower index; stops early when nothing gains."""
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < k:
        now = f(chosen)
        gain = np.array([-1.0 if j in chosen else f([*chosen, j]) - now for j in range(n)])
        j = int(np.flatnonzero(gain >= gain.max() - 1e-12)[0])
        if gain[j] <= 1e-12:
            break
        chosen.append(j)
        gains.append(float(gain[j]))
    return chosen, gains
