"""What a person sees: in colour only on a terminal, on stderr unless a report is all that was asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TextIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ..amount import duration
from ..display import Lines
from ..progress import Progress as Callback
from ..progress import Say, Step, silent
from ..visible import visible

COMPILING = "compiling for this machine: up to half a minute, once"
PLAIN_SECONDS = 30.0  # how often a run without a terminal says where it is


class Result(Protocol):
    """What a verb found: as data and as lines for people."""

    def as_dict(self) -> dict[str, Any]: ...
    def lines(self) -> Lines: ...


def stdout() -> Console:
    """Where a report goes that is the whole point of a verb."""
    return Console(highlight=False, soft_wrap=True, emoji=False)


def stderr() -> Console:
    """Where everything goes that is said beside the data."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


@contextmanager
def bars(*, quiet: bool) -> Iterator[Callback]:
    """Shows the steps of a run: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""
    console = stderr()
    if quiet:
        yield silent
    elif console.is_terminal:
        from ..compiled import telling  # Numba takes a while to load, and only those that have bars need it

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[speed]}", markup=False),
        )
        with (
            Progress(*columns, console=console, transient=True) as drawn,
            telling(partial(console.print, COMPILING, style="dim", markup=False)),
        ):
            tasks: dict[str, TaskID] = {}

            def show(step: Step) -> None:
                if step.stage not in tasks:
                    for earlier in tasks.values():
                        drawn.remove_task(earlier)
                    tasks.clear()
                    tasks[step.stage] = drawn.add_task(visible(step.stage), total=step.total, speed="")
                drawn.update(tasks[step.stage], completed=step.done, speed=f"{step.speed}{_left(step, '  ')}")

            yield show
    else:
        last = time.monotonic()

        def line(step: Step) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                text = f"{visible(step.stage)}: {step.done}/{step.total}, {step.speed}{_left(step, ', ')}"
                print(text, file=sys.stderr, flush=True)

        yield line


def _left(step: Step, before: str) -> str:
    return "" if step.seconds_left is None else f"{before}{duration(step.seconds_left)} left"


def say(text: str) -> None:
    """One line on what is going on."""
    stderr().print(visible(text), style="dim", markup=False)


def sayer(quiet: bool) -> Say:
    """`say`, or nothing when quiet."""
    return silent if quiet else say


class Notes:
    """Takes what there is to say on the way, says it, and keeps it for a result as JSON."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        self._say(text)


def write_json(found: dict[str, Any], stream: TextIO | None = None) -> None:
    """A result as JSON, on stdout unless data have it."""
    stream = stream or sys.stdout
    try:
        text = orjson.dumps(found, option=orjson.OPT_INDENT_2)
    except TypeError:  # a file's name may be any bytes; what is no text of them is written as half a character
        text = json.dumps(found, indent=2).encode()
    stream.buffer.write(text + b"\n")
    stream.buffer.flush()


def show(
    result: Result,
    *,
    as_json: bool,
    quiet: bool = False,
    also: Lines | None = None,
    data: TextIO | None = None,
    asked_for: bool = False,
    notes: Notes | None = None,
) -> None:
    """A result as JSON or as lines for people.

    Args:
        also: said after it; in JSON, more fields. data: where JSON goes; default stdout.
        asked_for: the lines are all that the verb is for, so that they go to stdout.
        notes: what was said on the way, which JSON has too.
    """
    if as_json:
        noted = {} if notes is None else {"notes": notes.lines}
        write_json({**result.as_dict(), **dict(also or []), **noted}, data)
    elif not quiet:
        facts([*result.lines(), *(also or [])], console=stdout() if asked_for else None)


def plot(lines: list[str], caption: str) -> None:
    """A small plot with its caption."""
    console = stderr()
    for line in lines:
        console.print(line, markup=False)
    console.print(visible(caption), style="dim", markup=False)


def facts(rows: Lines, *, console: Console | None = None) -> None:
    """A summary as aligned lines of name and value; on stderr unless it is what the user asked for."""
    console = console or stderr()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"{visible(name):>{width}}  ", end="", style="dim", markup=False)
        console.print(visible(value), markup=False)


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Aligned columns under their names, which come first, on stderr; the first column is text, the others numbers."""
    console = stderr()
    rows = [tuple(map(visible, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for place, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        console.print("  ".join(cells), markup=False, style="dim" if place == 0 else None)
