"""Objectives: what a chosen subset is worth. All are sums over targets of a curve of the subset's similarities.

A is the chosen subset, V the pool, T a target set, E existing data; s[j, i] is example j's similarity to
target i, counted from zero (negative ones are 0). Each objective is normalised, f(empty set) = 0, monotone and
submodular. It consists of a kernel to sweep, a curve with its state per target (see `coverage`), a weight per target
(1 unless given: what a target stands for), and a bonus per example that is paid once when the example is chosen:

    gain of j = sum_i weight[i] curve_gain(state[i], s[j, i]) + bonus[j]

The state starts where existing data leave it. Facility location and its mutual-information and conditional
forms: DELIFT (arXiv 2411.04425, section 4) and submodlib; concave over modular functions: Lin and Bilmes, "A
class of submodular functions for document summarization" (ACL 2011), which also has the saturated form. `lp` and
`noisyor` are concave over modular functions too, of s^p and of -ln(1 - s); `topm` is a sum of the rank functions of
weighted uniform matroids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .coverage import CAPPED, LOG1P, MAXIMUM, NOISY_OR, POWER, SATURATED, SQRT, TOP, Coverage
from .kernel import Array, Kernel, kernel_shape
from .sweeps import BEST, LOGS, POWERS, SUM, aggregate, column_maxima, column_sums, merged_top, row_maxima
from .sweeps import TOP as TOP_VALUES

NOTHING = np.empty(0)
LARGEST_POWER = 64.0  # of `lp`: similarities of a thousandth still have a power that a float64 can hold


@dataclass(frozen=True)
class Objective:
    """A set function over the examples of `kernel`; make one with the functions below."""

    name: str
    kernel: Kernel
    curve: int
    start: Array  # float64[m] or [depth, m], the curve's state for the empty subset
    cap: Array
    bonus: Array
    parameters: dict[str, float] = field(default_factory=dict)
    weight: Array = field(default_factory=lambda: NOTHING)  # float64[m]; float64[0]: 1 for every target
    parameter: float = 1.0
    steps: Array = field(default_factory=lambda: NOTHING)

    @property
    def weights(self) -> Array:
        """float64[m]: what each target counts for."""
        return self.weight if self.weight.size else np.ones(kernel_shape(self.kernel)[1])

    def empty_coverage(self) -> Coverage:
        """The state for the empty subset, in arrays of its own."""
        state = np.array(np.atleast_2d(self.start), np.float64, order="C")
        return Coverage(self.curve, self.parameter, self.steps, state, self.cap, self.weight, self.bonus)


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
    before = _before(kernel, existing, nu, SUM)[0]
    if name == "sqrt":
        curve, start = SQRT, np.sqrt(before)
    elif name == "log1p":
        curve, start = LOG1P, 1.0 / (1.0 + before)
    else:
        raise InputError(f"unknown concave function {name!r}: choose sqrt or log1p")
    bonus = _bonus(kernel, kernel, eta)
    return Objective(name, kernel, curve, start, NOTHING, bonus, _besides(eta, nu, existing))


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
        room = np.maximum(0.0, room - _before(kernel, existing, nu, SUM)[0])
    bonus = _bonus(kernel, kernel, eta)
    parameters = {"alpha": alpha, **_besides(eta, nu, existing)}
    return Objective("saturated", kernel, SATURATED, room, NOTHING, bonus, parameters)


def lp(
    kernel: Kernel, *, p: float = 2.0, existing: Kernel | None = None, nu: float = 1.0, eta: float = 0.0
) -> Objective:
    """Coverage by a norm: sum_i (x_i + sum_{j in A} s_ji^p)^(1/p) - x_i^(1/p), x_i = nu sum_{e in E} s_ei^p.

    p = 1 adds every helper up, the larger p the more the best one counts; facility location is the limit.
    1 <= p <= 64.
    """
    if not 1.0 <= p <= LARGEST_POWER:
        raise InputError(f"p lies between 1 and {LARGEST_POWER:g}, not {p:g}; for a larger one take fl")
    before = _before(kernel, existing, nu, POWERS, parameter=p)[0]
    start = np.stack([before ** (1.0 / p), before])
    parameters = {"p": p, **_besides(eta, nu, existing)}
    return Objective("lp", kernel, POWER, start, NOTHING, _bonus(kernel, kernel, eta), parameters, parameter=p)


def noisy_or(
    kernel: Kernel, *, beta: float = 1.0, existing: Kernel | None = None, nu: float = 1.0, eta: float = 0.0
) -> Objective:
    """Noisy-or: sum_i q_i (1 - prod_{j in A} (1 - s_ji)^beta), q_i = prod_{e in E} (1 - s_ei)^(beta nu).

    A similarity is the chance that an example helps a target, each on its own; above 1 it counts as 1.
    """
    if not 0.0 < beta < np.inf:
        raise InputError(f"beta must be finite and above 0, not {beta:g}")
    start = np.exp(-_before(kernel, existing, nu, LOGS, parameter=beta)[0])
    parameters = {"beta": beta, **_besides(eta, nu, existing)}
    return Objective(
        "noisyor", kernel, NOISY_OR, start, NOTHING, _bonus(kernel, kernel, eta), parameters, parameter=beta
    )


def topm(
    kernel: Kernel, *, depth: int = 3, existing: Kernel | None = None, nu: float = 1.0, eta: float = 0.0
) -> Objective:
    """The `depth` best: sum_i sum_d v_d / d, v_1 >= v_2 >= ... the largest of s_ji, j in A, and of nu s_ei, e in E.

    What existing data alone come to is taken off. depth = 1 is facility location.
    """
    if depth < 1:
        raise InputError(f"depth counts similarities, at least 1, not {depth}")
    weights = 1.0 / np.arange(1, depth + 2)
    weights[-1] = 0.0
    start = _before(kernel, existing, nu, TOP_VALUES, depth=depth)
    parameters = {"depth": depth, **_besides(eta, nu, existing)}
    return Objective(
        "topm", kernel, TOP, start, NOTHING, _bonus(kernel, kernel, eta), parameters, steps=-np.diff(weights)
    )


SUMS = ("sqrt", "log1p", "saturated", "lp", "noisyor", "topm")  # every helper counts; with a target set they cover it
NAMES = ("fl", "flmi", "flvmi", "fl1mi", "flcg", "flcmi", *SUMS)


def check_blocks(name: str, *, pool: bool, target: bool, existing: bool) -> None:
    """InputError where an objective lacks one of these blocks, or takes no notice of it; see `make_objective`."""
    if name not in NAMES:
        raise InputError(f"unknown objective {name!r}: choose one of {', '.join(NAMES)}")
    needs_target, takes_target = name in ("flmi", "flvmi", "fl1mi", "flcmi"), name not in ("fl", "flcg")
    needs_existing, takes_existing = name in ("flcg", "flcmi"), name in ("flcg", "flcmi", *SUMS)
    for what, given, needed, taken in (
        ("a target set", target, needs_target, takes_target),
        ("existing data", existing, needs_existing, takes_existing),
    ):
        if needed and not given:
            raise InputError(f"objective {name} needs {what}")
        if given and not taken:
            raise InputError(f"objective {name} takes no notice of {what}: choose another one")
    if not pool and name != "flvmi" and not (name in SUMS and target):
        raise InputError(f"objective {name} needs the pool's kernel{' or a target set' * (name in SUMS)}")


def make_objective(
    name: str,
    kernel: Kernel | None,
    *,
    target: Kernel | None = None,
    existing: Kernel | None = None,
    eta: float | None = None,
    nu: float = 1.0,
    alpha: float = 0.3,
    p: float = 2.0,
    beta: float = 1.0,
    depth: int = 3,
    weight: ArrayLike | None = None,
    bonus: ArrayLike | None = None,
) -> Objective:
    """An objective by its name (`NAMES`), from the blocks that it needs.

    kernel V x V. target: V x T for flmi, flvmi and those in `SUMS`; T x V for fl1mi and flcmi.
    existing: E x V, for flcg, flcmi and those in `SUMS` (E x T where those have a target).
    flvmi and those in `SUMS` with a target sweep over V x T alone: kernel may then be None.
    eta: default 1, but 0 for those in `SUMS`.
    alpha: of saturated; p: of lp; beta: of noisyor; depth: of topm.
    weight, bonus: see `weighted` and `with_bonus`.
    Raises InputError when a block is missing, is not used by this objective, or does not fit the others.
    """
    check_blocks(name, pool=kernel is not None, target=target is not None, existing=existing is not None)
    swept = target if name == "flvmi" or (name in SUMS and target is not None) else kernel
    assert swept is not None
    weight_of_targets = 1.0 if eta is None else eta
    if name in SUMS:
        made = _sums(name, swept, existing, eta, nu, alpha, p, beta, depth)
    elif name == "fl":
        made = fl(swept)
    elif name == "flcg":
        assert existing is not None
        made = flcg(swept, existing, nu)
    else:
        assert target is not None
        if name == "flvmi":
            made = flvmi(target, weight_of_targets)
        elif name == "flmi":
            made = flmi(swept, target, weight_of_targets)
        elif name == "fl1mi":
            made = fl1mi(swept, target, weight_of_targets)
        else:
            assert existing is not None
            made = flcmi(swept, target, existing, weight_of_targets, nu)
    if weight is not None:
        made = weighted(made, weight)
    return made if bonus is None else with_bonus(made, bonus)


def weighted(objective: Objective, weight: ArrayLike) -> Objective:
    """The objective with each target's part of its value multiplied: what a target stands for.

    weight: float64[m], of the targets that it sums over; finite, none negative. A target set of anchors, each weighted
    by how many records it represents, stands for all of these. Bonuses are not weighted.
    """
    each = np.ascontiguousarray(weight, dtype=np.float64)
    m = kernel_shape(objective.kernel)[1]
    if each.shape != (m,) or not np.isfinite(each).all() or (each < 0).any():
        raise InputError(f"weights of targets are {m} finite numbers, none negative; {each.shape} were given")
    return replace(objective, weight=each * objective.weight if objective.weight.size else each)


def with_bonus(objective: Objective, bonus: ArrayLike) -> Objective:
    """The objective plus a modular term: sum_{j in A} bonus[j], for what a record is worth by itself (its quality).

    bonus: float64[n], in the objective's units; finite, none negative, so that the sum stays monotone submodular.
    """
    each = np.ascontiguousarray(bonus, dtype=np.float64)
    n = kernel_shape(objective.kernel)[0]
    if each.shape != (n,) or not np.isfinite(each).all() or (each < 0).any():
        raise InputError(f"bonuses are {n} finite numbers, none negative (shift them up); {each.shape} were given")
    return replace(objective, bonus=objective.bonus + each)


def _sums(
    name: str,
    kernel: Kernel,
    existing: Kernel | None,
    eta: float | None,
    nu: float,
    alpha: float,
    p: float,
    beta: float,
    depth: int,
) -> Objective:
    """One of `SUMS`."""
    given: Any = {"existing": existing, "nu": nu, "eta": eta or 0.0}
    if name == "lp":
        return lp(kernel, p=p, **given)
    if name == "noisyor":
        return noisy_or(kernel, beta=beta, **given)
    if name == "topm":
        return topm(kernel, depth=depth, **given)
    if name == "saturated":
        return saturated(kernel, alpha=alpha, **given)
    return concave(name, kernel, **given)


def _maximum(
    name: str,
    kernel: Kernel,
    start: Array | None = None,
    cap: Array | None = None,
    bonus: Array | None = None,
    **parameters: float,
) -> Objective:
    return Objective(
        name,
        kernel,
        MAXIMUM if cap is None else CAPPED,
        np.zeros(kernel_shape(kernel)[1]) if start is None else start,
        NOTHING if cap is None else cap,
        np.zeros(kernel_shape(kernel)[0]) if bonus is None else bonus,
        parameters,
    )


def _besides(eta: float, nu: float, existing: Kernel | None) -> dict[str, float]:
    """Of what weighs a target set and existing data, what has a say."""
    return {**({"eta": eta} if eta else {}), **({} if existing is None else {"nu": nu})}


def _bonus(kernel: Kernel, target: Kernel, eta: float) -> Array:
    """eta times each pool example's best similarity to a target."""
    n, examples = kernel_shape(kernel)[0], kernel_shape(target)[0]
    if examples != n:
        raise InputError(f"the target block's rows must be the pool's {n} examples; it has {examples}")
    if not 0.0 <= eta < np.inf:
        raise InputError(f"eta must be finite and not negative, not {eta}")
    bonus: Array = eta * row_maxima(target) if eta else np.zeros(n)
    return bonus


def _by_target(kernel: Kernel, block: Kernel, what: str, reduce: Callable[[Kernel], Array], weight: float) -> Array:
    """weight times a column reduction of another block over the same targets."""
    m, targets = kernel_shape(kernel)[1], kernel_shape(block)[1]
    if targets != m:
        raise InputError(f"the {what} block's columns must be the {m} targets of the kernel; it has {targets}")
    if not 0.0 <= weight < np.inf:
        raise InputError(f"eta and nu must be finite and not negative, not {weight}")
    return weight * reduce(block) if weight else np.zeros(m)


def _before(
    kernel: Kernel, existing: Kernel | None, nu: float, what: int, parameter: float = 1.0, depth: int = 1
) -> Array:
    """float64[depth, m]: nu times what existing data come to for each target; zeros without any."""
    if existing is None:
        return np.zeros((depth, kernel_shape(kernel)[1]))

    def reduce(block: Kernel) -> Array:
        return aggregate(block, what, parameter=parameter, depth=depth)

    return np.zeros((depth, 1)) + _by_target(kernel, existing, "existing", reduce, nu)


# ---------------------------------------------------------------------------------------------- values


def aggregate_of(objective: Objective, subset: ArrayLike | None = None) -> Array:
    """float64[depth, m]: what the subset (default: the whole pool) gives each target, as `target_gains` takes it:

    its best similarity, their sum, the sum of their powers or logarithms, or the best few, as the curve asks.
    """
    what = {MAXIMUM: BEST, CAPPED: BEST, POWER: POWERS, NOISY_OR: LOGS, TOP: TOP_VALUES}.get(objective.curve, SUM)
    depth = max(1, objective.steps.size)
    return aggregate(objective.kernel, what, subset, parameter=objective.parameter, depth=depth)


def target_gains(objective: Objective, given: Array) -> Array:
    """float64[m]: each target's part of the objective's value, for `given` = `aggregate_of(objective, subset)`."""
    gains = _curve_gains(objective, given)
    return gains * objective.weight if objective.weight.size else gains


def _curve_gains(objective: Objective, given: Array) -> Array:
    start, best = np.atleast_2d(objective.start), given[0]
    if objective.curve == MAXIMUM:
        return np.maximum(0.0, best - start[0])
    if objective.curve == CAPPED:
        return np.maximum(0.0, np.minimum(best, objective.cap) - start[0])
    if objective.curve == SQRT:
        return np.sqrt(start[0] * start[0] + best) - start[0]
    if objective.curve == LOG1P:
        return np.log1p(best * start[0])
    if objective.curve == SATURATED:
        return np.minimum(best, start[0])
    if objective.curve == POWER:
        return (start[1] + best) ** (1.0 / objective.parameter) - start[0]
    if objective.curve == NOISY_OR:
        return start[0] * -np.expm1(-best)
    together = merged_top(np.concatenate([start, given]), len(given))
    # sums of the best 1, 2, ..., so many
    return np.asarray(objective.steps @ (np.cumsum(together, axis=0) - np.cumsum(start, axis=0)))


def value(objective: Objective, subset: ArrayLike | None = None) -> float:
    """f(subset), for the whole pool by default: one parallel sweep over the subset's rows."""
    bonus = objective.bonus if subset is None else objective.bonus[np.asarray(subset, dtype=np.int64)]
    return float(target_gains(objective, aggregate_of(objective, subset)).sum() + bonus.sum())
