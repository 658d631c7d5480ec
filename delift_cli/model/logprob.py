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

from ..compiled import jit, threads_for

_POLYNOMIAL = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 6, domain=[-0.5, 0.5])
_C0, _C1, _C2, _C3, _C4, _C5, _C6 = _POLYNOMIAL.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
NANOSECONDS = 1.0  # that one thread takes for a logit
_LOG2_E = np.float32(math.log2(math.e))
_FASTMATH = {"reassoc", "contract", "nnan", "nsz"}  # not ninf: a vocabulary may mask tokens with -inf


@intrinsic
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 whose bit pattern is the int32 `bits`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _bits_of_float(typing_context: Any, value: Any) -> Any:
    """The bit pattern of a float32 as an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@numba.njit(fastmath=_FASTMATH, inline="always")
def _power_of_two(t):  # type: ignore[no-untyped-def]
    """2**t in float32 for t <= 0, in operations that LLVM turns into vector code.

    The whole part of t goes into the exponent's bits. The fraction, from -1/2 to 1/2, goes through the polynomial
    that interpolates 2**f at the Chebyshev points of that interval; it is off by 2e-7 at most.
    """
    t = max(t, np.float32(-125.0))
    whole = np.int32(t - np.float32(0.5))
    f = t - np.float32(whole)
    p = _C6
    p = p * f + _C5
    p = p * f + _C4
    p = p * f + _C3
    p = p * f + _C2
    p = p * f + _C1
    p = p * f + _C0
    return _float_of_bits(_bits_of_float(p) + (whole << np.int32(23)))  # type: ignore[call-arg]


@jit(parallel=True, fastmath=_FASTMATH)
def _token_logprobs(logits, bounds, tokens, out):  # type: ignore[no-untyped-def]
    for row in numba.prange(len(bounds) - 1):
        values = logits[row]
        top = values[0]
        for i in range(values.size):
            top = max(top, values[i])
        shift = -top * _LOG2_E
        total = 0.0
        for i in range(values.size):
            total += np.float64(_power_of_two(values[i] * _LOG2_E + shift))
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
    with threads_for(logits.size * NANOSECONDS):
        _token_logprobs(logits, bounds, tokens, out)
    return out
