"""One `delift select` from end to end: caches, an objective, limits, and the records that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np

from ..cache.sidecar import keep, read_kept
from ..errors import InputError, check_choice, check_seed
from ..progress import Progress, Say, silent
from ..submodular.objectives import value
from ..submodular.select import Method as Greedy
from ..submodular.select import select
from . import blocks
from .blocks import AnyBlock, Count, KernelOptions, PartialBlock, Records
from .first_gains import gains_file
from .hygiene import ANY, benchmarks, hygiene
from .larger_than_memory import beyond_memory
from .limits import read_limits
from .methods import (
    COVERING,
    AnyCache,
    Method,
    OpenModel,
    cosine_blocks,
    defaults_for,
    objective_for,
    opened_cache,
    per_record,
    scored_blocks,
)
from .overwriting import files_read
from .set_aside import LAST, OFF, check_set_aside, set_aside
from .subset import Subset


def select_records(
    cache: AnyCache | None = None,
    k: str | int = "30%",
    *,
    target: AnyCache | None = None,
    existing: AnyCache | None = None,
    method: Method = "delift",
    objective: str | None = None,
    options: KernelOptions | None = None,
    eta: float | None = None,
    nu: float = 1.0,
    alpha: float | None = None,
    p: float = 2.0,
    beta: float = 1.0,
    depth: int = 3,
    count: Count | None = None,
    always: str | Path | None = None,
    never: str | Path | None = None,
    per: str | None = None,
    group: str | None = None,
    at_least: Sequence[str] = (),
    at_most: Sequence[str] = (),
    keep_shares: bool = False,
    shares: Sequence[str] = (),
    quality: str | None = None,
    not_like: Sequence[str] = (),
    distinct: str | None = None,
    drop_suspects: str | None = None,
    until: str | None = None,
    stop_at_zero: bool = False,
    greedy: Greedy = "exact",
    epsilon: float = 0.01,
    parts: int = 2,
    seed: int = 0,
    model: str | None = None,
    gpu_layers: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    say: Say = silent,
) -> Subset:
    """Choose the records of a pool that are worth training on.

    Args:
        cache: the pool's, a path or opened; None with a target set alone. target, existing: see
            `blocks.objective_over`.
        k: a number of records, a share (30%) or a token budget (200ktok).
        objective: None for that of the stage and the share that is wanted, see `blocks.default_objective`.
        options: how measurements become similarities; what of itself a record covers unsaid: see `methods.Defaults`.
        alpha: of `saturated`; None: 0.3, where the objective is the default's the share of the pool that is chosen.
        count: what of a target counts alike, see `blocks.objective_over`. None: see `methods.Defaults`.
        always, never: files of ids. per, group, at_least, at_most, keep_shares, shares: see
            `data.limits.read_quotas`.
        quality, not_like, distinct: see `hygiene.hygiene`; None of distinct: see `methods.Defaults`.
        until: a share, such as 1%. drop_suspects: the share of the pool to leave out whose answers are the most
            suspect, `last` or `off`, see `set_aside`; None: see `methods.Defaults`.
        say: is told where the matrix is larger than memory, and where neighbours are approximate.
        model, gpu_layers, threads: for the methods ifd and embedding and for suspects, which run the cache's model
            once.

    Raises:
        InputError: caches that do not fit each other or the objective, or limits that nothing satisfies.
    """
    check_choice("method", method, get_args(Method))
    check_choice("greedy", greedy, get_args(Greedy))
    check_seed(seed)
    if count is not None:
        check_choice("count", count, get_args(Count))
    options = options or KernelOptions(seed=seed)
    given = {"pool": cache, "target": target, "existing": existing}
    caches = {role: opened_cache(one) for role, one in given.items() if one is not None}
    role = blocks.chosen_role(caches)
    caches[role].check_shared()
    records = caches[role].examples().records
    limits = read_limits(
        records,
        caches[role].example_tokens,
        str(k),
        until=until,
        always=always,
        never=never,
        per=per,
        group=group,
        at_least=at_least,
        at_most=at_most,
        keep_shares=keep_shares,
        shares=shares,
    )
    amount = limits.amount
    unsaid = defaults_for(caches, objective, method)
    name, unsaid_alpha = "", blocks.ALPHA
    if method in COVERING:
        name, unsaid_alpha = objective_for(caches, str(k), objective, method)
        blocks.check_fit(caches, name)
    check_set_aside(caches.get("pool"), drop_suspects)
    beyond = amount.tokens is not None or limits.at_least or limits.at_most
    if greedy != "exact" and (beyond or distinct not in (None, ANY) or drop_suspects == LAST):
        raise InputError(f"the {greedy} method takes k, always and never, no budget, quotas, near-duplicates or last")
    let_go = []
    if distinct is None and greedy == "exact":
        distinct = unsaid.distinct
    elif distinct is None and unsaid.distinct != ANY:  # the other ways rule no near-duplicates out
        let_go.append("distinct")
    clean = hygiene(records, not_like=not_like, distinct=distinct, quality=quality)
    open_model = OpenModel(model, gpu_layers, threads)
    opened: dict[str, AnyBlock] = {}
    pool: Records
    kept_gains = None
    if method in COVERING:
        count = count or unsaid.count
        options = options.with_default(unsaid.self_utility)
        opened = cosine_blocks(caches, open_model, progress) if method == "embedding" else scored_blocks(caches)
        opened[role].examples = records
        goal, pool = blocks.objective_over(
            opened.get("pool"),
            opened.get("target"),
            opened.get("existing"),
            name,
            options,
            eta=eta,
            nu=nu,
            alpha=unsaid_alpha if alpha is None else alpha,
            p=p,
            beta=beta,
            depth=depth,
            count=count,
        )
        kept_gains = gains_file(
            pool.cache,
            list(caches.values()),
            objective=name,
            options=asdict(options),
            parameters=goal.parameters,
            **({} if method == "delift" else {"method": method}),
            **({} if count == "records" else {"count": count}),
        )
    else:
        count = None
        goal, pool = per_record(method, caches.get("pool"), seed, open_model, progress)  # type: ignore[arg-type]
        pool.examples = records
    if quality is not None:
        goal = clean.with_quality(goal, len(records), amount, float(pool.cache.example_tokens.mean()))
        kept_gains = None  # they are without it
    if greedy != "exact" and drop_suspects is None:  # the other ways let nothing come last
        drop_suspects = "off"
        if unsaid.suspects != OFF and pool.cache.square:
            let_go.append("drop_suspects")
    doubted = set_aside(
        caches.get("pool"), records, drop_suspects, unsaid.suspects, limits.always, open_model, progress
    )
    if greedy == "exact" and (hint := beyond_memory(goal)):
        say(hint)
    partial = {role: block for role, block in opened.items() if isinstance(block, PartialBlock)}
    for block in partial.values():
        for line in block.approximations(options):
            say(line)
    known_gains = None if kept_gains is None else read_kept(kept_gains, (len(records),), np.float64)
    selection = select(
        goal,
        amount.records,
        cost=None if amount.tokens is None else pool.cache.example_tokens,
        budget=amount.tokens,
        always=limits.always,
        never=sorted({*limits.never, *clean.left_out, *doubted.never} - {*limits.always}),
        last=doubted.last,
        group=limits.group_of,
        at_least=limits.at_least,
        at_most=limits.at_most,
        near_duplicates=clean.near,
        lenient=clean.lenient,
        until=limits.until,
        stop_at_zero=stop_at_zero,
        method=greedy,
        epsilon=epsilon,
        parts=parts,
        seed=seed,
        initial_gains=known_gains,
        per_token=method in COVERING,
    )
    if not len(selection.indices) and selection.stopped == "exhausted":
        smallest = f"; the smallest has {pool.cache.example_tokens.min():,} tokens" if amount.tokens else ""
        raise InputError(f"-k {k} selects nothing: no record is admissible{smallest}")
    if kept_gains is not None and known_gains is None:
        keep(kept_gains, selection.initial_gains)
    return Subset(
        selection,
        goal,
        pool,
        value(goal),
        method,
        str(k),
        amount,
        options,
        seed,
        partial,
        clean,
        doubted,
        count,
        group=limits.group,
        group_of=limits.group_of or (),
        at_least=limits.at_least,
        read=files_read(caches.values(), always, never, model, *benchmarks(not_like)),
        let_go=let_go,
    )
