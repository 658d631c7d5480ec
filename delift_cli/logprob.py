"""Logits to log-probabilities: log-softmax at the wanted tokens, straight on llama.cpp's buffer."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_FASTMATH = {"reassoc", "contract", "nnan", "nsz"}  # not ninf: a vocabulary may mask tokens with -inf


@intrinsic
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 whose bit pattern is the int32 `bits`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@numba.njit(fastmath=_FASTMATH, inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    """exp(x) in float32 for x <= 0, to 2 ulp, in operations that LLVM turns into vector code."""
    x = max(x, np.float32(-87.0))
    n = np.int32(x * np.float32(1.44269504) - np.float32(0.5))
    whole = np.float32(n)
    r = x - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * _float_of_bits((n + np.int32(127)) << np.int32(23))  # type: ignore[call-arg]


@numba.njit(parallel=True, fastmath=_FASTMATH, cache=True)
def _token_logprobs(logits, bounds, tokens, out):  # type: ignore[no-untyped-def]
    for row in numba.prange(len(bounds) - 1):
        values = logits[row]
        top = values[0]
        for value in values:
            top = max(top, value)
        total = 0.0
        for value in values:
            total += np.float64(_exp(value - top))
        normalizer = np.float64(top) + math.log(total)
        for at in range(bounds[row], bounds[row + 1]):
            out[at] = np.float64(values[tokens[at]]) - normalizer


def token_logprobs(
    logits: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], tokens: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Log-probability (nats) of tokens[k] under the softmax of logits[rows[k]].

    Args:
        logits: float32 [r, vocabulary], read in place.
        rows: int64 [c], nondecreasing, naming every row at least once.
        tokens: int32 [c].

    Returns:
        float64 [c]; the sum over the vocabulary is accumulated in float64.
    """
    out = np.empty(len(tokens), np.float64)
    bounds = np.searchsorted(rows, np.arange(len(logits) + 1))
    _token_logprobs(logits, bounds, tokens, out)
    return out
