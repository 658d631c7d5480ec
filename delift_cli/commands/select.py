"""`delift select`: from caches to the records worth training on."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import InputError
from ..selection import output as files
from ..selection.blocks import Estimates, KernelOptions, SelfUtility
from ..selection.card import publish
from ..selection.subset import Method, select_records
from ..submodular.curve import plot, render_curve
from ..submodular.kernel import Transform, Utility
from ..submodular.select import Method as Greedy
from . import bars, console, options
from .options import GpuLayers, ModelChoice, Quiet, Threads
from .unused import refuse_unused

ObjectiveName = Literal[
    "fl", "flmi", "flvmi", "fl1mi", "flcg", "flcmi", "sqrt", "log1p", "saturated", "lp", "noisyor", "topm"
]


def select(
    context: typer.Context,
    cache: Annotated[
        Path | None, typer.Argument(metavar="CACHE", help="The pool's cache, from: delift score POOL.")
    ] = None,
    k: Annotated[
        str, options.how_much("-k", metavar="AMOUNT", help="Records (500), a share (30%) or tokens (200ktok).")
    ] = "30%",
    until: Annotated[
        str | None,
        options.how_much(metavar="SHARE", help="Stop when a gain falls under this share of the first: 1%."),
    ] = None,
    stop_at_zero: Annotated[
        bool, options.how_much("--stop-at-zero", help="Select fewer rather than records that gain nothing.")
    ] = False,
    target: Annotated[
        Path | None, options.choosing(metavar="CACHE", help="Lean towards a target set: pool by targets.")
    ] = None,
    existing: Annotated[
        Path | None, options.choosing(metavar="CACHE", help="Cover what existing data do not: existing by pool.")
    ] = None,
    method: Annotated[
        Method, options.choosing(help="What to choose by: DELIFT, or a plainer way to compare it with.")
    ] = "delift",
    objective: Annotated[
        ObjectiveName | None,
        options.choosing(
            help="Default: fl (anchors: topm); flmi with --target, flcg with --existing, flcmi with both."
        ),
    ] = None,
    utility: Annotated[
        Utility, options.choosing(help="From distances, or from log-probabilities (nats per token).")
    ] = "euclidean",
    kernel: Annotated[Transform, options.choosing(help="How utilities become similarities.")] = "clip",
    self_utility: Annotated[
        SelfUtility, options.choosing("--self", help="May a record, or a copy of it, cover itself?")
    ] = "exclude",
    estimates: Annotated[
        Estimates,
        options.choosing(
            help="Pairs that were not scored count as estimated (on), as 0 (off); auto: if that is any good."
        ),
    ] = "auto",
    paper: Annotated[
        bool, options.choosing("--paper", help="As published: euclidean, clip, self-utilities included.")
    ] = False,
    eta: Annotated[
        float | None, options.choosing(metavar="X", min=0, max=1e6, help="Weight of the target set.")
    ] = None,
    nu: Annotated[float, options.choosing(metavar="X", min=0, max=1e6, help="Weight of the existing data.")] = 1.0,
    alpha: Annotated[
        float, options.choosing(metavar="X", help="Ceiling of 'saturated', a share of the pool's sum.")
    ] = 0.3,
    p: Annotated[
        float, options.choosing("--p", metavar="X", help="Norm of 'lp': 1 adds helpers up, a large one is like 'fl'.")
    ] = 2.0,
    beta: Annotated[
        float, options.choosing(metavar="X", help="Of 'noisyor': how soon a target is served by its helpers.")
    ] = 1.0,
    depth: Annotated[
        int, options.choosing(metavar="N", min=1, max=1000, help="Of 'topm': how many helpers of a target count.")
    ] = 3,
    always: Annotated[
        Path | None, options.limits(metavar="FILE", help="Ids, one a line, that are chosen first.")
    ] = None,
    never: Annotated[Path | None, options.limits(metavar="FILE", help="Ids, one a line, that are left out.")] = None,
    per: Annotated[
        str | None,
        options.limits(metavar="FIELD:SHARE", help="Most that one value of a field may take: task:10% or task:50."),
    ] = None,
    group: Annotated[
        str | None, options.limits(metavar="FIELD", help="Field of --at-least and --at-most; default that of --per.")
    ] = None,
    at_least: Annotated[
        list[str] | None, options.limits(metavar="VALUE=N", help="Least for one value: code=200. Repeatable.")
    ] = None,
    at_most: Annotated[
        list[str] | None, options.limits(metavar="VALUE=N", help="Most for one value: chat=500. Repeatable.")
    ] = None,
    shares: Annotated[
        Literal["keep"] | None,
        options.limits(metavar="keep", help="Each value of --group keeps the share that it has in the pool."),
    ] = None,
    share: Annotated[
        list[str] | None,
        options.limits(metavar="FIELD:VALUE=SHARE", help="Share of one value: source:code=30%. Repeatable."),
    ] = None,
    quality: Annotated[
        str | None,
        options.choosing(metavar="FIELD[:W]", help="Weigh a score that the data carry, higher is better."),
    ] = None,
    not_like: Annotated[
        list[str] | None,
        options.limits(metavar="DATA[:SHARE]", help="Leave out what overlaps a benchmark: test.jsonl:0.8. Repeatable."),
    ] = None,
    distinct: Annotated[
        str | None, options.limits(metavar="SHARE", help="Never two records whose texts are this similar: 0.9 or 90%.")
    ] = None,
    drop_suspects: Annotated[
        str | None,
        options.limits(metavar="SHARE", help="Leave out the most suspect answers: 10% of the pool; see inspect."),
    ] = None,
    greedy: Annotated[
        Greedy, options.machine(help="exact; stochastic (samples); partitioned (larger than memory).")
    ] = "exact",
    epsilon: Annotated[float, options.machine(metavar="X", min=1e-6, max=0.99, help="Of --greedy stochastic.")] = 0.01,
    parts: Annotated[int, options.machine(metavar="N", min=2, help="Of --greedy partitioned.")] = 2,
    seed: Annotated[
        int, options.machine(metavar="N", min=0, max=options.LARGEST_SEED, help="Of everything random.")
    ] = 0,
    model: ModelChoice = None,
    gpu_layers: GpuLayers = None,
    threads: Threads = None,
    destination: Annotated[
        Path | None,
        options.output("--output", "-o", metavar="FILE", help="File, also .parquet or .csv; default stdout (-)."),
    ] = None,
    force: Annotated[bool, options.output("--force", help="Write even over a file of the records.")] = False,
    push: Annotated[
        str | None,
        options.output(metavar="hf:OWNER/NAME", help="Put the subset on the hub, with a card of how it was made."),
    ] = None,
    order: Annotated[Literal["selection", "input"], options.output(help="Order of the records written.")] = "selection",
    with_scores: Annotated[
        bool, options.output("--with-scores", help="Add id, rank, gain and coverage to each record.")
    ] = False,
    ids_only: Annotated[bool, options.output("--ids-only", help="Write ids, one a line.")] = False,
    curve: Annotated[
        Path | None,
        options.output(metavar="FILE", help="Write value and gain against k (.csv or .json), and plot it."),
    ] = None,
    quiet: Quiet = False,
    as_json: Annotated[
        bool, options.output("--json", help="The summary as JSON: on stdout with -o, else on stderr.")
    ] = False,
) -> None:
    """Choose the records worth training on, and write them as they came in.

    Examples:

        delift select train.delift -k 30% > subset.jsonl
        delift select train.delift --target dev.delift -k 500
        delift select train.delift --existing old.delift -k 30%
    """
    refuse_unused(context, method, objective)
    if paper:
        if (utility, kernel) != ("euclidean", "clip"):
            raise InputError("--paper means --utility euclidean --kernel clip --self include; leave those out")
        self_utility = "include"
    with console.bars(quiet=quiet) as progress:
        subset = select_records(
            cache,
            k,
            target=target,
            existing=existing,
            method=method,
            objective=objective,
            options=KernelOptions(utility, kernel, self_utility, estimates, seed),
            eta=eta,
            nu=nu,
            alpha=alpha,
            p=p,
            beta=beta,
            depth=depth,
            always=always,
            never=never,
            per=per,
            group=group,
            at_least=at_least or (),
            at_most=at_most or (),
            keep_shares=shares == "keep",
            shares=share or (),
            quality=quality,
            not_like=not_like or (),
            distinct=distinct,
            drop_suspects=drop_suspects,
            until=until,
            stop_at_zero=stop_at_zero,
            greedy=greedy,
            epsilon=epsilon,
            parts=parts,
            seed=seed,
            model=model,
            gpu_layers=gpu_layers,
            threads=threads,
            progress=progress,
        )
    if str(destination) == "-":
        destination = None
    if not force:
        files.refuse_to_overwrite(destination, subset.sources)
    how: dict[str, Any] = {"input_order": order == "input", "with_scores": with_scores, "say": console.sayer(quiet)}
    if destination is not None or push is None:
        files.write(subset.render(destination=destination, ids_only=ids_only, **how), destination)
    if push is not None:
        console.sayer(quiet)(f"pushed to {publish(subset, push, shlex.join(['delift', *sys.argv[1:]]), **how)}")
    if curve is not None:
        files.write(render_curve(subset.curve(), "json" if curve.suffix == ".json" else "csv"), curve)
    stream = sys.stderr if destination is None else sys.stdout
    drawn = [] if as_json or quiet else bars.selected(subset, console.stderr())
    console.show(subset, as_json=as_json, quiet=quiet, also=drawn, data=stream)
    if curve is not None and not (quiet or as_json):
        value = subset.selection.value
        console.plot(plot(subset.selection.curve.tolist()), f"value against k, up to {value:.4f} at {len(subset):,}")
