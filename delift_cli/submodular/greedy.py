"""Lazy greedy selection over the rows of a kernel (Minoux 1978), compiled.

Gains only fall as the subset grows, so a gain computed earlier bounds today's. Records wait in a heap by their
bound; the selector recomputes the gain of those at the top until the best has a gain of this step. It recomputes
1, 2, 4, ... records at a time (8, 16, ... where rows are computed): threads share a batch, a row is read by one thread,
and neither batches nor sums depend on the number of threads. The sequence is that of the plain greedy, ties to the
lower index.

The stochastic selector (Mirzasoleiman et al., "Lazier than lazy greedy", AAAI 2015) does the same in each step
with a heap over a random sample of the records that are left.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, prange, types
from numpy.typing import ArrayLike

from ..compiled import jit, threads_for
from .constraints import SLOTS, Rules, admissible, take
from .coverage import Coverage, cover, gain_and_cover, row_gains
from .kernel import Array, FactoredKernel, Kernel
from .objectives import Objective
from .sweeps import TOGETHER, gain_nanoseconds, new_scratch

LARGEST_BATCH = 1024

# Below this much work of one thread the other threads are not worth waking.
PARALLEL_NANOSECONDS = 2e5
# Where other processes have a part of the cores, threads that wait for each other can be slower than one of them. Which
# it is shows only when it is tried: the first trial comes after one thread has worked this long, and after a trial
# that lost time one thread works for 1 / RISK times that before the next.
TRIAL_AFTER = 0.08  # seconds
RISK = 0.05


class Sizes(NamedTuple):
    """Of batches of gains. None of them changes what is chosen."""

    first: int  # of a step; rows that are computed come cheaper together
    shared: int  # the least that other threads are woken for


# Positions in the account of a run's time: by one thread, seconds and entries; seconds until threads share again.
SECONDS, ENTRIES, ALONE = range(3)
CLOCK = time.CLOCK_MONOTONIC
# Why a run ended.
FULL, SATURATED, BELOW, EXHAUSTED = range(4)
SMALLEST = float(np.finfo(np.float64).tiny)  # a gain that is one


def initial_gains(objective: Objective) -> Array:
    """float64[n]: f({j}) for every example j, in one parallel sweep at memory bandwidth."""
    return gains_given(objective, objective.empty_coverage())


def gains_given(objective: Objective, coverage: Coverage) -> Array:
    """float64[n]: what each example would add to a subset that covers the targets as `coverage` says."""
    n = objective.kernel.group.size
    gains = np.zeros(n)
    order = np.arange(n, dtype=np.int32)
    with threads_for(order.size * coverage.state.shape[0] * gain_nanoseconds(objective.kernel)):
        scratch = new_scratch(objective.kernel, get_num_threads())
        _evaluate(objective.kernel, coverage, order, order.size, gains, scratch)
    return gains


@jit(parallel=True)
def _evaluate(kernel: Kernel, coverage: Coverage, rows: Array, count: int, gains: Array, scratch: Array) -> None:
    """gains[j] for the first `count` rows j, shared out among as many threads as scratch is for."""
    threads = scratch.shape[0]
    for thread in prange(threads):
        own = rows[thread * count // threads : (thread + 1) * count // threads]
        row_gains(kernel, coverage, own, gains, scratch[thread])


numba_types: Any = types
_clock_gettime = numba_types.ExternalFunction(
    "clock_gettime", numba_types.int32(numba_types.int32, numba_types.CPointer(numba_types.int64))
)


@jit()
def _seconds(clock: Array) -> float:
    """The time, for differences. clock: int64[2], to write to."""
    _clock_gettime(np.int32(CLOCK), clock.ctypes)
    return float(clock[0]) + 1e-9 * float(clock[1])


@jit(inline="always")
def _shared_out(
    kernel: Kernel,
    coverage: Coverage,
    rows: Array,
    count: int,
    gains: Array,
    scratch: Array,
    account: Array,
    clock: Array,
) -> None:
    """`_evaluate`, by all threads or by one, whichever is faster now."""
    entries = count * coverage.state.shape[1]
    began = _seconds(clock)
    if account[ALONE] > 0.0:
        row_gains(kernel, coverage, rows[:count], gains, scratch[0])
        took = _seconds(clock) - began
        account[SECONDS] += took
        account[ENTRIES] += entries
        account[ALONE] -= took
    else:
        _evaluate(kernel, coverage, rows, count, gains, scratch)
        lost = _seconds(clock) - began - entries * account[SECONDS] / account[ENTRIES]
        account[ALONE] = max(0.0, lost / RISK)


@jit()
def _before(bounds: Array, a: int, b: int) -> bool:
    return bounds[a] > bounds[b] or (bounds[a] == bounds[b] and a < b)


@jit()
def _sift_down(heap: Array, size: int, bounds: Array, position: int) -> None:
    j = heap[position]
    child = 2 * position + 1
    while child < size:
        if child + 1 < size and _before(bounds, heap[child + 1], heap[child]):
            child += 1
        if not _before(bounds, heap[child], j):
            break
        heap[position] = heap[child]
        position, child = child, 2 * child + 1
    heap[position] = j


@jit()
def _heapify(heap: Array, size: int, bounds: Array) -> None:
    for position in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, bounds, position)


@jit()
def _push(heap: Array, size: int, bounds: Array, j: int) -> int:
    position = size
    while position > 0:
        parent = (position - 1) // 2
        if not _before(bounds, j, heap[parent]):
            break
        heap[position] = heap[parent]
        position = parent
    heap[position] = j
    return size + 1


@jit()
def _pop(heap: Array, size: int, bounds: Array) -> int:
    """Remove the top; returns the new size."""
    heap[0] = heap[size - 1]
    _sift_down(heap, size - 1, bounds, np.int64(0))  # a literal compiles it twice
    return size - 1


@jit(inline="always")
def _settle(
    kernel: Kernel,
    coverage: Coverage,
    rules: Rules,
    bounds: Array,
    fresh: Array,
    step: int,
    heap: Array,
    size: int,
    per_token: bool,
    batch: Array,
    scratch: Array,
    sizes: Sizes,
    account: Array,
    clock: Array,
) -> tuple[int, int]:
    """Bring the best record of this step to the heap's top. Returns the heap's size and the gains computed.

    fresh[j]: the step at which bounds[j] was j's gain.
    """
    wanted, count, evaluations = sizes.first, 0, 0
    while True:
        if size > 0 and (fresh[heap[0]] != step or not admissible(rules, heap[0])):
            j = heap[0]
            size = _pop(heap, size, bounds)
            if admissible(rules, j):
                batch[count] = j
                count += 1
            if count < wanted:
                continue
        if count == 0:
            return size, evaluations
        if scratch.shape[0] > 1 and count >= sizes.shared:
            _shared_out(kernel, coverage, batch, count, bounds, scratch, account, clock)
        else:
            row_gains(kernel, coverage, batch[:count], bounds, scratch[0])
        for position in range(count):
            j = batch[position]
            if per_token:
                bounds[j] /= rules.cost[j]
            fresh[j] = step
            size = _push(heap, size, bounds, j)
        evaluations += count
        wanted, count = min(2 * wanted, LARGEST_BATCH), 0


@jit()
def _random(state: Array) -> np.int64:
    """The next number of splitmix64 (Steele, Lea, Flood 2014), as 53 random bits."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(11))


@jit()
def _draw(pool: Array, size: int, wanted: int, rules: Rules, state: Array) -> tuple[int, int]:
    """Move up to `wanted` random admissible records to the pool's front, dropping inadmissible ones for good."""
    count = 0
    while count < wanted and count < size:
        position = count + _random(state) % (size - count)
        j = pool[position]
        if admissible(rules, j):
            pool[position] = pool[count]
            pool[count] = j
            count += 1
        else:
            size -= 1
            pool[position] = pool[size]
    return count, size


@jit()
def _run(
    kernel: Kernel,
    coverage: Coverage,
    rules: Rules,
    taken: int,
    bounds: Array,
    fresh: Array,
    pool: Array,
    per_token: bool,
    least: float,
    sample: int,
    state: Array,
    scratch: Array,
    sizes: Sizes,
    chosen: Array,
    gains: Array,
) -> tuple[int, int, int]:
    """Go on choosing behind the first `taken`. Returns how many are chosen, the gains computed, the reason to stop."""
    evaluations = 0
    batch = np.empty(LARGEST_BATCH, np.int32)
    account, clock = np.zeros(3), np.empty(2, np.int64)
    account[ALONE] = TRIAL_AFTER
    waiting = pool.size
    heap = pool.copy()
    size = waiting
    if sample == 0:
        _heapify(heap, size, bounds)
    while rules.left[SLOTS] > 0:
        wanted = sample
        while True:
            if sample > 0:
                size, waiting = _draw(pool, waiting, wanted, rules, state)
                for position in range(size):
                    heap[position] = pool[position]
                _heapify(heap, size, bounds)
            size, computed = _settle(
                kernel,
                coverage,
                rules,
                bounds,
                fresh,
                taken,
                heap,
                size,
                per_token,
                batch,
                scratch,
                sizes,
                account,
                clock,
            )
            evaluations += computed
            # A sample without any gain says nothing about the others: look at all of them.
            if sample == 0 or size == 0 or bounds[heap[0]] > 0.0 or wanted >= waiting:
                break
            wanted = waiting
        if size == 0:
            return taken, evaluations, EXHAUSTED
        j = heap[0]
        if bounds[j] < least:
            return taken, evaluations, BELOW
        if bounds[j] <= 0.0:
            return taken, evaluations, SATURATED
        chosen[taken] = j
        gains[taken] = bounds[j] * rules.cost[j] if per_token else bounds[j]
        cover(kernel, coverage, j, scratch[0])
        take(rules, j)
        taken += 1
        if sample == 0:
            size = _pop(heap, size, bounds)
    return taken, evaluations, FULL


@jit()
def _fill(rules: Rules, order: Array, chosen: Array, taken: int) -> int:
    for j in order:
        if admissible(rules, j):
            take(rules, j)
            chosen[taken] = j
            taken += 1
    return taken


@dataclass(frozen=True)
class Run:
    """One greedy run. Records from position `filled_from` on came by the fill rule and gain nothing."""

    indices: Array  # int64[k]
    gains: Array  # float64[k]
    filled_from: int
    evaluations: int
    why: int  # FULL, SATURATED, BELOW or EXHAUSTED
    coverage: Coverage  # by the whole subset


def greedy(
    objective: Objective,
    rules: Rules,
    singletons: Array,
    *,
    always: ArrayLike = (),
    per_token: bool = False,
    until: float = 0.0,
    stop_at_zero: bool = False,
    sample: int = 0,
    seed: int = 0,
) -> Run:
    """Lazy greedy under `rules` (which it uses up).

    singletons: `initial_gains(objective)`.
    per_token: choose by gain per token (rules.cost) in place of gain.
    until: stop when that measure falls below this share of the largest singleton's; nothing is filled then.
    stop_at_zero: stop when no record gains anything; otherwise the rest is filled by singleton gain, largest
        first, ties to the lower index, as far as the rules allow.
    sample: records drawn in each step by the stochastic greedy; 0: exact. seed: of those draws.
    """
    n = singletons.size
    first = np.asarray(always, dtype=np.int32).reshape(-1)
    pool = np.flatnonzero(~rules.out).astype(np.int32)
    bounds = singletons / rules.cost if per_token else singletons.copy()
    largest = bounds[pool].max() if pool.size else 0.0
    fresh = np.full(n, -1 if first.size else 0, np.int32)
    capacity = min(int(rules.left[SLOTS]), pool.size + first.size)
    chosen, gains = np.zeros(capacity, np.int64), np.zeros(capacity)
    coverage = objective.empty_coverage()
    together = TOGETHER if isinstance(objective.kernel, FactoredKernel) else 1
    sizes = Sizes(together, math.ceil(PARALLEL_NANOSECONDS / max(1.0, gain_nanoseconds(objective.kernel))))
    scratch = new_scratch(objective.kernel, get_num_threads())
    if first.size:
        gain_and_cover(objective.kernel, coverage, first, gains, scratch[0])
        chosen[: first.size] = first
        for j in first:
            take(rules, j)
    taken, evaluations, why = _run(
        objective.kernel,
        coverage,
        rules,
        first.size,
        bounds,
        fresh,
        pool.copy(),
        per_token,
        max(until * largest, SMALLEST) if until > 0.0 else 0.0,
        sample,
        np.array([seed], np.uint64),
        scratch,
        sizes,
        chosen,
        gains,
    )
    filled_from = taken
    if why == SATURATED and not stop_at_zero:
        order = pool[np.argsort(-singletons[pool], kind="stable")]
        taken = _fill(rules, order, chosen, taken)
    return Run(chosen[:taken], gains[:taken], filled_from, evaluations, why, coverage)
