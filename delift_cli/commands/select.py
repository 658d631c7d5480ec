"""`delift select`: from caches to the records worth training on."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer

from ..amount import parse_amount, parse_share
from ..cache.dense import Cache
from ..cache.sparse import SparseCache, open_cache
from ..cache.stored import Stored
from ..data.limits import labels, named_indices, read_quotas
from ..data.near_duplicates import near_duplicates
from ..errors import InputError
from ..selection import baselines, blocks, first_gains, output
from ..selection.blocks import AnyBlock, Estimates, KernelOptions, PartialBlock, Records, SelfUtility
from ..submodular.curve import curve_rows, plot, render_curve
from ..submodular.kernel import Transform, Utility
from ..submodular.objectives import Objective, value
from ..submodular.select import Method as Greedy
from ..submodular.select import select as choose
from . import console
from .select_summary import COVERING, summarize, summary_lines

if TYPE_CHECKING:  # llama.cpp takes a while to load, and only two methods need it
    from ..prompt.template import ChatTemplate
    from ..scoring.job import Engine

ObjectiveName = Literal["fl", "flmi", "flvmi", "fl1mi", "flcg", "flcmi", "sqrt", "log1p", "saturated"]
Method = Literal["random", "length", "loss", "ifd", "embedding", "delift"]

METHODS_OF = {  # who has a use for which option; the others are everybody's
    **dict.fromkeys(("target", "existing", "objective", "self_utility", "eta", "nu", "alpha"), COVERING),
    **dict.fromkeys(("greedy", "epsilon", "parts"), COVERING),
    **dict.fromkeys(("utility", "kernel", "estimates", "paper"), ("delift",)),
}


def select(
    context: typer.Context,
    cache: Annotated[Path | None, typer.Argument(help="The pool's cache, from: delift score POOL.")] = None,
    k: Annotated[str, typer.Option("-k", help="How much: records (500), a share (30%) or tokens (200ktok).")] = "30%",
    target: Annotated[Path | None, typer.Option(help="Cache of the pool by a target set.")] = None,
    existing: Annotated[Path | None, typer.Option(help="Cache of existing data by the pool.")] = None,
    method: Annotated[
        Method, typer.Option(help="What to choose by: DELIFT, or a plainer way to compare it with.")
    ] = "delift",
    objective: Annotated[
        ObjectiveName | None,
        typer.Option(help="Default: fl; flmi with --target, flcg with --existing, flcmi with both."),
    ] = None,
    utility: Annotated[
        Utility, typer.Option(help="From distances, or from log-probabilities (nats per token).")
    ] = "euclidean",
    kernel: Annotated[Transform, typer.Option(help="How utilities become similarities.")] = "clip",
    self_utility: Annotated[
        SelfUtility, typer.Option("--self", help="May a record, or a copy of it, cover itself?")
    ] = "exclude",
    estimates: Annotated[
        Estimates,
        typer.Option(help="Pairs that were not scored count as estimated (on), as 0 (off); auto: if that is any good."),
    ] = "auto",
    paper: Annotated[
        bool, typer.Option("--paper", help="As published: euclidean, clip, self-utilities included.")
    ] = False,
    eta: Annotated[float | None, typer.Option(min=0, max=1e6, help="Weight of the target set.")] = None,
    nu: Annotated[float, typer.Option(min=0, max=1e6, help="Weight of the existing data.")] = 1.0,
    alpha: Annotated[float, typer.Option(help="Ceiling of 'saturated', a share of the pool's sum.")] = 0.3,
    always: Annotated[Path | None, typer.Option(help="File of ids, one a line, that are chosen first.")] = None,
    never: Annotated[Path | None, typer.Option(help="File of ids, one a line, that are left out.")] = None,
    per: Annotated[
        str | None, typer.Option(help="Most that one value of a field may take: task:10% or task:50.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Field of --at-least and --at-most; default that of --per.")] = None,
    at_least: Annotated[list[str] | None, typer.Option(help="Least for one value: code=200. Repeatable.")] = None,
    at_most: Annotated[list[str] | None, typer.Option(help="Most for one value: chat=500. Repeatable.")] = None,
    distinct: Annotated[
        str | None, typer.Option(help="Never two records whose texts are this similar: 0.9 or 90%.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop when a gain falls under this share of the first: 1%.")] = None,
    stop_at_zero: Annotated[
        bool, typer.Option("--stop-at-zero", help="Select fewer rather than records that gain nothing.")
    ] = False,
    greedy: Annotated[
        Greedy, typer.Option(help="exact; stochastic (samples); partitioned (larger than memory).")
    ] = "exact",
    epsilon: Annotated[float, typer.Option(min=1e-6, max=0.99, help="Of --greedy stochastic.")] = 0.01,
    parts: Annotated[int, typer.Option(min=2, help="Of --greedy partitioned.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The cache's GGUF, which ifd and embedding run once.")
    ] = None,
    gpu_layers: Annotated[int | None, typer.Option(min=0, help="Layers of it on the GPU; default all.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads that it runs on; default all cores.")] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Write value and gain against k (.csv or .json), and plot it.")
    ] = None,
    destination: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default stdout.")] = None,
    order: Annotated[Literal["selection", "input"], typer.Option(help="Order of the records written.")] = "selection",
    with_scores: Annotated[
        bool, typer.Option("--with-scores", help="Add id, rank, gain and coverage to each record.")
    ] = False,
    ids_only: Annotated[bool, typer.Option("--ids-only", help="Write ids, one a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but records and errors.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The summary as JSON: on stdout with -o, else on stderr.")
    ] = False,
) -> None:
    """Choose the records worth training on, and write them as they came in.

    delift select train.delift -k 30% > subset.jsonl\n
    delift select train.delift --target dev.delift -k 500\n
    delift select train.delift --existing old.delift -k 30%
    """
    _refuse_unused(context, method)
    if paper:
        if (utility, kernel) != ("euclidean", "clip"):
            raise InputError("--paper means --utility euclidean --kernel clip --self include; leave those out")
        self_utility = "include"
    name = objective or blocks.default_objective(cache is not None, target is not None, existing is not None)
    paths = {"pool": cache, "target": target, "existing": existing}
    caches = {role: open_cache(path) for role, path in paths.items() if path is not None}
    options = KernelOptions(utility, kernel, self_utility, estimates, seed)
    asked_model = _Asked(model, gpu_layers, threads, quiet)
    opened: dict[str, AnyBlock] = {}
    pool: Records
    kept_gains = None
    if method in COVERING:
        opened = _embedded(caches, asked_model) if method == "embedding" else _scored(caches)
        roles = {role: opened.get(role) for role in paths}
        goal, pool = blocks.objective_over(**roles, name=name, options=options, eta=eta, nu=nu, alpha=alpha)
        kept_gains = first_gains.gains_file(
            pool.cache,
            list(caches.values()),
            objective=name,
            options=asdict(options),
            parameters=goal.parameters,
            **({} if method == "delift" else {"method": method}),
        )
    else:
        goal, pool = _per_record(method, caches.get("pool"), seed, asked_model)  # type: ignore[arg-type]
    records = pool.examples
    amount = parse_amount(k, len(records))
    group_field, least, most = read_quotas(per, group, at_least or [], at_most or [], records, amount)
    first, left_out = named_indices(always, records), named_indices(never, records)
    if both := {*first} & {*left_out}:
        raise InputError(f"record {records[min(both)].id} is in both {always} and {never}")
    selection = choose(
        goal,
        amount.records,
        cost=None if amount.tokens is None else pool.cache.example_tokens,
        budget=amount.tokens,
        always=first,
        never=left_out,
        group=None if group_field is None else labels(records, group_field),
        at_least=least,
        at_most=most,
        near_duplicates=None if distinct is None else near_duplicates(records, parse_share(distinct, "--distinct")),
        until=0.0 if until is None else parse_share(until, "--until"),
        stop_at_zero=stop_at_zero,
        method=greedy,
        epsilon=epsilon,
        parts=parts,
        seed=seed,
        initial_gains=None if kept_gains is None else first_gains.read_gains(kept_gains, len(records)),
        per_token=method in COVERING,
    )
    if not len(selection.indices) and selection.stopped == "exhausted":
        smallest = f"; the smallest has {pool.cache.example_tokens.min():,} tokens" if amount.tokens else ""
        raise InputError(f"-k {k} selects nothing: no record is admissible{smallest}")
    if kept_gains is not None:
        first_gains.keep_gains(kept_gains, selection.initial_gains)
    whole = value(goal)
    written = output.render(
        records,
        selection,
        form=pool.cache.manifest["examples"]["form"],
        whole=whole,
        input_order=order == "input",
        with_scores=with_scores,
        ids_only=ids_only,
    )
    output.write(written, destination)
    rows = curve_rows(selection, [record.id for record in records], whole)
    if curve is not None:
        output.write(render_curve(rows, "json" if curve.suffix == ".json" else "csv"), curve)
    summary = summarize(
        selection,
        method=method,
        asked=k,
        options=options,
        seed=seed,
        whole=whole,
        pool=pool,
        partial={role: block for role, block in opened.items() if isinstance(block, PartialBlock)},
    )
    if as_json:
        stream = sys.stderr if destination is None else sys.stdout
        print(orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode(), file=stream)
    elif not quiet:
        console.facts(summary_lines(summary, selection, amount))
        if curve is not None:
            console.plot(
                plot(selection.curve.tolist()), f"value against k, up to {selection.value:.4f} at {len(rows):,}"
            )


def _refuse_unused(context: typer.Context, method: str) -> None:
    """InputError for an option that the user gave and that this method has no use for."""
    for parameter in context.command.params:
        methods = METHODS_OF.get(parameter.name or "", (method,))
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and method not in methods:
            option = parameter.opts[0]
            raise InputError(
                f"{option} is of no use to --method {method}, only to {' and '.join(methods)}; leave it out"
            )


@dataclass(frozen=True)
class _Asked:
    """How the user wants the model run, where a method runs it at all."""

    model: str | None
    gpu_layers: int | None
    threads: int | None
    quiet: bool

    def open(self, cache: Stored) -> tuple[Engine, ChatTemplate]:
        from ..model.llama import Settings
        from ..scoring.job import engine_as_measured

        return engine_as_measured(cache, self.model, Settings(self.gpu_layers, self.threads))


def _scored(caches: dict[str, Cache | SparseCache]) -> dict[str, AnyBlock]:
    return {role: blocks.as_block(cache) for role, cache in caches.items()}


def _embedded(caches: dict[str, Cache | SparseCache], asked: _Asked) -> dict[str, AnyBlock]:
    from ..selection.embedded import embedded_blocks

    if not caches:
        return {}
    records = next(iter(caches.values())).shape[0]
    with console.counting("embeddings", records, quiet=asked.quiet) as report:
        return dict(zip(caches, embedded_blocks(list(caches.values()), asked.open, report), strict=True))


def _per_record(
    method: baselines.PerRecord, cache: Cache | SparseCache | None, seed: int, asked: _Asked
) -> tuple[Objective, Records]:
    if cache is None:
        raise InputError(f"give a cache to select from: delift select train.delift --method {method} -k 30%")
    baselines.check_pool(cache, method)
    alone = None
    if method == "ifd":
        from ..scoring.without_prompt import logprob_without_prompt

        with console.counting("responses without prompts", cache.shape[0], quiet=asked.quiet) as report:
            alone = logprob_without_prompt(cache, asked.open, report)
    return baselines.modular(baselines.scores(cache, method, seed, alone)), Records(cache)
