"""`delift explain`: why a record was chosen, or what made it redundant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer

from ..amount import parse_amount
from ..cache.sparse import open_cache
from ..data.record import Record
from ..errors import InputError
from ..selection import blocks
from ..selection.blocks import KernelOptions, SelfUtility
from ..submodular.explain import explain_chosen, explain_left_out, harmed
from ..submodular.kernel import Transform, Utility
from ..submodular.select import select as choose
from . import console

PoolObjective = Literal["fl", "sqrt", "log1p", "saturated"]


def explain(
    cache: Annotated[Path, typer.Argument(help="The pool's cache.")],
    record: Annotated[str, typer.Argument(metavar="ID", help="A record's id.")],
    k: Annotated[str, typer.Option("-k", help="The selection to explain, as for delift select.")] = "30%",
    objective: Annotated[PoolObjective, typer.Option(help="As for delift select.")] = "fl",
    utility: Annotated[Utility, typer.Option(help="As for delift select.")] = "euclidean",
    kernel: Annotated[Transform, typer.Option(help="As for delift select.")] = "clip",
    self_utility: Annotated[SelfUtility, typer.Option("--self", help="As for delift select.")] = "exclude",
    top: Annotated[int, typer.Option(min=1, help="How many lines of each kind.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Say why a record is in the selection, or who made it redundant; and whom it harms."""
    opened = blocks.as_block(open_cache(cache))
    goal, pool = blocks.objective_over(opened, None, None, objective, KernelOptions(utility, kernel, self_utility))
    records = pool.examples
    place = next((place for place, candidate in enumerate(records) if candidate.id == record), None)
    if place is None:
        raise InputError(f"{cache} has no record with the id {record}; delift inspect {cache} shows some")
    amount = parse_amount(k, len(records))
    selection = choose(
        goal,
        amount.records,
        cost=None if amount.tokens is None else opened.cache.example_tokens,
        budget=amount.tokens,
        bound=False,
    )
    chosen = selection.indices.tolist()
    signed = pool.kernel(KernelOptions(utility, "raw", estimates="off"))  # harm is said of measured pairs alone
    harm = harmed(signed, place, top)
    result: dict[str, Any] = {"id": record, "chosen": place in chosen, "selected": len(chosen), "of": len(records)}
    if place in chosen:
        rank = chosen.index(place)
        found = explain_chosen(goal.kernel, selection.indices, place, top)
        result |= {
            "rank": rank + 1,
            "gain": float(selection.gains[rank]),
            "lost_without_it": found.margin,
            "covers": [
                {
                    "id": records[target].id,
                    "similarity": float(value),
                    "otherwise": None if other < 0 else records[other].id,
                    "otherwise_similarity": float(other_value),
                }
                for target, value, other, other_value in zip(*_columns(found), strict=True)
            ],
        }
    else:
        missed = explain_left_out(goal.kernel, selection.indices, place, top)
        result |= {
            "could_still_add": missed.gain,
            "worth_alone": missed.total,
            "made_redundant_by": [
                {"id": records[by].id, "targets": int(targets), "share": float(share)}
                for by, targets, share in zip(
                    missed.by.tolist(), missed.targets.tolist(), missed.share.tolist(), strict=True
                )
            ],
        }
    result["harms"] = {
        "targets": harm.count,
        "most": [
            {"id": pool.targets[target].id, "utility": float(value)}
            for target, value in zip(harm.targets.tolist(), harm.utility.tolist(), strict=True)
        ],
    }
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        console.facts(_lines(result, records[place], pool.targets), console=console.stdout())


def _columns(found: Any) -> tuple[list[int], list[float], list[int], list[float]]:
    return (
        found.targets.tolist(),
        found.value.tolist(),
        found.otherwise.tolist(),
        found.otherwise_value.tolist(),
    )


def _lines(result: dict[str, Any], record: Record, targets: Sequence[Record]) -> list[tuple[str, str]]:
    lines = [("record", f"{result['id']} (line {record.line}): {' '.join(record.prompt[-1].content.split())[:72]}")]
    where = f"of the {result['selected']:,} selected from {result['of']:,}"
    if result["chosen"]:
        lines.append(("chosen", f"number {result['rank']:,} {where}, gain {result['gain']:.4f}"))
        lines.append(("without it", f"the others would cover {result['lost_without_it']:.4f} less"))
        for entry in result["covers"]:
            other = "nothing else" if entry["otherwise"] is None else f"{entry['otherwise']}"
            lines.append(
                (
                    "covers",
                    f"{entry['id']} with {entry['similarity']:.4f}; otherwise {other}"
                    + (f" with {entry['otherwise_similarity']:.4f}" if entry["otherwise"] else ""),
                )
            )
        if not result["covers"]:
            lines.append(("covers", "no target best: it was taken to fill the selection"))
    else:
        lines.append(("left out", f"not one {where}; it could still add {result['could_still_add']:.4f}"))
        lines.append(("alone", f"it is worth {result['worth_alone']:.4f} over all targets"))
        for entry in result["made_redundant_by"]:
            lines.append(
                ("covered by", f"{entry['id']}: {entry['targets']:,} of its targets, {entry['share']:.0%} of its worth")
            )
    lines.append(("harms", f"{result['harms']['targets']:,} of {len(targets):,} targets"))
    lines += [("", f"{entry['id']} by {entry['utility']:+.4f}") for entry in result["harms"]["most"]]
    return lines
