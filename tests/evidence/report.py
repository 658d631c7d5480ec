"""Results to tables and a plot: `samples/EVIDENCE.md` and `samples/evidence.svg`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tests.evidence import variants
from tests.evidence.runs import Line
from tests.evidence.stats import Interval, difference, per_token, rank_correlation

OPENING, CLOSING = "<!-- written by hand -->", "<!-- end of what is written by hand -->"
ORDER = [v.name for _, compared in variants.STAGES.values() for v in compared]
# Which held-out records a stage is judged by: a part, and the only task that counts or None.
TESTS: dict[str, dict[str, tuple[str, str | None]]] = {
    "instruction": {"held-out records": ("heldout", None)},
    "task-specific": {"held-out records of the target's task": ("heldout", "gsm8k")},
    "continual": {
        "held-out records of the new data": ("heldout", None),
        "held-out records of the old data": ("heldout-existing", None),
    },
}
INTRODUCTION = """\
Does it pay to train on what `delift` chooses? SmolLM2-135M-Instruct is fine-tuned on subsets of pools of 200 records
and tested on other records. `python -m tests.evidence` makes the pools out of public data, scores them, chooses with
each method, trains (LoRA of rank 16 on all linear layers, 3 epochs, batches of 8, learning rate 3e-4) and writes the
tables. *Loss* is the mean over response tokens, in nats, less is better: long responses count for more. *Per record*
it is the mean over records of each one's own mean, in which every record counts alike, as it does in the utilities.
*Exact* is the share of records whose whole response greedy decoding gives word for word; *gap closed* is 0 % at the
mean of random subsets and 100 % at training on the whole pool. A difference to random subsets has a 95 % bootstrap
interval over held-out records and over runs (a run is one training seed and, for random subsets, one draw). An interval
without 0 is bold. Intervals of methods with few runs say little of how training seeds vary.
"""


class Row(NamedTuple):
    """One method in a table."""

    method: str
    runs: int
    loss: float
    exact: float
    difference: Interval | None
    closed: float | None
    record_loss: float
    record_difference: Interval | None
    record_closed: float | None


class Cell(NamedTuple):
    """The runs of one method: float64 [runs, records] losses and exact answers, float64 [records] tokens."""

    losses: npt.NDArray[np.float64]
    exact: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]


def write_report(results: Sequence[Line], evaluated: Sequence[Line], destination: Path, plot: Path | None) -> None:
    """The report as Markdown, with what was written by hand in an earlier one, and its plot beside it."""
    before = destination.read_text(encoding="utf-8") if destination.exists() else ""
    kept = re.search(f"{re.escape(OPENING)}\n(.*?){re.escape(CLOSING)}", before, re.DOTALL)
    text = render(results, evaluated, by_hand=kept.group(1) if kept else "", plot=plot.name if plot else None)
    destination.write_text(text, encoding="utf-8")
    if plot is not None:
        draw(results, plot)


def render(results: Sequence[Line], evaluated: Sequence[Line], *, by_hand: str = "", plot: str | None = None) -> str:
    """The report as Markdown."""
    parts = ["# What fine-tuning says", INTRODUCTION + _runs(results), f"{OPENING}\n{by_hand}{CLOSING}"]
    if plot:
        parts.append(f"![Differences to random subsets, with intervals]({plot})")
    parts.append(_overview(results))
    for stage in TESTS:
        for pool in _distinct(results, "pool", stage=stage):
            for size in _sizes(results, stage, pool):
                for what in TESTS[stage]:
                    found = rows(results, stage, pool, size, what)
                    if found:
                        parts.append(f"## {stage} tuning, {pool}, {size}: {what}\n\n{_table(found)}")
    if evaluated:
        parts.append(_agreement(results, evaluated))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def rows(results: Sequence[Line], stage: str, pool: str, size: str, what: str) -> list[Row]:
    """A table: `nothing`, the methods in the order of the plan, `all`. `what` is one of TESTS[stage]."""
    cells = _cells(results, stage, pool, size, *TESTS[stage][what])
    chance, everything = cells.get("random"), cells.get("all")
    found = []
    for method in ("nothing", *dict.fromkeys(ORDER), "all"):
        if method not in cells:
            continue
        losses, exact, tokens = cells[method]
        compared = method != "random"
        figures: list[tuple[float, Interval | None, float | None]] = []
        for scale in (np.ones(len(tokens)), tokens):  # losses of whole responses, then each record's mean
            weights = tokens / scale
            mine = losses / scale
            against = difference(mine, chance.losses / scale, weights) if chance is not None and compared else None
            closed = None
            if against is not None and everything is not None and method not in ("all", "nothing"):
                assert chance is not None
                gap = per_token(chance.losses / scale, weights) - per_token(everything.losses / scale, weights)
                closed = -against.value / gap if gap > 0 else None
            figures.append((per_token(mine, weights), against, closed))
        (loss, against, closed), (record_loss, record_against, record_closed) = figures
        found.append(
            Row(
                method,
                len(losses),
                loss,
                float(exact.mean()),
                against,
                closed,
                record_loss,
                record_against,
                record_closed,
            )
        )
    return found


def draw(results: Sequence[Line], path: Path) -> None:
    """A dot and an interval for each method, a panel for each pool and size of the first stage."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "delift"
    from matplotlib import pyplot

    panels = []
    for pool in _distinct(results, "pool", stage="instruction"):
        for size in _sizes(results, "instruction", pool):
            found = rows(results, "instruction", pool, size, "held-out records")
            panels.append((f"{pool}, {size}", [r for r in found if r.difference and r.method not in variants.EXTREMES]))
    panels = [(title, found) for title, found in panels if found]
    if not panels:
        return
    names = [name for name in dict.fromkeys(ORDER) if any(r.method == name for _, found in panels for r in found)]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(2.2 * len(panels) + 1, 0.26 * len(names) + 1.2), sharey=True, squeeze=False
    )
    for axis, (title, found) in zip(axes[0], panels, strict=True):
        for row in found:
            assert row.difference is not None
            value, low, high = row.difference
            axis.plot((low, high), (row.method, row.method), color="#888", linewidth=1.5, zorder=1)
            axis.plot(value, row.method, "o", color="#1a7f5a" if high < 0 else "#b3362b" if low > 0 else "#333")
        axis.axvline(0, color="#bbb", linewidth=1, zorder=0)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("held-out loss per response token less that of random subsets (left of 0: better)", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


# ---- what the tables are made of


def _cells(results: Sequence[Line], stage: str, pool: str, size: str, part: str, task: str | None) -> dict[str, Cell]:
    """The runs of each method, among them `nothing` and `all`, on the records that count."""
    of_method: dict[str, list[Line]] = defaultdict(list)
    for line in results:
        if (line["stage"], line["pool"]) == (stage, pool) and line["size"] in (size, "0%", "100%"):
            of_method[line["method"]].append(line["measured"][part])
    cells = {}
    for method, tested in of_method.items():
        counts = np.array([task is None or name == task for name in tested[0]["tasks"]])
        losses, exact = (np.array([t[name] for t in tested], np.float64)[:, counts] for name in ("loss", "exact"))
        cells[method] = Cell(losses, exact, np.array(tested[0]["tokens"], np.float64)[counts])
    return cells


def _distinct(results: Sequence[Line], field: str, **where: str) -> list[str]:
    return list(dict.fromkeys(line[field] for line in results if all(line[k] == v for k, v in where.items())))


def _sizes(results: Sequence[Line], stage: str, pool: str) -> list[str]:
    """Shares of the pool that something was chosen of."""
    return [size for size in _distinct(results, "size", stage=stage, pool=pool) if size not in ("0%", "100%")]


# ---- Markdown


def _runs(results: Sequence[Line]) -> str:
    trained = [line for line in results if "same_as" not in line["measured"]]
    hours = sum(line["measured"]["seconds"] for line in trained) / 3600
    versions = results[-1]["measured"].get("versions", {}) if results else {}
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{len(trained)} runs, {hours:.1f} hours of training" + (f"; {said}." if said else ".")


def _overview(results: Sequence[Line]) -> str:
    """All methods by all pools and sizes of the first stage: differences to random subsets, in both measures."""
    columns = [
        (pool, size)
        for pool in _distinct(results, "pool", stage="instruction")
        for size in _sizes(results, "instruction", pool)
    ]
    found = {
        column: {row.method: row for row in rows(results, "instruction", *column, "held-out records")}
        for column in columns
    }
    head = " | ".join(f"{pool} {size} | {pool} {size}, per record" for pool, size in columns)
    lines = [f"| less random subsets | {head} |", "|---|" + "---|" * 2 * len(columns)]
    for method in dict.fromkeys(ORDER):
        of_column = [found[column].get(method) for column in columns]
        if any(row and row.difference for row in of_column):
            shown = (
                _interval(interval, short=True)
                for row in of_column
                for interval in ((row.difference, row.record_difference) if row else (None, None))
            )
            lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return "\n".join(["## In short", "", *lines])


def _table(found: Sequence[Row]) -> str:
    lines = [
        "| trained on | runs | loss | less random (95 %) | gap closed | per record | less random (95 %) | gap closed | "
        "exact |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        closed, record_closed = ("" if c is None else f"{c:.0%}" for c in (row.closed, row.record_closed))
        lines.append(
            f"| {row.method} | {row.runs} | {row.loss:.3f} | {_interval(row.difference)} | {closed} | "
            f"{row.record_loss:.3f} | {_interval(row.record_difference)} | {record_closed} | {row.exact:.1%} |"
        )
    return "\n".join(lines)


def _interval(interval: Interval | None, *, short: bool = False) -> str:
    if interval is None:
        return ""
    value, low, high = interval
    shown = f"{value:+.3f}" if short else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{shown}**" if low > 0 or high < 0 else shown


def _agreement(results: Sequence[Line], evaluated: Sequence[Line]) -> str:
    """How well `delift evaluate` foretells the losses."""
    lines = [
        "| pool | size | subsets | rank correlation of loss in context and loss after training |",
        "|---|---|---|---|",
    ]
    for pool in _distinct(evaluated, "pool"):
        for size in _distinct(evaluated, "size", pool=pool):
            pairs = list(_foretold(results, evaluated, pool, size))
            if len(pairs) > 2:
                foretold, losses = zip(*pairs, strict=True)
                lines.append(f"| {pool} | {size} | {len(pairs)} | {rank_correlation(foretold, losses):+.2f} |")
    return "\n".join(["## `delift evaluate` and fine-tuning", "", *lines])


def _foretold(
    results: Sequence[Line], evaluated: Sequence[Line], pool: str, size: str
) -> Iterator[tuple[float, float]]:
    """Of each subset, the loss in context by `delift evaluate` and the mean loss after training on it."""
    for line in evaluated:
        if (line["pool"], line["size"]) != (pool, size):
            continue
        same = ("pool", "size", "method", "selection_seed")
        runs = [r for r in results if r["stage"] == "instruction" and all(r[name] == line[name] for name in same)]
        if runs:
            tested = [run["measured"]["heldout"] for run in runs]
            yield line["loss"], float(np.mean([sum(t["loss"]) / sum(t["tokens"]) for t in tested]))
