"""Objectives: what a chosen subset is worth. All are sums over targets of a curve of the subset's similarities.

A is the chosen subset, V the pool, T a target set, E existing data; s[j, i] is example j's similarity to
target i, counted from zero (negative ones are 0). Each objective is normalised, f(empty set) = 0, monotone and
submodular. It consists of a kernel to sweep, one of five curves with its state per target, and a bonus per
example that is paid once when the example is chosen:

    gain of j = sum_i curve_gain(state[i], s[j, i]) + bonus[j]

    curve      state[i]                        gain                       then
    MAXIMUM    c, the best so far              max(0, s - c)              c = max(c, s)
    CAPPED     c, the best so far              max(0, min(s, cap) - c)    c = max(c, min(s, cap))
    SQRT       r, root of the sum so far       sqrt(r^2 + s) - r          r = sqrt(r^2 + s)
    LOG1P      w = 1 / (1 + sum so far)        log(1 + s w)               w = w / (1 + s w)
    SATURATED  r, room left below the ceiling  min(s, r)                  r = r - min(s, r)

The state starts where existing data leave it. Facility location and its mutual-information and conditional
forms: DELIFT (arXiv 2411.04425, section 4) and submodlib; concave over modular functions: Lin and Bilmes, "A
class of submodular functions for document summarization" (ACL 2011), which also has the saturated form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..compiled import jit
from ..errors import InputError
from .kernel import (
    FASTMATH,
    Array,
    Kernel,
    as_float,
    column_maxima,
    column_sums,
    kernel_shape,
    load_row,
    row_maxima,
    segment,
    segment_count,
)

MAXIMUM, CAPPED, SQRT, LOG1P, SATURATED = range(5)

# log(1 + a) + log(1 + b) + ... is taken as the logarithm of a product, in LANES products of FACTORS factors each:
# few enough that factors up to 2**32 do not overflow.
LANES = 32
FACTORS = 32


class Coverage(NamedTuple):
    """How far each target is covered: what compiled code carries along and updates."""

    curve: int
    state: Array  # float64[m]
    cap: Array  # float64[m] for CAPPED, else float64[0]
    bonus: Array  # float64[n]


@dataclass(frozen=True)
class Objective:
    """A set function over the examples of `kernel`; make one with the functions below."""

    name: str
    kernel: Kernel
    curve: int
    start: Array  # float64[m], the curve's state for the empty subset
    cap: Array
    bonus: Array
    parameters: dict[str, float] = field(default_factory=dict)

    def empty_coverage(self) -> Coverage:
        """The state for the empty subset, in arrays of its own."""
        return Coverage(self.curve, self.start.copy(), self.cap, self.bonus)


# ---------------------------------------------------------------------------------------------- objectives


def fl(kernel: Kernel) -> Objective:
    """Facility location: sum_{i in V} max_{j in A} s_ji (kernel V x V)."""
    return _maximum("fl", kernel)


def flmi(kernel: Kernel, target: Kernel, eta: float = 1.0) -> Objective:
    """sum_{i in V} max_{j in A} s_ji + eta sum_{j in A} max_{i in T} s_ji (kernel V x V, target V x T)."""
    return _maximum("flmi", kernel, bonus=_bonus(kernel, target, eta), eta=eta)


def flvmi(target: Kernel, eta: float = 1.0) -> Objective:
    """sum_{i in T} max_{j in A} s_ji + eta sum_{j in A} max_{i in T} s_ji (target V x T; submodlib's FL2MI)."""
    return _maximum("flvmi", target, bonus=_bonus(target, target, eta), eta=eta)


def fl1mi(kernel: Kernel, target: Kernel, eta: float = 1.0) -> Objective:
    """sum_{i in V} min(max_{j in A} s_ji, eta max_{t in T} s_ti) (kernel V x V, target T x V)."""
    return _maximum("fl1mi", kernel, cap=_by_target(kernel, target, "target", column_maxima, eta), eta=eta)


def flcg(kernel: Kernel, existing: Kernel, nu: float = 1.0) -> Objective:
    """sum_{i in V} max(max_{j in A} s_ji - nu max_{e in E} s_ei, 0) (kernel V x V, existing E x V)."""
    return _maximum("flcg", kernel, start=_by_target(kernel, existing, "existing", column_maxima, nu), nu=nu)


def flcmi(kernel: Kernel, target: Kernel, existing: Kernel, eta: float = 1.0, nu: float = 1.0) -> Objective:
    """sum_{i in V} max(min(max_{j in A} s_ji, eta max_{t in T} s_ti) - nu max_{e in E} s_ei, 0).

    kernel V x V, target T x V, existing E x V.
    """
    cap = _by_target(kernel, target, "target", column_maxima, eta)
    start = _by_target(kernel, existing, "existing", column_maxima, nu)
    return _maximum("flcmi", kernel, start=start, cap=cap, eta=eta, nu=nu)


def concave(
    name: str, kernel: Kernel, *, existing: Kernel | None = None, nu: float = 1.0, eta: float = 0.0
) -> Objective:
    """Concave over modular: sum_i g(x_i + sum_{j in A} s_ji) - g(x_i) + eta sum_{j in A} max_i s_ji.

    name: `sqrt` g(x) = sqrt(x), or `log1p` g(x) = ln(1 + x). x_i = nu sum_{e in E} s_ei (existing E x V), or 0.
    i runs over the kernel's targets: the pool (V x V), or a target set (V x T). The last term is FLVMI's; the
    sum already rewards every helper of a target, so that it is left out by default (eta = 0).
    """
    before = np.zeros(kernel.offset.size)
    if existing is not None:
        before = _by_target(kernel, existing, "existing", column_sums, nu)
    if name == "sqrt":
        curve, start = SQRT, np.sqrt(before)
    elif name == "log1p":
        curve, start = LOG1P, 1.0 / (1.0 + before)
    else:
        raise InputError(f"unknown concave function {name!r}: choose sqrt or log1p")
    bonus = _bonus(kernel, kernel, eta)
    return Objective(name, kernel, curve, start, np.empty(0), bonus, {"eta": eta, "nu": nu})


def saturated(
    kernel: Kernel, *, alpha: float = 0.3, existing: Kernel | None = None, nu: float = 1.0, eta: float = 0.0
) -> Objective:
    """Saturated coverage: sum_i min(x_i + sum_{j in A} s_ji, C_i) - min(x_i, C_i), C_i = alpha sum_{j in V} s_ji.

    The bonus eta, x_i, existing and nu as in `concave`. One more sweep finds the sums over the pool.
    """
    if not 0.0 < alpha <= 1.0:
        raise InputError(f"alpha is a share of what the whole pool gives, 0 < alpha <= 1, not {alpha}")
    room = alpha * column_sums(kernel)
    if existing is not None:
        room = np.maximum(0.0, room - _by_target(kernel, existing, "existing", column_sums, nu))
    bonus = _bonus(kernel, kernel, eta)
    parameters = {"alpha": alpha, "eta": eta, "nu": nu}
    return Objective("saturated", kernel, SATURATED, room, np.empty(0), bonus, parameters)


NAMES = ("fl", "flmi", "flvmi", "fl1mi", "flcg", "flcmi", "sqrt", "log1p", "saturated")


def make_objective(
    name: str,
    kernel: Kernel | None,
    *,
    target: Kernel | None = None,
    existing: Kernel | None = None,
    eta: float | None = None,
    nu: float = 1.0,
    alpha: float = 0.3,
) -> Objective:
    """An objective by its name (`NAMES`), from the blocks that it needs.

    kernel V x V. target: V x T for flmi, flvmi, sqrt, log1p and saturated; T x V for fl1mi and flcmi.
    existing: E x V, for flcg, flcmi, sqrt, log1p and saturated (E x T where those have a target).
    flvmi, sqrt, log1p and saturated with a target sweep over V x T alone: kernel may then be None.
    eta: default 1, but 0 for sqrt, log1p and saturated.
    Raises InputError when a block is missing, is not used by this objective, or does not fit the others.
    """
    if name not in NAMES:
        raise InputError(f"unknown objective {name!r}: choose one of {', '.join(NAMES)}")
    needs_target, takes_target = name in ("flmi", "flvmi", "fl1mi", "flcmi"), name not in ("fl", "flcg")
    needs_existing, takes_existing = name in ("flcg", "flcmi"), name not in ("fl", "flmi", "flvmi", "fl1mi")
    for what, block, needed, taken in (
        ("a target set", target, needs_target, takes_target),
        ("existing data", existing, needs_existing, takes_existing),
    ):
        if needed and block is None:
            raise InputError(f"objective {name} needs {what}")
        if block is not None and not taken:
            raise InputError(f"objective {name} takes no notice of {what}: choose another one")
    if name == "flvmi":
        assert target is not None
        return flvmi(target, 1.0 if eta is None else eta)
    if name in ("sqrt", "log1p", "saturated"):
        swept = kernel if target is None else target
        if swept is None:
            raise InputError(f"objective {name} needs the pool's kernel or a target set")
        if name == "saturated":
            return saturated(swept, alpha=alpha, existing=existing, nu=nu, eta=eta or 0.0)
        return concave(name, swept, existing=existing, nu=nu, eta=eta or 0.0)
    if kernel is None:
        raise InputError(f"objective {name} needs the pool's kernel")
    weight = 1.0 if eta is None else eta
    if name == "fl":
        return fl(kernel)
    if name == "flcg":
        assert existing is not None
        return flcg(kernel, existing, nu)
    assert target is not None
    if name == "flmi":
        return flmi(kernel, target, weight)
    if name == "fl1mi":
        return fl1mi(kernel, target, weight)
    assert existing is not None
    return flcmi(kernel, target, existing, weight, nu)


def _maximum(
    name: str,
    kernel: Kernel,
    start: Array | None = None,
    cap: Array | None = None,
    bonus: Array | None = None,
    **parameters: float,
) -> Objective:
    n, m = kernel_shape(kernel)
    return Objective(
        name,
        kernel,
        MAXIMUM if cap is None else CAPPED,
        np.zeros(m) if start is None else start,
        np.empty(0) if cap is None else cap,
        np.zeros(n) if bonus is None else bonus,
        parameters,
    )


def _bonus(kernel: Kernel, target: Kernel, eta: float) -> Array:
    """eta times each pool example's best similarity to a target."""
    n, examples = kernel_shape(kernel)[0], kernel_shape(target)[0]
    if examples != n:
        raise InputError(f"the target block's rows must be the pool's {n} examples; it has {examples}")
    if eta < 0.0:
        raise InputError(f"eta must not be negative, not {eta}")
    bonus: Array = eta * row_maxima(target) if eta else np.zeros(n)
    return bonus


def _by_target(kernel: Kernel, block: Kernel, what: str, reduce: Callable[[Kernel], Array], weight: float) -> Array:
    """weight times a column reduction of another block over the same targets."""
    m, targets = kernel_shape(kernel)[1], kernel_shape(block)[1]
    if targets != m:
        raise InputError(f"the {what} block's columns must be the {m} targets of the kernel; it has {targets}")
    if weight < 0.0:
        raise InputError(f"eta and nu must not be negative, not {weight}")
    return weight * reduce(block)


# ---------------------------------------------------------------------------------------------- values


def aggregate(objective: Objective, subset: ArrayLike | None = None) -> Array:
    """float64[m]: what the subset gives each target, its best similarity or (concave, saturated) their sum."""
    if objective.curve in (MAXIMUM, CAPPED):
        return column_maxima(objective.kernel, subset)
    return column_sums(objective.kernel, subset)


def target_gains(objective: Objective, given: Array) -> Array:
    """float64[m]: each target's part of the objective's value, for `given` = `aggregate(objective, subset)`."""
    start = objective.start
    if objective.curve == MAXIMUM:
        return np.maximum(0.0, given - start)
    if objective.curve == CAPPED:
        return np.maximum(0.0, np.minimum(given, objective.cap) - start)
    if objective.curve == SQRT:
        return np.sqrt(start * start + given) - start
    if objective.curve == LOG1P:
        return np.log1p(given * start)
    return np.minimum(given, start)


def value(objective: Objective, subset: ArrayLike | None = None) -> float:
    """f(subset), for the whole pool by default: one parallel sweep over the subset's rows."""
    bonus = objective.bonus if subset is None else objective.bonus[np.asarray(subset, dtype=np.int64)]
    return float(target_gains(objective, aggregate(objective, subset)).sum() + bonus.sum())


# ---------------------------------------------------------------------------------------------- compiled code


@jit(fastmath=FASTMATH)
def _segment_gain(curve: int, x: Array, slope: float, offset: Array, state: Array, cap: Array) -> float:
    gain = 0.0
    if curve == MAXIMUM:  # state >= 0: a negative similarity never gains, no need to cut it at zero first
        for i in range(x.size):
            gain += max(0.0, slope * as_float(x[i]) + offset[i] - state[i])
    elif curve == CAPPED:
        for i in range(x.size):
            gain += max(0.0, min(slope * as_float(x[i]) + offset[i], cap[i]) - state[i])
    elif curve == SQRT:
        for i in range(x.size):
            s = max(0.0, slope * as_float(x[i]) + offset[i])
            gain += np.sqrt(state[i] * state[i] + s) - state[i]
    elif curve == LOG1P:
        product = np.empty(LANES)
        for first in range(0, x.size, LANES * FACTORS):
            product[:] = 1.0
            for begin in range(first, min(x.size, first + LANES * FACTORS), LANES):
                end = min(x.size, begin + LANES)
                x_, offset_, state_ = x[begin:end], offset[begin:end], state[begin:end]
                for i in range(x_.size):
                    product[i] *= 1.0 + state_[i] * max(0.0, slope * as_float(x_[i]) + offset_[i])
            for i in range(LANES):
                gain += np.log(product[i])
    else:
        for i in range(x.size):
            gain += min(max(0.0, slope * as_float(x[i]) + offset[i]), state[i])
    return gain


@jit(fastmath=FASTMATH)
def _segment_cover(curve: int, x: Array, slope: float, offset: Array, state: Array, cap: Array) -> None:
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
    else:
        for i in range(x.size):
            state[i] = state[i] - min(max(0.0, slope * as_float(x[i]) + offset[i]), state[i])


@jit()
def row_gain(kernel: Kernel, coverage: Coverage, j: int, scratch: Array) -> float:
    """What example j would add to the objective now. scratch: one row of `new_scratch`."""
    raw = load_row(kernel, j, scratch)
    gain = coverage.bonus[j]
    cap = coverage.cap
    for q in range(segment_count(kernel, j)):
        begin, end = segment(kernel, j, q)
        if coverage.curve == CAPPED:
            cap = coverage.cap[begin:end]
        gain += _segment_gain(
            coverage.curve,
            raw[begin:end],
            kernel.slope,
            kernel.offset[begin:end],
            coverage.state[begin:end],
            cap,
        )
    return gain


@jit()
def cover(kernel: Kernel, coverage: Coverage, j: int, scratch: Array) -> None:
    """Choose example j: update the coverage in place."""
    raw = load_row(kernel, j, scratch)
    cap = coverage.cap
    for q in range(segment_count(kernel, j)):
        begin, end = segment(kernel, j, q)
        if coverage.curve == CAPPED:
            cap = coverage.cap[begin:end]
        _segment_cover(
            coverage.curve,
            raw[begin:end],
            kernel.slope,
            kernel.offset[begin:end],
            coverage.state[begin:end],
            cap,
        )
