"""Log-probabilities of scored tokens to what is stored of a pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import RunError


class Measures(NamedTuple):
    """What the model said of some targets: float32 [targets].

    With p the probabilities of the L scored tokens (each turn's end among them), distance is ‖1 − p‖₂ / √L
    (DELIFT, arXiv 2411.04425, section 3) and logprob the mean of ln p, in nats per token.
    """

    distance: npt.NDArray[np.float32]
    logprob: npt.NDArray[np.float32]

    def taken(self, places: npt.NDArray[np.int64]) -> Measures:
        """Those of some targets, in another order."""
        return Measures(self.distance[places], self.logprob[places])


class NotFiniteError(RunError):
    """The model gave a probability that is not a number.

    Args:
        target: the place of the target that shows it.
        example: that of the example in front of it, None for none.
    """

    def __init__(self, target: int, example: int | None = None) -> None:
        self.target, self.example = target, example
        where = f"target {target + 1}" + ("" if example is None else f" behind example {example + 1}")
        super().__init__(self.of(where))

    @staticmethod
    def of(where: str) -> str:
        """The message for a pair that is called `where`."""
        return (
            f"the model gave a probability of {where} that is not a number; try --flash-attn off or --weights f32, "
            "and check the model file"
        )


def measures_of(logprobs: npt.NDArray[np.float64], bounds: npt.NDArray[np.int64]) -> Measures:
    """Distance and mean log-probability of the scored tokens of targets laid end to end.

    Raises:
        NotFiniteError: with the place of the first response that holds one.
    """
    wrong = np.flatnonzero(~np.isfinite(logprobs))
    if len(wrong):
        raise NotFiniteError(int(np.searchsorted(bounds, wrong[0], side="right")) - 1)
    lengths = np.diff(bounds)
    squared = np.add.reduceat(np.square(-np.expm1(logprobs)), bounds[:-1])
    total = np.add.reduceat(logprobs, bounds[:-1])
    return Measures(np.sqrt(squared / lengths).astype(np.float32), (total / lengths).astype(np.float32))
