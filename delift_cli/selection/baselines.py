"""Plain ways to choose, to compare DELIFT with: each gives every record one score that no other record changes.

    method    score, the highest first
    random    a random number from 0 to 1
    length    scored tokens of the response
    loss      mean loss of the response behind its prompt, nats per token: −base_logprob of the cache
    ifd       the same over the mean loss of the response without its prompt; 0 where that ratio is above 1

`ifd` is the instruction-following difficulty of Li et al., "From Quantity to Quality" (NAACL 2024). A prompt that
makes its response less likely (a ratio above 1) does not belong to it, which is why the paper leaves such records out
and why they count as 0 here: they come last, or not at all with a selection that stops at zero.

A score is what the record adds to the subset's value, whatever else is in it. Such a modular objective runs through
the same selector as every other one, so that quotas, lists and budgets hold.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..cache.stored import Stored
from ..errors import InputError
from ..submodular.coverage import MAXIMUM
from ..submodular.kernel import dense_kernel
from ..submodular.objectives import Objective

Floats = npt.NDArray[np.float64]
PerRecord = Literal["random", "length", "loss", "ifd"]


def check_pool(cache: Stored, method: str) -> None:
    """InputError unless each record of the cache was measured without an example, as `loss` and `ifd` need it."""
    cache.check_shared()
    if not cache.square:
        raise InputError(f"{cache.path} is not a pool scored against itself, which --method {method} needs")
    if method in ("loss", "ifd") and not cache.base_complete:
        raise InputError(
            f"{cache.path} does not hold every record's loss yet; run the same delift score command again, "
            "it goes on from there"
        )


def scores(cache: Stored, method: PerRecord, seed: int = 0, alone: npt.NDArray[np.float32] | None = None) -> Floats:
    """float64 [records], none negative: see the table above.

    Args:
        cache: a pool scored against itself.
        seed: of `random`.
        alone: float32 [records], mean log-probability of each response without its prompt; for `ifd`.
    """
    n = cache.shape[0]
    if method == "random":
        return 1.0 - np.random.default_rng(seed).random(n)  # never 0: a record that gains nothing would come last
    if method == "length":
        return cache.response_tokens.astype(np.float64)
    loss = -cache.base_logprob.astype(np.float64)
    if method == "loss":
        return loss
    assert alone is not None
    return difficulty(loss, -alone.astype(np.float64))


def difficulty(loss: Floats, loss_alone: Floats) -> Floats:
    """float64 [records], 0 to 1: loss behind the prompt over loss without it, 0 where that is above 1."""
    ratio = np.divide(loss, loss_alone, out=np.full(len(loss), np.inf), where=loss_alone > 0)
    return np.where(ratio <= 1.0, ratio, 0.0)


def modular(scores: Floats) -> Objective:
    """f(A) = Σ_{j∈A} scores[j]: an objective without targets, so that each record gains its own score."""
    nothing = np.empty(0)
    return Objective("modular", dense_kernel(np.empty((len(scores), 0), np.float32)), MAXIMUM, nothing, nothing, scores)
