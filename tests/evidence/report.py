"""Results to tables: `samples/EVIDENCE.md`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from delift_cli.selection.blocks import default_objective
from delift_cli.selection.methods import POOL_ALONE
from tests.evidence import peers, runs, variants
from tests.evidence.plot import Compared, Way, draw
from tests.evidence.runs import Line
from tests.evidence.stats import Interval, best_of, difference, per_token, rank_correlation
from tests.evidence.variants import EXTREMES, MANY

OPENING, CLOSING = "<!-- written by hand -->", "<!-- end of what is written by hand -->"
SPLITS = 200  # of the held-out records into halves
SPLITTABLE = 20  # runs, of which the best says something
ORDER = list(dict.fromkeys(v.name for _, compared in variants.STAGES.values() for v in compared))


class Tested(NamedTuple):
    """Which held-out records count: of a part, those of a task or all, from one to another."""

    part: str = "heldout"
    task: str | None = None
    records: slice = slice(None)


TESTS: dict[str, dict[str, Tested]] = {
    "instruction": {"held-out records": Tested()},
    "informed": {
        "held-out records that the choice saw": Tested(records=slice(peers.SEEN)),
        "held-out records that it did not see": Tested(records=slice(peers.SEEN, None)),
    },
    "task-specific": {"held-out records of the target's task": Tested(task="gsm8k")},
    "continual": {
        "held-out records of the new data": Tested(),
        "held-out records of the old data": Tested("heldout-existing"),
    },
    "spoiled": {"held-out records": Tested()},
    "uneven": {"held-out records": Tested()},
    "large": {"held-out records": Tested()},
    "large-spoiled": {"held-out records": Tested()},
    "as-long": {"held-out records": Tested()},
    "chance": {"held-out records": Tested()},
    "fresh": {"other held-out records": Tested("heldout-fresh")},
}
BY_DEFAULT = ("chance", "large", "large-spoiled", "fresh")  # whose pools are lines of the default's table
TITLES = {
    "informed": "instruction tuning, informed choices",
    "spoiled": "instruction tuning, spoiled answers",
    "uneven": "instruction tuning, uneven pools",
    "large": "instruction tuning, a larger pool",
    "large-spoiled": "instruction tuning, a larger pool with spoiled answers",
    "as-long": "instruction tuning, all trained for as many steps as everything is",
    "chance": "instruction tuning, many random subsets",
    "fresh": "instruction tuning, tested again",
}
INTRODUCTION = """\
Does it pay to train on what `delift` chooses? SmolLM2-135M-Instruct is fine-tuned on subsets of pools of 34 to 1,000
records, most of 200, and tested on other records. `python -m tests.evidence` makes the pools out of public data,
scores them, chooses with each method, trains (LoRA of rank 16 on all linear layers, 3 epochs, batches of 8, learning
rate 3e-4) and writes the tables. *Loss* is the mean over response tokens, in nats, less is better: long responses
count for more. *Per record* it is the mean over records of each one's own mean, in which every record counts alike, as
it does in the utilities. *Exact* is the share of records whose whole response greedy decoding gives word for word;
*gap closed* is 0 % at the mean of random subsets and 100 % at training on the whole pool. A difference to random
subsets has a 95 % bootstrap interval over held-out records and over runs (a run is one training seed and, for random
subsets, one draw). An interval without 0 is bold. Intervals of methods with few runs say little of how training seeds
vary.
"""


class Measure(NamedTuple):
    """A loss, its difference to random subsets, and how much of the gap to training on everything is closed."""

    loss: float
    difference: Interval | None
    closed: float | None


class Row(NamedTuple):
    """One method in a table: measured by response tokens, and with every record counting alike."""

    method: str
    runs: int
    exact: float
    by_token: Measure
    by_record: Measure


class Place(NamedTuple):
    """Which table: of a stage, a pool, a share of the pool, one of the stage's TESTS, and what was trained in."""

    stage: str
    pool: str
    size: str
    test: str
    precision: str = "bfloat16"

    @property
    def subset(self) -> str:
        return f"{self.pool} {self.size}" + (f", {self.precision}" if self.precision != "bfloat16" else "")


class Cell(NamedTuple):
    """The runs of one method: float64 [runs, records] losses and exact answers, float64 [records] tokens."""

    losses: npt.NDArray[np.float64]
    exact: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]

    def by_record(self) -> Cell:
        """The same with each record's mean in place of its sum: as if all responses were one token long."""
        return Cell(self.losses / self.tokens, self.exact, np.ones(len(self.tokens)))

    def of_runs(self, records: npt.NDArray[np.int64] | slice = slice(None)) -> npt.NDArray[np.float64]:
        """float64 [runs], each one's loss per token, on some of the records."""
        return self.losses[:, records].sum(axis=1) / self.tokens[records].sum()


def write_report(results: Sequence[Line], evaluated: Sequence[Line], destination: Path, plot: Path | None) -> None:
    """The report as Markdown with its plot; what was written by hand in an earlier one stays, and so do suspects."""
    before = destination.read_text(encoding="utf-8") if destination.exists() else ""
    kept = re.search(f"{re.escape(OPENING)}\n(.*?){re.escape(CLOSING)}", before, re.DOTALL)
    found = tables(results)
    parts = [
        "# What fine-tuning says",
        INTRODUCTION + _runs(results),
        *_default(results, found, plot),
        f"{OPENING}\n{kept.group(1) if kept else ''}{CLOSING}",
        _overview(found),
    ]
    if chance := _chance(results, found):
        parts.append(chance)
    if drawn := _drawn(results, found):
        parts.append(drawn)
    for place, rows in found.items():
        title = TITLES.get(place.stage, f"{place.stage} tuning")
        parts.append(f"## {title}, {place.subset}: {place.test}\n\n{_table(rows)}")
    if evaluated:
        parts.append(_agreement(results, evaluated))
    if suspects := re.search(r"^## Suspects\n.*", before, re.DOTALL | re.MULTILINE):
        parts.append(suspects.group())  # of another benchmark: tests.bench.suspects
    destination.write_text("\n\n".join(part.strip("\n") for part in parts) + "\n", encoding="utf-8")


def tables(results: Sequence[Line]) -> dict[Place, list[Row]]:
    """All tables, each with `nothing`, the methods in the order of the plan, and `all`."""
    places = [
        Place(stage, pool, size, test, precision)
        for stage in TESTS
        for pool in _distinct(results, "pool", stage=stage)
        for size in _sizes(results, stage, pool)
        for precision in _precisions(results, stage, pool, size)
        for test in TESTS[stage]
    ]
    return {place: _rows(_cells(results, place)) for place in places}


# ---- what the tables are made of


def _cells(results: Sequence[Line], place: Place) -> dict[str, Cell]:
    """The runs of each method, among them `nothing` and `all`, on the records that count."""
    part, task, records = TESTS[place.stage][place.test]
    of_method: dict[str, list[Line]] = defaultdict(list)
    for line in results:
        there = (line["stage"], line["pool"], runs.precision_of(line)) == (*place[:2], place.precision)
        if there and line["size"] in (place.size, *EXTREMES.values()):
            of_method[line["method"]].append(line["measured"][part])
    counts = np.zeros(len(next(iter(of_method.values()))[0]["loss"]), bool)
    counts[records] = True
    if task is not None:
        counts &= np.array(of_method["nothing"][0]["tasks"]) == task
    cells = {}
    for method, tested in of_method.items():
        losses, exact = (np.array([t[name] for t in tested], np.float64)[:, counts] for name in ("loss", "exact"))
        cells[method] = Cell(losses, exact, np.array(tested[0]["tokens"], np.float64)[counts])
    return cells


def _rows(cells: dict[str, Cell]) -> list[Row]:
    by_record = {name: cell.by_record() for name, cell in cells.items()}
    ordered = (method for method in ("nothing", *ORDER, "all") if method in cells)
    return [
        Row(
            method,
            len(cells[method].losses),
            float(cells[method].exact.mean()),
            _measure(cells, method),
            _measure(by_record, method),
        )
        for method in ordered
    ]


def _measure(cells: dict[str, Cell], method: str) -> Measure:
    mine, chance, everything = (cells.get(name) for name in (method, "random", "all"))
    assert mine is not None
    loss = per_token(mine.losses, mine.tokens)
    if chance is None or method == "random":
        return Measure(loss, None, None)
    against = difference(mine.losses, chance.losses, mine.tokens)
    if everything is None or method in EXTREMES:
        return Measure(loss, against, None)
    gap = per_token(chance.losses, chance.tokens) - per_token(everything.losses, everything.tokens)
    return Measure(loss, against, -against.value / gap if gap > 0 else None)


def _distinct(results: Sequence[Line], field: str, **where: str) -> list[str]:
    return list(dict.fromkeys(line[field] for line in results if all(line[k] == v for k, v in where.items())))


def _sizes(results: Sequence[Line], stage: str, pool: str) -> list[str]:
    """Shares of the pool that something was chosen of."""
    return [size for size in _distinct(results, "size", stage=stage, pool=pool) if size not in EXTREMES.values()]


def _precisions(results: Sequence[Line], stage: str, pool: str, size: str) -> list[str]:
    """What subsets of a size were trained in."""
    same = {"stage": stage, "pool": pool, "size": size}
    return list(
        dict.fromkeys(runs.precision_of(line) for line in results if all(line[k] == v for k, v in same.items()))
    )


# ---- Markdown


def _runs(results: Sequence[Line]) -> str:
    trained = [line for line in results if "same_as" not in line["measured"]]
    hours = sum(line["measured"]["seconds"] for line in trained) / 3600
    versions = dict(results[-1]["measured"].get("versions", {})) if results else {}
    if versions:  # before it was noted it was always this one
        found = {runs.precision_of(line) for line in trained}
        versions["precision"] = " or ".join(sorted(found))
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{len(trained)} runs, {hours:.1f} hours of training" + (f"; {said}." if said else ".")


def _default(results: Sequence[Line], found: dict[Place, list[Row]], plot: Path | None) -> Iterator[str]:
    """What is chosen where nothing is said, against random subsets, a line a pool."""
    lines, panels = [], []
    for place in (place for stage in BY_DEFAULT for place in found if place.stage == stage):
        name = f"{place.subset}, other records" if place.stage == "fresh" else place.subset
        of = {row.method: row for row in found[place]}
        row = next((of[name] for name in variants.DEFAULT if name in of), None)
        if row is not None:
            shown = [cell for measure in (row.by_record, row.by_token) for cell in _shown(measure)[1:]]
            shown += _ahead(_cells(results, place), row.method)
            lines.append(f"| {name} | {row.runs} | {of['random'].runs} | {' | '.join(shown)} |")
            panels += _on_the_way(name, row.method, _cells(results, place))
    if lines:
        head = (
            "| | runs | random draws | by record | gap closed | by token | gap closed | runs ahead | random ahead |",
            "|---|---|---|---|---|---|---|---|---|",
        )
        yield "## The default, against random subsets\n\n" + "\n".join((*head, *lines))
        yield (
            "*Runs ahead*: how many runs are better than random subsets on average, by record / by token; *random\n"
            "ahead*: how many random subsets are better than these runs on average."
        )
        if plot is not None:
            draw(panels, plot)
            yield (
                f"![The default and each random subset, on the way to what everything gives]({plot.name})\n\n"
                "Each random subset a dot, the default with its interval: 0 % is the mean of the random ones, 100 %\n"
                "training on the whole pool. Green: the interval is above 0."
            )


def _ahead(cells: dict[str, Cell], method: str) -> list[str]:
    """How many runs of a method are ahead of the mean of random subsets, and how many of these of its mean."""
    ways = [{name: cells[name].by_record().of_runs() for name in (method, "random")}]
    ways.append({name: cells[name].of_runs() for name in (method, "random")})
    both = ((method, "random"), ("random", method))
    return [" / ".join(str(int((way[one] < way[other].mean()).sum())) for way in ways) for one, other in both]


def _on_the_way(name: str, method: str, cells: dict[str, Cell]) -> Iterator[Compared]:
    """The random subsets and a method, as shares of the gap to training on everything, where that was trained on."""
    if "all" in cells:
        ways = []
        for of in (cells, {name: cell.by_record() for name, cell in cells.items()}):
            drawn = of["random"].of_runs()
            gap = drawn.mean() - of["all"].of_runs().mean()
            against = difference(of[method].losses, of["random"].losses, of[method].tokens)
            ways.append(Way((drawn.mean() - drawn) / gap, Interval(*(-value / gap for value in against))))
        yield Compared(name, by_record=ways[1], by_token=ways[0])


def _overview(found: dict[Place, list[Row]]) -> str:
    """All methods by all pools and sizes of the first stage: differences to random subsets, by record / by token."""
    of_column: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for place, rows in sorted(found.items(), key=lambda item: item[0].precision):  # bfloat16, where there are both
        mark = "" if place.precision == "bfloat16" else "°"
        for row in rows if place.stage == "instruction" else ():
            shown = [_interval(measure.difference, short=True) for measure in (row.by_record, row.by_token)]
            if all(shown):
                of_column[place.pool, place.size].setdefault(row.method, " / ".join(shown) + mark)
    columns = {place[1:3]: of_column[place[1:3]] for place in found if place[1:3] in of_column}
    lines = [
        "## All ways to choose, at a glance",
        "",
        "Loss less that of random subsets, by record / by token, of the first stage; ° in float32.",
        "",
        "| " + " | ".join(("", *(" ".join(column) for column in columns))) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for method in ("nothing", *ORDER, "all"):
        if any(method in shown for shown in columns.values()):
            lines.append("| " + " | ".join((method, *(shown.get(method, "") for shown in columns.values()))) + " |")
    return "\n".join(lines)


def _chance(results: Sequence[Line], found: dict[Place, list[Row]]) -> str:
    """What the best of many random subsets would be, by how far those that were trained on differ."""
    head = [
        "## What chance would reach",
        "",
        f"The best of {MANY} random subsets, if their losses are distributed normally, with the spread of those that",
        "were trained on, less their mean; beside it the default: `topm-both` from a fifth of the pool on, `fl-both`",
        "below.",
        "",
        "| | draws "
        + "".join(f"| spread by {way} | best of {MANY} by {way} | default " for way in ("record", "token"))
        + "|",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = []
    for place, rows in found.items():
        drawn = _cells(results, place).get("random") if place.stage in ("instruction", "large") else None
        objective = default_objective(True, False, False, share=float(place.size.rstrip("%")) / 100)
        name = f"{objective}-{POOL_ALONE.count}"
        default = next((row for row in rows if row.method == name), None)
        if drawn is None or len(drawn.losses) < 3 or default is None:
            continue
        cells = []
        for cell, measure in ((drawn.by_record(), default.by_record), (drawn, default.by_token)):
            spread = float(np.std(cell.of_runs(), ddof=1))
            cells += [f"{spread:.3f}", f"{-best_of(MANY) * spread:+.3f}", _interval(measure.difference, short=True)]
        lines.append(f"| {place.subset} | {len(drawn.losses)} | {' | '.join(cells)} |")
    return "\n".join([*head, *lines]) if lines else ""


def _drawn(results: Sequence[Line], found: dict[Place, list[Row]]) -> str:
    """What the best of many random subsets is that were trained on, and what knowing which it is would be worth."""
    head = [
        "## What chance did reach",
        "",
        "The best of the random subsets that were trained on, less their mean, and what it closes of the gap; and the",
        f"one that is best on half of the held-out records, on the other half (mean of {SPLITS} ways to halve them).",
        "",
        "| | draws | spread | best | gap closed | best by half, on the other half | gap closed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines = []
    for place in (place for place in found if place.stage == "chance"):
        cells = _cells(results, place)
        drawn, everything = (cells.get(name) for name in ("random", "all"))
        if drawn is None or everything is None or len(drawn.losses) < SPLITTABLE:
            continue
        ways = ("record", drawn.by_record(), everything.by_record()), ("token", drawn, everything)
        for way, mine, whole in ways:
            means = mine.of_runs()
            gap = means.mean() - per_token(whole.losses, whole.tokens)
            shown = (
                f"{value:+.3f} | {-value / gap:.0%}" for value in (means.min() - means.mean(), _best_by_half(mine))
            )
            lines.append(f"| {place.subset}, by {way} | {len(means)} | {means.std(ddof=1):.3f} | {' | '.join(shown)} |")
    return "\n".join([*head, *lines]) if lines else ""


def _best_by_half(cell: Cell) -> float:
    """Loss of the run that is best on half of the records, on the other half, less the mean of all runs there."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(len(cell.tokens))
        seen, unseen = order[: len(order) // 2], order[len(order) // 2 :]
        there = cell.of_runs(unseen)
        found.append(there[cell.of_runs(seen).argmin()] - there.mean())
    return float(np.mean(found))


def _table(rows: Sequence[Row]) -> str:
    measure = "less random (95 %) | gap closed"
    lines = [f"| trained on | runs | loss | {measure} | per record | {measure} | exact |", "|" + "---|" * 9]
    for row in rows:
        cells = [row.method, str(row.runs), *_shown(row.by_token), *_shown(row.by_record), f"{row.exact:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(measure: Measure) -> tuple[str, str, str]:
    closed = "" if measure.closed is None else f"{measure.closed:.0%}"
    return f"{measure.loss:.3f}", _interval(measure.difference), closed


def _interval(interval: Interval | None, *, short: bool = False) -> str:
    if interval is None:
        return ""
    value, low, high = interval
    shown = f"{value:+.3f}" if short else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{shown}**" if low > 0 or high < 0 else shown


def _agreement(results: Sequence[Line], evaluated: Sequence[Line]) -> str:
    """How well `delift evaluate` foretells the losses."""
    lines = ["| pool | size | subsets | by token | by record |", "|---|---|---|---|---|"]
    for pool in _distinct(evaluated, "pool"):
        for size in _distinct(evaluated, "size", pool=pool):
            foretold = list(_foretold(results, evaluated, pool, size))
            if len(foretold) > 2:
                told, *losses = zip(*foretold, strict=True)
                shown = " | ".join(f"{rank_correlation(told, of_measure):+.2f}" for of_measure in losses)
                lines.append(f"| {pool} | {size} | {len(foretold)} | {shown} |")
    text = "Rank correlation of the loss in context, as `delift evaluate` gives it, and the mean loss after training."
    return "\n".join(["## `delift evaluate` and fine-tuning", "", text, "", *lines])


def _foretold(
    results: Sequence[Line], evaluated: Sequence[Line], pool: str, size: str
) -> Iterator[tuple[float, float, float]]:
    """Of each subset, the loss in context by `delift evaluate`, and the losses after training on it."""
    for line in evaluated:
        if (line["pool"], line["size"]) != (pool, size):
            continue
        same = ("pool", "size", "method", "selection_seed")
        alike = [r for r in results if r["stage"] == "instruction" and all(r[name] == line[name] for name in same)]
        alike = [r for r in alike if runs.precision_of(r) == "bfloat16"]
        if alike:
            losses, tokens = (
                np.array([run["measured"]["heldout"][name] for run in alike]) for name in ("loss", "tokens")
            )
            yield line["loss"], float(losses.sum() / tokens.sum()), float((losses / tokens).mean())
