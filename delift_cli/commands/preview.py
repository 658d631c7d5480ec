"""`delift preview`: what is read of records, and what the model will see of them, before anything is scored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.text import Text

from ..amount import counted
from ..data.account import account_lines
from ..data.fields import quoted
from ..data.ids import Names
from ..data.preview import Previewed
from ..data.preview import preview as previewed
from ..data.reading import check_named_fields, read_records
from ..data.record import Record, RecordSet
from ..visible import visible
from . import console, options
from .options import (
    AsTrained,
    ModelChoice,
    PromptField,
    RecordsKey,
    ResponseField,
    Roles,
    SkipInvalid,
    Strict,
    TemplateArguments,
    TemplateChoice,
    Turns,
)
from .score import RECORDS
from .unused import Use, refuse_idle

if TYPE_CHECKING:
    from ..prompt.view import View

SHOWN = 3  # records, unless some are named
OPEN, CLOSE = "⟦", "⟧"  # around what is scored, where there is no colour
SCORED = "bold green"


def preview(
    context: typer.Context,
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help=f"{RECORDS}.")],
    record: Annotated[
        list[str] | None, options.records("--record", metavar="ID", help="Show this one, also as line:7. Repeatable.")
    ] = None,
    first: Annotated[
        int | None, options.records(metavar="N", min=0, help="Show the first records; default 3, with --json all.")
    ] = None,
    prompt_field: PromptField = None,
    response_field: ResponseField = None,
    turns: Turns = "all",
    role: Roles = None,
    records: RecordsKey = None,
    strict: Strict = False,
    skip_invalid: SkipInvalid = False,
    model: ModelChoice = None,
    template: TemplateChoice = None,
    template_arg: TemplateArguments = None,
    as_trained: AsTrained = False,
    as_json: Annotated[
        bool, options.output("--json", help="On stdout a list: id, layout, prompt, scored, ignored of each record.")
    ] = False,
) -> None:
    """Show how records are read, and the very text that the model will see, with the scored part marked.

    Examples:

        delift preview train.jsonl
        delift preview train.jsonl -m model.gguf --record line:7
        delift preview train.jsonl --json > read.json
    """
    refuse_idle(context, {"first": Use(not record, "beside --record")})
    reading = options.reading(prompt_field, response_field, turns, role, records, strict, skip_invalid)
    found = read_records(data, reading)
    check_named_fields([found], reading)
    if first is None:
        first = len(found.records) if as_json else SHOWN
    shown = _shown(found, record, first)
    sight = None
    if model is not None or template is not None or template_arg or as_trained:
        from ..prompt.sight import sight_of

        sight = sight_of(model, template, template_arg or (), as_trained=as_trained, say=console.say)
    if as_json:
        rows = (previewed(each, reading).as_dict() for each in shown)
        if sight is not None:
            rows = ({**row, "scored": sight.scored(each)} for row, each in zip(rows, shown, strict=True))
        _write_list(rows)
        return
    layouts = ", ".join(f"{name} ({count:,})" for name, count in found.layouts.items())
    lines = [("records", f"{len(found.records):,} of {found.source}"), ("layouts", layouts)]
    lines += account_lines([found], ignored=True)
    if sight is not None:
        lines += sight.lines(found.records)
    console.facts(lines, console=console.stdout())
    for each in shown:
        _show(each, previewed(each, reading), None if sight is None else sight.view(each))


def _shown(found: RecordSet, named: list[str] | None, first: int) -> Sequence[Record]:
    if not named:
        return found.records[:first]
    names = Names(found.records)
    return [found.records[names.find(name)] for name in named]


def _write_list(rows: Any) -> None:
    """A JSON array with an element a line."""
    before = b"[\n"
    for row in rows:
        sys.stdout.buffer.write(before + orjson.dumps(row))
        before = b",\n"
    sys.stdout.buffer.write(b"\n]\n" if before != b"[\n" else b"[]\n")
    sys.stdout.buffer.flush()


def _show(record: Record, read: Previewed, view: View | None) -> None:
    """A record: a line on it, and its text as the model sees it, or its turns where there is no model."""
    out = console.stdout()
    facts = [f"line {record.line}", read.layout]
    if view is not None:
        facts.append(f"{counted(view.tokens, 'token')}, {view.scored:,} scored")
    if read.ignored:
        facts.append(f"not read: {', '.join(name or quoted(name) for name in read.ignored)}")
    out.print()
    out.print(visible(f"{record.id}: {'; '.join(facts)}"), style="dim", markup=False)
    pieces = _turns(record) if view is None else view.pieces
    text = Text()
    for scored, part in groupby(pieces, lambda piece: piece[2]):
        before, after = (OPEN, CLOSE) if scored and not out.is_terminal else ("", "")
        text.append(before)
        for piece, is_template, _ in part:
            text.append(visible(piece, lines=True), SCORED if scored else "dim" if is_template else "")
        text.append(after)
    text.rstrip()
    out.print(text)


def _turns(record: Record) -> list[tuple[str, bool, bool]]:
    """The turns without a template: text, whether it is ours, whether it is scored."""
    pieces = [(f"tools: {record.tools}\n", True, False)] if record.tools else []
    for message in record.turns:
        pieces += [(f"{message.role}: ", True, False), (message.text, False, message.scored), ("\n", True, False)]
    return pieces
