"""`delift select`: from caches to the records worth training on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer

from .. import blocks, console, output
from ..amount import Amount, parse_amount
from ..blocks import SelfUtility
from ..cache import Cache
from ..errors import InputError
from ..kernel import Transform, Utility
from ..objectives import value
from ..records import Record
from ..selection import Selection
from ..selection import select as choose

ObjectiveName = Literal["fl", "flmi", "flvmi", "fl1mi", "flcg", "flcmi", "sqrt", "log1p", "saturated"]


def select(
    cache: Annotated[Path | None, typer.Argument(help="The pool's cache, from: delift score POOL.")] = None,
    k: Annotated[str, typer.Option("-k", help="How much: records (500), a share (30%) or tokens (200ktok).")] = "30%",
    target: Annotated[Path | None, typer.Option(help="Cache of the pool by a target set.")] = None,
    existing: Annotated[Path | None, typer.Option(help="Cache of existing data by the pool.")] = None,
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
    paper: Annotated[
        bool, typer.Option("--paper", help="As published: euclidean, clip, self-utilities included.")
    ] = False,
    eta: Annotated[float | None, typer.Option(min=0, help="Weight of the target set.")] = None,
    nu: Annotated[float, typer.Option(min=0, help="Weight of the existing data.")] = 1.0,
    alpha: Annotated[float, typer.Option(help="Ceiling of 'saturated', a share of the pool's sum.")] = 0.3,
    always: Annotated[Path | None, typer.Option(help="File of ids, one a line, that are chosen first.")] = None,
    never: Annotated[Path | None, typer.Option(help="File of ids, one a line, that are left out.")] = None,
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
    if paper:
        utility, kernel, self_utility = "euclidean", "clip", "include"
    name = objective or blocks.default_objective(cache is not None, target is not None, existing is not None)
    goal, pool = blocks.objective_over(
        _open(cache),
        _open(target),
        _open(existing),
        name,
        blocks.KernelOptions(utility, kernel, self_utility),
        eta=eta,
        nu=nu,
        alpha=alpha,
    )
    records = pool.examples
    amount = parse_amount(k, len(records))
    first, left_out = _indices(always, records), _indices(never, records)
    for place in first:
        if place in left_out:
            raise InputError(f"record {records[place].id} is in both {always} and {never}")
    selection = choose(
        goal,
        amount.records,
        cost=None if amount.tokens is None else pool.cache.example_tokens,
        budget=amount.tokens,
        always=first,
        never=left_out,
    )
    if not len(selection.indices):
        smallest = f"; the smallest has {pool.cache.example_tokens.min():,} tokens" if amount.tokens else ""
        raise InputError(f"-k {k} selects nothing: no record fits{smallest}")
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
    summary = {
        "selected": len(selection.indices),
        "pool": len(records),
        "tokens": int(pool.cache.example_tokens[selection.indices].sum()),
        "asked": k,
        "objective": selection.objective,
        "parameters": selection.parameters,
        "utility": utility,
        "kernel": kernel,
        "self": self_utility,
        "value": selection.value,
        "whole_pool": whole,
        "share": selection.value / whole if whole > 0 else None,
        "saturated_at": selection.saturated_at,
        "filled": len(selection.indices) - selection.filled_from,
        "rule": selection.rule,
        "guarantee": selection.guarantee_note,
        "model_sha256": pool.cache.manifest["model"]["sha256"],
    }
    if as_json:
        stream = sys.stderr if destination is None else sys.stdout
        print(orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode(), file=stream)
    elif not quiet:
        _print(summary, amount, selection)


def _open(path: Path | None) -> Cache | None:
    return None if path is None else Cache(path)


def _indices(path: Path | None, records: Sequence[Record]) -> list[int]:
    """The places of the records that a file names by id."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the ids in {path}: {error}") from None
    places = {record.id: place for place, record in enumerate(records)}
    found: dict[int, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if line.strip() not in places:
            raise InputError(f"{path}:{number}: the pool has no record with the id {line.strip()}")
        found[places[line.strip()]] = None
    return list(found)


def _print(summary: dict[str, Any], amount: Amount, selection: Selection) -> None:
    parameters = "".join(f", {name} {value:g}" for name, value in summary["parameters"].items())
    budget = f", budget {amount.tokens:,} tokens, by {selection.rule}" if amount.tokens is not None else ""
    share = "" if summary["share"] is None else f", {summary['share']:.1%} of what the whole pool reaches"
    rows = [
        ("selected", f"{summary['selected']:,} of {summary['pool']:,} records, {summary['tokens']:,} tokens{budget}"),
        (
            "objective",
            f"{summary['objective']}{parameters} ({summary['utility']}, {summary['kernel']}, "
            f"self-utilities {summary['self']}d)",
        ),
        ("value", f"{summary['value']:.4f}{share}"),
    ]
    if selection.saturated_at is not None:
        rest = f"; the other {summary['filled']:,} were taken by what each is worth alone" if summary["filled"] else ""
        rows.append(("saturated", f"nothing more to gain after {selection.saturated_at:,} records{rest}"))
    console.facts(rows)
