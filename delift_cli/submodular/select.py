"""`select`: the public selector over plain arrays, memory maps or kernels.

Chooses the method (exact, stochastic, partitioned; gain or gain per token under a token budget), runs the greedy
selector, and says in the result what was done, why it stopped, and how good it is bound to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..display import Facts, Lines
from ..errors import InputError, check_seed
from .constraints import Constraints, Rules, make_rules, others_left
from .greedy import BELOW, EXHAUSTED, FULL, SATURATED, Run, gains_given, greedy
from .greedy import initial_gains as singleton_gains
from .kernel import Array, DenseKernel, FactoredKernel, Kernel, dense_kernel
from .objectives import Objective, make_objective, weighted, with_bonus
from .partitioned import partitioned

KernelLike: TypeAlias = Kernel | ArrayLike
Method = Literal["exact", "stochastic", "partitioned"]

STOPPED = {FULL: "full", SATURATED: "saturated", BELOW: "until", EXHAUSTED: "exhausted"}


@dataclass(frozen=True, repr=False)
class Selection(Facts):
    """An ordered subset and how it came about.

    indices: int64[k], examples in the order of choice; gains: float64[k], what each added when it was chosen, so
        that `gains.cumsum()` is the value of each prefix. value: their sum.
    filled_from: indices[filled_from:] came by the fill rule (singleton gain, largest first) after gains had
        fallen to zero; equal to len(indices) where nothing was filled.
    saturated_at: number of records after which nothing gained any more, or None.
    stopped: `full` (k reached), `saturated`, `until`, or `exhausted` (no admissible record left; under a token
        budget: nothing left that fits).
    method: `exact`, `stochastic` or `partitioned`; rule: `gain`, or `gain per token` where that was the better
        of the two under a token budget; value_other_rule: what the worse of the two reached.
    guarantee: the share of the optimum that the method is proven to reach (0.0: none); guarantee_note: in words.
    optimum_bound: no subset within k or the budget is worth more than this (None: not computed); of those without the
        records that come last, unless one of them was taken.
    evaluations: gains computed after the first sweep. initial_gains: float64[n], the value of each example
        alone; pass it to another `select` with the same objective to save the sweep.
    """

    indices: Array
    gains: Array
    value: float
    objective: str
    parameters: dict[str, float]
    method: Method
    rule: str
    seed: int | None
    stopped: str
    saturated_at: int | None
    filled_from: int
    guarantee: float
    guarantee_note: str
    optimum_bound: float | None
    value_other_rule: float | None
    evaluations: int
    initial_gains: Array

    @property
    def curve(self) -> Array:
        """float64[k]: the value of each prefix."""
        return np.cumsum(self.gains)

    def __len__(self) -> int:
        return len(self.indices)

    def lines(self) -> Lines:
        """What was chosen and how good it is, for people."""
        head = ", ".join(map(str, self.indices[:8].tolist()))
        rows = [
            ("selected", f"{len(self):,} of {self.initial_gains.size:,}: {head}{', …' * (len(self) > 8)}"),
            ("objective", f"{self.objective}{''.join(f', {k} {v:g}' for k, v in self.parameters.items())}"),
            ("value", f"{self.value:.4f}, by {self.method} greedy"),
            ("proven", self.guarantee_note),
        ]
        if self.optimum_bound:
            rows.append(("quality", f"at least {self.value / self.optimum_bound:.1%} of the best subset"))
        return rows


def select(
    kernel: KernelLike | Objective | None,
    k: int | None = None,
    *,
    objective: str = "fl",
    target: KernelLike | None = None,
    existing: KernelLike | None = None,
    eta: float | None = None,
    nu: float = 1.0,
    alpha: float = 0.3,
    p: float = 2.0,
    beta: float = 1.0,
    depth: int = 3,
    weight: ArrayLike | None = None,
    bonus: ArrayLike | None = None,
    cost: ArrayLike | None = None,
    budget: int | None = None,
    always: Sequence[int] = (),
    never: Sequence[int] = (),
    last: Sequence[int] = (),
    group: Sequence[Any] | None = None,
    at_least: Mapping[Any, int] | None = None,
    at_most: Mapping[Any, int] | None = None,
    near_duplicates: tuple[ArrayLike, ArrayLike] | None = None,
    lenient: bool = False,
    until: float = 0.0,
    stop_at_zero: bool = False,
    method: Method = "exact",
    epsilon: float = 0.01,
    parts: int = 2,
    seed: int = 0,
    initial_gains: ArrayLike | None = None,
    per_token: bool = True,
    bound: bool = True,
) -> Selection:
    """Choose examples greedily so that an objective grows as fast as possible.

    kernel: similarities [example, target] (array or memory map, used in place; or a `DenseKernel` or
        `FactoredKernel`), or a ready-made `Objective`; None for an objective that only needs `target`.
        A plain array is taken as it is: for leave-one-out coverage use `dense_kernel(S, example_group=range(n),
        target_group=range(n))`, or `utility_kernel` for what a cache holds.
    k: how many; with cost (int[n], tokens) and budget the subset costs at most that many tokens, k is optional.
    objective, target, existing, eta, nu, alpha, p, beta, depth: see `objectives.make_objective`.
    weight (float[m]), bonus (float[n]): what each target counts, what each record is worth by itself; see
        `objectives.weighted` and `objectives.with_bonus`. They apply to a ready-made `Objective` too.
    always, never, last, group, at_least, at_most, near_duplicates: see `constraints.Constraints`.
    lenient: near-duplicates are ruled out only as long as other records are left.
    until, stop_at_zero: see `greedy.greedy`.
    method: `exact`; `stochastic` (each step looks at a random sample of n / k ln(1 / epsilon) records);
        `partitioned` (two rounds: every one of `parts` random parts of the pool is selected from on its own,
        then their union; for matrices larger than memory, of which it holds a part. k, always and never only).
    seed: of the random methods. initial_gains: from an earlier Selection with the same objective.
    per_token: under a budget choose by gain per token too, and keep the better of the two.
    bound: also compute `optimum_bound` (one more sweep).

    Deterministic, whatever the number of threads. Raises InputError on contradictory arguments, and where a gain is
    not finite, as it is where a similarity is not.
    """
    if isinstance(kernel, Objective):
        goal = kernel if weight is None else weighted(kernel, weight)
        goal = goal if bonus is None else with_bonus(goal, bonus)
    else:
        goal = make_objective(
            objective,
            as_kernel(kernel),
            target=as_kernel(target),
            existing=as_kernel(existing),
            eta=eta,
            nu=nu,
            alpha=alpha,
            p=p,
            beta=beta,
            depth=depth,
            weight=weight,
            bonus=bonus,
        )
    if not 0.0 <= until < 1.0:
        raise InputError(f"until {until:g}: give a share of the first gain, from 0 to below 1")
    check_seed(seed)
    n = goal.kernel.group.size
    limits = Constraints(k, cost, budget, always, never, last, group, at_least or {}, at_most or {}, near_duplicates)
    rules = make_rules(limits, n)
    if method == "partitioned":
        _refuse_beyond_count(limits, "partitioned")
        singletons = np.zeros(n) if initial_gains is None else _given_gains(initial_gains, n)
        sweep = initial_gains is None
        run = partitioned(goal, limits, singletons, sweep, parts, seed=seed, until=until, stop_at_zero=stop_at_zero)
    else:
        singletons = singleton_gains(goal) if initial_gains is None else _given_gains(initial_gains, n)
        sample = 0
        if method == "stochastic":
            _refuse_beyond_count(limits, "stochastic")
            assert k is not None
            sample = _sample_size(n - len(never), k, epsilon)
        elif method != "exact":
            raise InputError(f"unknown method {method!r}: choose exact, stochastic or partitioned")
        how = {"sample": sample, "seed": seed}
        run = _run(goal, limits, rules, singletons, lenient, until=until, stop_at_zero=stop_at_zero, **how)
    rule, other = "gain", None
    if budget is not None and per_token:
        fresh = make_rules(limits, n)
        thrifty = _run(goal, limits, fresh, singletons, lenient, per_token=True, until=until, stop_at_zero=stop_at_zero)
        other = thrifty
        if thrifty.gains.sum() > run.gains.sum():
            rule, run, other = "gain per token", thrifty, run
    if (wrong := ~np.isfinite(run.gains)).any():
        raise InputError(f"record {run.indices[wrong][0]} gains {run.gains[wrong][0]}: similarities must be finite")
    if not np.isin(limits.last, run.indices).any():
        limits = replace(limits, never=[*never, *last], last=())  # it is as good as the best subset without them
    share, note = _guarantee(limits, rules, run.indices, method, epsilon, parts, per_token)
    value = float(run.gains.sum())
    return Selection(
        indices=run.indices,
        gains=run.gains,
        value=value,
        objective=goal.name,
        parameters=goal.parameters,
        method=method,
        rule=rule,
        seed=None if method == "exact" else seed,
        stopped=STOPPED[_why(run, k)],
        saturated_at=run.filled_from if run.why == SATURATED else None,
        filled_from=run.filled_from,
        guarantee=share,
        guarantee_note=note,
        optimum_bound=value + _most_to_come(goal, limits, run) if bound else None,
        value_other_rule=None if other is None else float(other.gains.sum()),
        evaluations=run.evaluations + (other.evaluations if other is not None else 0),
        initial_gains=singletons,
    )


def as_kernel(kernel: KernelLike | None) -> Kernel | None:
    """Kernels as they are, arrays as `dense_kernel`s."""
    if kernel is None or isinstance(kernel, DenseKernel | FactoredKernel):
        return kernel
    return dense_kernel(kernel)


def _run(
    goal: Objective,
    limits: Constraints,
    rules: Rules,
    singletons: Array,
    lenient: bool,
    *,
    stop_at_zero: bool,
    **how: Any,
) -> Run:
    """`greedy` under the limits' rules; what comes behind the others is let in once it alone is left: with `lenient`
    near-duplicates, then those that come last."""
    run = greedy(goal, rules, singletons, always=limits.always, stop_at_zero=stop_at_zero, **how)
    wider = []
    if lenient and limits.near_duplicates is not None:
        wider.append(replace(limits, near_duplicates=None))
    if len(limits.last):
        wider.append(replace(wider[-1] if wider else limits, last=()))
    for each in wider:
        ended = run.why == EXHAUSTED or (run.why == SATURATED and not stop_at_zero)
        too_soon = len(each.last) < len(limits.last) and run.indices.size > 0 and others_left(rules)
        if not ended or run.indices.size == limits.k or too_soon:
            break
        rules = make_rules(replace(each, always=run.indices.tolist()), singletons.size)
        more = greedy(goal, rules, singletons, always=run.indices, stop_at_zero=stop_at_zero, **how)
        if run.why == SATURATED and not more.gains[run.filled_from :].any():
            more = replace(more, why=SATURATED, filled_from=run.filled_from)
        run = replace(more, evaluations=run.evaluations + more.evaluations)
    return run


def _why(run: Run, k: int | None) -> int:
    """Why a run ended; filling goes on until k is reached or nothing else is admissible."""
    if run.filled_from == run.indices.size:
        return run.why
    return FULL if run.indices.size == k else EXHAUSTED


def _given_gains(gains: ArrayLike, n: int) -> Array:
    array = np.ascontiguousarray(gains, dtype=np.float64)
    if array.shape != (n,):
        raise InputError(f"initial_gains has shape {array.shape}, the kernel has {n} examples")
    if np.isnan(array).any():
        raise InputError("initial_gains must not be NaN")
    return array


def _refuse_beyond_count(limits: Constraints, method: str) -> None:
    others = limits.budget is not None or limits.at_least or limits.at_most or limits.near_duplicates is not None
    if others or len(limits.last):
        raise InputError(f"the {method} method takes k, always and never, no budget, quotas, near-duplicates or last")


def _sample_size(n: int, k: int, epsilon: float) -> int:
    if not 0.0 < epsilon < 1.0:
        raise InputError(f"epsilon lies between 0 and 1, not {epsilon}")
    return max(1, math.ceil(n / max(1, k) * math.log(1.0 / epsilon)))


def _guarantee(
    limits: Constraints, rules: Rules, indices: Array, method: Method, epsilon: float, parts: int, per_token: bool
) -> tuple[float, str]:
    """The proven share of the best value, and the reason."""
    greedy_share = 1.0 - 1.0 / math.e
    if method == "stochastic":
        return max(0.0, greedy_share - epsilon), f"1 - 1/e - {epsilon:g} of the optimum, in expectation"
    if method == "partitioned":
        if parts == 2:
            return greedy_share / 2, "(1 - 1/e) / 2 of the optimum"
        return 0.0, "nothing, as each part contributes fewer than k records"
    quotas, conflicts = rules.group.size > 0, _conflicts(rules)
    if limits.budget is not None:
        if quotas or conflicts or limits.k is not None:
            return 0.0, "nothing for a token budget together with other limits"
        if not per_token:
            return 0.0, "nothing for a token budget and gains alone"
        return greedy_share / 2, "(1 - 1/e) / 2 of the optimum, by the better of gain and gain per token"
    if len(limits.last):
        return 0.0, "nothing where records that come last are taken for want of others"
    if conflicts and _near_each_other(rules, indices):
        return 0.0, "nothing where near-duplicates are taken for want of others"
    if conflicts:
        why = "quotas and near-duplicates apart" if quotas else "near-duplicates apart"
        return 1.0 / (1 + conflicts + quotas), f"1/{1 + conflicts + quotas} of the optimum, with {why}"
    if quotas:
        return 0.5, "1/2 of the optimum, with quotas"
    return greedy_share, "1 - 1/e of the optimum"


def _conflicts(rules: Rules) -> int:
    """At most so many records that could all be chosen together does one rule out: one where alike is alike to all."""
    degrees = np.diff(rules.neighbour_start)
    if not rules.neighbours.size:
        return 0
    first = np.arange(degrees.size)
    rows = np.repeat(first, degrees)
    np.minimum.at(first, rows, rules.neighbours)
    together = (first[rows] == first[rules.neighbours]).all()
    in_groups = (np.bincount(first)[first] == degrees + 1).all()
    return 1 if together and in_groups else int(degrees.max())


def _near_each_other(rules: Rules, indices: Array) -> bool:
    chosen = np.zeros(rules.neighbour_start.size - 1, np.bool_)
    chosen[indices] = True
    rows = np.repeat(np.arange(chosen.size), np.diff(rules.neighbour_start))
    return bool((chosen[rows] & chosen[rules.neighbours]).any())


def _most_to_come(goal: Objective, limits: Constraints, run: Run) -> float:
    """An upper bound on what the best subset is worth beyond this one (Minoux 1978; Leskovec et al. 2007).

    By submodularity no set of records can add more than the sum of their gains now; those that are chosen add nothing.
    """
    gains = gains_given(goal, run.coverage)
    gains[np.asarray(limits.never, dtype=np.int64)] = 0.0
    gains[run.indices] = 0.0
    bounds = []
    if limits.k is not None:
        more = limits.k - len(limits.always)
        bounds.append(float(np.sort(gains)[gains.size - more :].sum()))
    if limits.cost is not None and limits.budget is not None:
        cost = np.asarray(limits.cost, dtype=np.int64)
        order = np.argsort(-gains / cost, kind="stable")
        room = limits.budget - int(cost[np.asarray(limits.always, dtype=np.int64)].sum())
        paid = np.clip(room - (np.cumsum(cost[order]) - cost[order]), 0, cost[order])
        bounds.append(float((gains[order] * paid / cost[order]).sum()))
    return min(bounds)
