"""What a subset offers a held-out record: curves over the utilities of its records, candidates for an objective."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
POWERS = (1.5, 2.0, 3.0, 4.0, 8.0)
BETAS = (0.3, 1.0, 3.0)
SHARES = (0.1, 0.3)  # of what the whole pool gives, where `saturated` stops


def offers(chosen: Floats, whole: Floats, *, pmi: bool) -> dict[str, Floats]:
    """Each curve's value for every target.

    Args:
        chosen: float64 [k, targets], utilities of the subset's records, k > 0.
        whole: float64 [n, targets], those of the whole pool.
        pmi: utilities are nats per token, not differences of distances (which are at most 1).

    Returns:
        float64 [targets] by name. Where it is not said otherwise negative utilities count as 0, as in `--kernel clip`.
    """
    helpful, harmful = np.maximum(chosen, 0), np.minimum(chosen, 0)
    ranked = -np.sort(-helpful, axis=0)
    sums = helpful.sum(axis=0)
    found = {
        "best": ranked[0],
        "best, below 0 too": chosen.max(axis=0),
        "second": ranked[min(1, len(ranked) - 1)],
        "third": ranked[min(2, len(ranked) - 1)],
        "sum (p = 1)": sums,
        "sum, below 0 too": chosen.sum(axis=0),
        "mean": chosen.mean(axis=0),
        "sum of the harmful": harmful.sum(axis=0),
        "share of the harmful": -(chosen < 0).mean(axis=0),
        "sqrt": np.sqrt(sums),
        "log1p": np.log1p(sums),
    }
    for depth in (2, 3, 5, 10, 20):
        top = ranked[:depth]
        found[f"top {depth}: 1, 1/2, …"] = (top / np.arange(1, len(top) + 1)[:, None]).sum(axis=0)
    for depth in (3, 10):
        found[f"top {depth}, alike"] = ranked[:depth].sum(axis=0)
    for power in POWERS:
        found[f"lp, p = {power:g}"] = (helpful**power).sum(axis=0) ** (1 / power)
    # Of a chance to be missed: 1 - s where utilities are at most 1, e^-s of nats.
    missed = helpful if pmi else -np.log1p(-np.minimum(helpful, 0.99))
    for beta in BETAS:
        found[f"noisy-or, beta = {beta:g}"] = -np.expm1(-beta * missed.sum(axis=0))
    for share in SHARES:
        found[f"saturated, {share:g}"] = np.minimum(sums, share * np.maximum(whole, 0).sum(axis=0))
    return found
