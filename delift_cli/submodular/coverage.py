"""How far targets are covered: curves of a target's similarities, with a state that grows with the subset. Compiled.

A target's value is a curve of the similarities of the chosen examples, s counted from zero. What an example adds
follows from the curve's state, one or a few numbers for each target; choosing it moves the state on:

    curve      state of a target               gain                       then
    MAXIMUM    c, the best so far              max(0, s - c)              c = max(c, s)
    CAPPED     c, the best so far              max(0, min(s, cap) - c)    c = max(c, min(s, cap))
    SQRT       r, root of the sum so far       sqrt(r^2 + s) - r          r = sqrt(r^2 + s)
    LOG1P      w = 1 / (1 + sum so far)        log(1 + s w)               w = w / (1 + s w)
    SATURATED  r, room left below the ceiling  min(s, r)                  r = r - min(s, r)
    POWER      q = sum of s^p, r = q^(1/p)     (q + s^p)^(1/p) - r        q = q + s^p
    NOISY_OR   q = product of (1 - s)^b        q (1 - (1 - s)^b)          q = q (1 - s)^b
    TOP        the m best, v_1 >= v_2 >= ...   sum_d step_d max(0, s - v_d)  s takes its place among them

POWER, NOISY_OR and TOP have a parameter: p, b, or how many count. TOP's steps are differences of its weights: its
value is sum_d w_d v_d with falling weights w, which is sum_d (w_d - w_{d+1}) (sum of the d best), and the gain of
a sum of the d best is max(0, s - v_d).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..compiled import jit
from .kernel import FASTMATH, Array, Kernel, as_float
from .sweeps import (
    TOGETHER,
    load_row,
    load_rows,
    loaded_row,
    may_cover,
    measured_pairs,
    scattered,
    segment,
    segment_count,
)

MAXIMUM, CAPPED, SQRT, LOG1P, SATURATED, POWER, NOISY_OR, TOP = range(8)

# log(1 + a) + log(1 + b) + ... is taken as the logarithm of a product, in LANES products of FACTORS factors each:
# few enough that factors up to 2**32 do not overflow.
LANES = 32
FACTORS = 32


class Coverage(NamedTuple):
    """How far each target is covered: what compiled code carries along and updates."""

    curve: int
    parameter: float  # p of POWER, b of NOISY_OR
    steps: Array  # float64[depth] of TOP, else float64[0]
    state: Array  # float64[depth, m]
    cap: Array  # float64[m] for CAPPED, else float64[0]
    weight: Array  # float64[m], what each target counts; float64[0]: 1
    bonus: Array  # float64[n]


# A compiled function is compiled again inside of each that calls it. The small ones between the curves and the loops
# are therefore inlined before: a first selection compiles in half the time.

# Whether targets are weighted does not change inside of a loop: LLVM makes two loops of each of these.


@jit(fastmath=FASTMATH)
def _segment_gain(
    coverage: Coverage, x: Array, slope: float, offset: Array, begin: int, end: int, cap: Array, weight: Array
) -> float:
    curve, weighted, gain = coverage.curve, weight.size > 0, 0.0
    state = coverage.state[0, begin:end]
    if curve == MAXIMUM:  # state >= 0: a negative similarity never gains, no need to cut it at zero first
        for i in range(x.size):
            g = max(0.0, slope * as_float(x[i]) + offset[i] - state[i])
            gain += weight[i] * g if weighted else g
    elif curve == CAPPED:
        for i in range(x.size):
            g = max(0.0, min(slope * as_float(x[i]) + offset[i], cap[i]) - state[i])
            gain += weight[i] * g if weighted else g
    elif curve == SQRT:
        for i in range(x.size):
            s = max(0.0, slope * as_float(x[i]) + offset[i])
            g = np.sqrt(state[i] * state[i] + s) - state[i]
            gain += weight[i] * g if weighted else g
    elif curve == LOG1P and weighted:
        for i in range(x.size):
            gain += weight[i] * np.log1p(state[i] * max(0.0, slope * as_float(x[i]) + offset[i]))
    elif curve == LOG1P:
        product = np.empty(LANES)
        for first in range(0, x.size, LANES * FACTORS):
            product[:] = 1.0
            for start in range(first, min(x.size, first + LANES * FACTORS), LANES):
                stop = min(x.size, start + LANES)
                x_, offset_, state_ = x[start:stop], offset[start:stop], state[start:stop]
                for i in range(x_.size):
                    product[i] *= 1.0 + state_[i] * max(0.0, slope * as_float(x_[i]) + offset_[i])
            for i in range(LANES):
                gain += np.log(product[i])
    elif curve == SATURATED:
        for i in range(x.size):
            g = min(max(0.0, slope * as_float(x[i]) + offset[i]), state[i])
            gain += weight[i] * g if weighted else g
    elif curve == POWER:
        powers, p = coverage.state[1, begin:end], coverage.parameter
        if p == 2.0:
            for i in range(x.size):
                s = max(0.0, slope * as_float(x[i]) + offset[i])
                g = max(0.0, np.sqrt(powers[i] + s * s) - state[i])
                gain += weight[i] * g if weighted else g
        else:
            for i in range(x.size):
                s = slope * as_float(x[i]) + offset[i]
                if s > 0.0:
                    g = max(0.0, (powers[i] + s**p) ** (1.0 / p) - state[i])
                    gain += weight[i] * g if weighted else g
    elif curve == NOISY_OR:
        b = coverage.parameter
        if b == 1.0:
            for i in range(x.size):
                g = state[i] * min(max(0.0, slope * as_float(x[i]) + offset[i]), 1.0)
                gain += weight[i] * g if weighted else g
        else:
            for i in range(x.size):
                s = min(slope * as_float(x[i]) + offset[i], 1.0)
                if s > 0.0:
                    g = state[i] * -np.expm1(b * np.log1p(-s))
                    gain += weight[i] * g if weighted else g
    else:
        for rank in range(coverage.steps.size):
            step, best = coverage.steps[rank], coverage.state[rank, begin:end]
            for i in range(x.size):
                g = step * max(0.0, slope * as_float(x[i]) + offset[i] - best[i])
                gain += weight[i] * g if weighted else g
    return gain


@jit(fastmath=FASTMATH)
def _segment_cover(coverage: Coverage, x: Array, slope: float, offset: Array, begin: int, end: int, cap: Array) -> None:
    curve, state = coverage.curve, coverage.state[0, begin:end]
    if curve == MAXIMUM:
        for i in range(x.size):
            state[i] = max(state[i], slope * as_float(x[i]) + offset[i])
    elif curve == CAPPED:
        for i in range(x.size):
            state[i] = max(state[i], min(slope * as_float(x[i]) + offset[i], cap[i]))
    elif curve == SQRT:
        for i in range(x.size):
            s = max(0.0, slope * as_float(x[i]) + offset[i])
            state[i] = np.sqrt(state[i] * state[i] + s)
    elif curve == LOG1P:
        for i in range(x.size):
            s = max(0.0, slope * as_float(x[i]) + offset[i])
            state[i] = state[i] / (1.0 + s * state[i])
    elif curve == SATURATED:
        for i in range(x.size):
            state[i] = state[i] - min(max(0.0, slope * as_float(x[i]) + offset[i]), state[i])
    elif curve == POWER:
        powers, p = coverage.state[1, begin:end], coverage.parameter
        for i in range(x.size):
            s = max(0.0, slope * as_float(x[i]) + offset[i])
            if s > 0.0:
                powers[i] += s**p
                state[i] = np.sqrt(powers[i]) if p == 2.0 else powers[i] ** (1.0 / p)
    elif curve == NOISY_OR:
        for i in range(x.size):
            s = min(max(0.0, slope * as_float(x[i]) + offset[i]), 1.0)
            state[i] *= (1.0 - s) ** coverage.parameter
    else:
        for i in range(x.size):
            s = slope * as_float(x[i]) + offset[i]
            for rank in range(coverage.steps.size):
                better = max(coverage.state[rank, begin + i], s)
                s = min(coverage.state[rank, begin + i], s)
                coverage.state[rank, begin + i] = better


@jit(inline="always")
def gain_of(kernel: Kernel, coverage: Coverage, j: int, raw: Array) -> float:
    """What example j would add to the objective now. raw: its row before the transform."""
    gain = coverage.bonus[j]
    cap, weight = coverage.cap, coverage.weight
    for q in range(segment_count(kernel, j)):
        begin, end = segment(kernel, j, q)
        if coverage.curve == CAPPED:
            cap = coverage.cap[begin:end]
        if coverage.weight.size > 0:
            weight = coverage.weight[begin:end]
        gain += _segment_gain(coverage, raw[begin:end], kernel.slope, kernel.offset[begin:end], begin, end, cap, weight)
    return gain


@jit(inline="always")
def _measured_gain(kernel: Kernel, coverage: Coverage, j: int) -> float:
    """`gain_of` from the measured pairs alone, which are all there is to a scattered row."""
    gain = coverage.bonus[j]
    cap, weight = coverage.cap, coverage.weight
    targets, values = measured_pairs(kernel, j)
    for p in range(targets.size):
        i = np.int64(targets[p])  # as a segment's bounds are: another type compiles the curves again
        if may_cover(kernel, j, i):
            if coverage.curve == CAPPED:
                cap = coverage.cap[i : i + 1]
            if coverage.weight.size > 0:
                weight = coverage.weight[i : i + 1]
            x, offset = values[p : p + 1], kernel.offset[i : i + 1]
            gain += _segment_gain(coverage, x, kernel.slope, offset, i, i + 1, cap, weight)
    return gain


@jit()
def row_gains(kernel: Kernel, coverage: Coverage, rows: Array, gains: Array, scratch: Array) -> None:
    """gains[j]: `gain_of` of each j in `rows`. scratch: one thread's part of `new_scratch`."""
    if scattered(kernel):
        for j in rows:
            gains[j] = _measured_gain(kernel, coverage, j)
        return
    for first in range(0, rows.size, TOGETHER):
        some = rows[first : min(first + TOGETHER, rows.size)]
        load_rows(kernel, some, scratch)
        for r in range(some.size):
            j = some[r]
            gains[j] = gain_of(kernel, coverage, j, loaded_row(kernel, j, scratch[r]))


@jit(inline="always")
def cover(kernel: Kernel, coverage: Coverage, j: int, scratch: Array) -> None:
    """Choose example j: update the coverage in place. scratch: one thread's part of `new_scratch`."""
    if scattered(kernel):
        _cover_measured(kernel, coverage, j)
    else:
        _cover(kernel, coverage, j, load_row(kernel, j, scratch[0]))


@jit()
def gain_and_cover(kernel: Kernel, coverage: Coverage, rows: Array, gains: Array, scratch: Array) -> None:
    """Choose these examples in their order. gains[position]: what each added."""
    if scattered(kernel):
        for position in range(rows.size):
            gains[position] = _measured_gain(kernel, coverage, rows[position])
            _cover_measured(kernel, coverage, rows[position])
        return
    for first in range(0, rows.size, TOGETHER):
        some = rows[first : min(first + TOGETHER, rows.size)]
        load_rows(kernel, some, scratch)
        for r in range(some.size):
            raw = loaded_row(kernel, some[r], scratch[r])
            gains[first + r] = gain_of(kernel, coverage, some[r], raw)
            _cover(kernel, coverage, some[r], raw)


@jit(inline="always")
def _cover_measured(kernel: Kernel, coverage: Coverage, j: int) -> None:
    cap = coverage.cap
    targets, values = measured_pairs(kernel, j)
    for p in range(targets.size):
        i = np.int64(targets[p])
        if may_cover(kernel, j, i):
            if coverage.curve == CAPPED:
                cap = coverage.cap[i : i + 1]
            x, offset = values[p : p + 1], kernel.offset[i : i + 1]
            _segment_cover(coverage, x, kernel.slope, offset, i, i + 1, cap)


@jit(inline="always")
def _cover(kernel: Kernel, coverage: Coverage, j: int, raw: Array) -> None:
    cap = coverage.cap
    for q in range(segment_count(kernel, j)):
        begin, end = segment(kernel, j, q)
        if coverage.curve == CAPPED:
            cap = coverage.cap[begin:end]
        _segment_cover(coverage, raw[begin:end], kernel.slope, kernel.offset[begin:end], begin, end, cap)
