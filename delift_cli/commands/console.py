"""What a person sees: in colour only on a terminal, on stderr unless a report is all that was asked for."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

PLAIN_SECONDS = 30.0  # how often a run without a terminal says where it is


def stdout() -> Console:
    """Where a report goes that is the whole point of a verb; what its encoding lacks is written as an escape."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """Where everything goes that is said beside the data."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


class Report(Protocol):
    """Shows how far a run is: `done` of its total, and a word on the speed."""

    def __call__(self, done: int, speed: str, seconds_left: float | None) -> None: ...


@contextmanager
def progress(title: str, total: int, *, quiet: bool) -> Iterator[Report]:
    """A bar on a terminal, a line now and then elsewhere, nothing when quiet."""
    console = stderr()
    if quiet:
        yield lambda done, speed, seconds_left: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}/{task.total:.0f} rows  {task.fields[speed]}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total, done=0, speed="")

            def show(done: int, speed: str, seconds_left: float | None) -> None:
                left = "" if seconds_left is None else f"  {duration(seconds_left)} left"
                bar.update(task, completed=done, done=done, speed=speed + left)

            yield show
    else:
        last = time.monotonic()

        def line(done: int, speed: str, seconds_left: float | None) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                left = "" if seconds_left is None else f", {duration(seconds_left)} left"
                print(f"{title}: {done}/{total} rows, {speed}{left}", file=sys.stderr, flush=True)

        yield line


@contextmanager
def counting(title: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """`progress` for what says no more than how many of `total` are done."""
    started = time.monotonic()
    with progress(title, total, quiet=quiet) as show:

        def report(done: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            show(done, f"{rate:.1f} a second", (total - done) / rate if done else None)

        yield report


def say(text: str) -> None:
    """One line on what is going on."""
    stderr().print(text, style="dim", markup=False)


def plot(lines: list[str], caption: str) -> None:
    """A small plot with its caption."""
    console = stderr()
    for line in lines:
        console.print(line, markup=False)
    console.print(caption, style="dim", markup=False)


def facts(rows: list[tuple[str, str]], *, console: Console | None = None) -> None:
    """A summary as aligned lines of name and value; on stderr unless it is what the user asked for."""
    console = console or stderr()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"[dim]{name:>{width}}[/dim]  ", end="")
        console.print(value, markup=False)


def table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Aligned columns under their names, on stderr; the first column is text, the others are numbers."""
    console = stderr()
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for place, row in enumerate((names, *rows)):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        console.print("  ".join(cells), markup=False, style="dim" if place == 0 else None)


def duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 5 h 10 min, 2 d 3 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    for size, name, smaller, smaller_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {smaller_name}"
    return f"{whole} s"


def counted(number: int, thing: str) -> str:
    """1 round, 2 rounds."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
