"""What of a subset foretells the loss after training on it: curves over utilities against the runs that were trained.

    python -m tests.evidence.datamodel                          the tables, from what is kept in samples/
    python -m tests.evidence.datamodel --score 50 --pools p3    scores a pool before its first 50 held-out records first
    python -m tests.evidence.datamodel --keep p3.delift p3      keeps the figures of such a cache in samples/
    python -m tests.evidence.datamodel --oracle p3 30%          ids of the subset that the best curve would choose
    python -m tests.evidence.datamodel --chance gsm8k-p3        of the many random subsets that a pool was trained on

samples/evidence.jsonl holds the loss of every held-out record after each training; samples/evidence-PART.npz, for a
pool, what every one of its records does for held-out ones. Two things are foretold. *Over nothing*: by how much a
record's loss per token falls through the training, given its loss before, the length of its response and the logarithm
of the subset's size; the curve is one figure more. *Over random*: by how much it falls more than the mean over random
subsets of the same size, from how much more the curve offers it than these do. R2 is of runs that were not learnt from:
another size, another subset, another pool.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from delift_cli.errors import InputError
from tests.evidence import pools
from tests.evidence.matrices import Matrix, load_matrix, read_matrix, save_matrix
from tests.evidence.offers import offers
from tests.evidence.runs import Line, precision_of, read_results
from tests.evidence.stats import rank_correlation

Floats = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
PENALTY = 1e-3  # of the ridge regression over standardized figures
UTILITIES = ("euclidean", "pmi")
LEFT_OUT = ("continual", "as-long", "chance")  # stages: of another start, of longer training, of one size alone


class Trained(NamedTuple):
    """Runs of a pool that differ in nothing but the training seed count as one."""

    pool: str
    size: str  # and what it was trained in, where that is not bfloat16
    method: str
    places: list[int]  # of the matrix's rows
    fall: Floats  # [targets], nats per token that the loss fell by through training


def trained(results: Sequence[Line], name: str, matrix: Matrix, *, chance: bool = False) -> list[Trained]:
    """The subsets of a pool that were trained on from the model itself, and what each gave the matrix's targets.

    chance: the many random subsets of the stage of that name, in place of what the others compare.
    """
    at = {record: place for place, record in enumerate(matrix.examples)}
    mine = [line for line in results if line["pool"] == name]
    if chance:
        mine = [line for line in mine if line["stage"] == "chance" and line["method"] in ("nothing", "random")]
    else:
        mine = [line for line in mine if line["stage"] not in LEFT_OUT]
    names = {line["name"] for line in mine}
    before = next(_losses(line, matrix) for line in mine if line["method"] == "nothing")
    alike: dict[tuple[str, frozenset[str]], list[Line]] = defaultdict(list)
    for line in mine:
        if line["method"] != "nothing" and line["measured"].get("same_as") not in names:
            alike[precision_of(line), frozenset(line["chosen"])].append(line)
    return [
        Trained(
            name,
            lines[0]["size"] + ("" if precision == "bfloat16" else f" {precision}"),
            lines[0]["method"],
            sorted(at[record] for record in records),
            before - np.mean([_losses(line, matrix) for line in lines], axis=0),
        )
        for (precision, records), lines in alike.items()
    ]


def _losses(line: Line, matrix: Matrix) -> Floats:
    tested = line["measured"]["heldout"]
    return (np.array(tested["loss"]) / tested["tokens"])[: len(matrix.targets)]


# ---- what is foretold, and from what


class Cells(NamedTuple):
    """One run and target each. `over` is less the mean of random subsets of the size, NaN where there are none."""

    fall: Floats  # [cells]
    over: Floats  # [cells]
    known: Floats  # [cells, 3], what is known without a curve
    offered: dict[str, Floats]  # [cells], of each curve
    offered_over: dict[str, Floats]
    run: npt.NDArray[np.int64]  # [cells], number of the run
    groups: dict[str, npt.NDArray[np.str_]]  # [cells], by what is left out: "size", "subset", "pool"


def cells(found: Sequence[tuple[Matrix, list[Trained]]]) -> Cells:
    """All runs of all pools."""
    columns: dict[str, list[Floats]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    offered: dict[str, list[Floats]] = defaultdict(list)
    offered_over: dict[str, list[Floats]] = defaultdict(list)
    number = 0
    for matrix, runs in found:
        curves = [curves_of(matrix, run.places) for run in runs]
        for run, mine in zip(runs, curves, strict=True):
            chance = [at for at, other in enumerate(runs) if (other.method, other.size) == ("random", run.size)]
            chance = [at for at in chance if runs[at] is not run] if run.method == "random" else chance
            columns["fall"].append(run.fall)
            mean = np.mean([runs[at].fall for at in chance], axis=0) if chance else np.full(len(run.fall), np.nan)
            columns["over"].append(run.fall - mean)
            size = np.full(len(run.fall), np.log(len(run.places)))
            columns["known"].append(np.stack([matrix.base_loss, np.log(matrix.tokens), size], axis=1))
            for name, values in mine.items():
                offered[name].append(values)
                mean = np.mean([curves[at][name] for at in chance], axis=0) if chance else np.nan
                offered_over[name].append(values - mean)
            columns["run"].append(np.full(len(run.fall), number))
            # the same subset in two precisions is one: what is left out must not be learnt from
            subset = f"{run.pool} {run.places}"
            for name, label in (("size", run.size.split()[0]), ("subset", subset), ("pool", run.pool)):
                groups[name] += [label] * len(run.fall)
            number += 1
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Cells(
        joined["fall"],
        joined["over"],
        joined["known"],
        {name: np.concatenate(parts) for name, parts in offered.items()},
        {name: np.concatenate(parts) for name, parts in offered_over.items()},
        joined["run"].astype(np.int64),
        {name: np.array(labels) for name, labels in groups.items()},
    )


def curves_of(matrix: Matrix, places: Sequence[int]) -> dict[str, Floats]:
    """Every curve of a subset under both utilities, "euclidean: best" for one."""
    return {
        f"{utility}: {name}": values
        for utility in UTILITIES
        for whole in (getattr(matrix, utility),)
        for name, values in offers(whole[list(places)], whole, pmi=utility == "pmi").items()
    }


# ---- how well


def foretold(figures: Floats, wanted: Floats, groups: npt.NDArray[np.str_]) -> Floats:
    """Each cell of `wanted` as a ridge regression on `figures` [cells, figures] foretells it from the other groups."""
    said = np.empty(len(wanted))
    for group in np.unique(groups):
        out = groups == group
        mean, spread = figures[~out].mean(axis=0), figures[~out].std(axis=0) + 1e-9
        learnt, asked = (figures[~out] - mean) / spread, (figures[out] - mean) / spread
        middle = wanted[~out].mean()
        squares = learnt.T @ learnt + PENALTY * len(learnt) * np.eye(learnt.shape[1])
        said[out] = middle + asked @ np.linalg.solve(squares, learnt.T @ (wanted[~out] - middle))
    return said


def explained(said: Floats, wanted: Floats) -> float:
    """R2: 1 less the share that squared errors are of squared differences to the mean; below 0: worse than it."""
    return float(1 - ((said - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum())


class Judged(NamedTuple):
    """One curve, or several together."""

    name: str
    nothing: dict[str, float]  # R2 of the fall over nothing, by what is left out
    over: float  # R2 of the fall over random subsets, cell by cell, other subsets
    over_rank: float  # rank correlation of the same
    runs: float  # R2 of the same averaged over each run
    runs_rank: float


def judge(data: Cells, name: str, curves: Sequence[str], left_out: Sequence[str]) -> Judged:
    """How well `curves`, together, foretell; none of them: what is known without."""
    figures = np.stack([*data.known.T, *(data.offered[curve] for curve in curves)], axis=1)
    nothing = {group: explained(foretold(figures, data.fall, data.groups[group]), data.fall) for group in left_out}
    there = ~np.isnan(data.over)
    if not curves:
        return Judged(name, nothing, 0.0, float("nan"), 0.0, float("nan"))
    more = np.stack([data.offered_over[curve] for curve in curves], axis=1)[there]
    wanted, groups, run = data.over[there], data.groups["subset"][there], data.run[there]
    said = foretold(more, wanted, groups)
    averaged = _averaged(run)
    first = np.unique(run, return_index=True)[1]  # of each run's cells: they are of one subset
    of_runs = foretold(np.apply_along_axis(averaged, 0, more), averaged(wanted), groups[first])
    return Judged(
        name,
        nothing,
        explained(said, wanted),
        rank_correlation(said, wanted),
        explained(of_runs, averaged(wanted)),
        rank_correlation(of_runs, averaged(wanted)),
    )


def _averaged(run: npt.NDArray[np.int64]) -> Callable[[Floats], Floats]:
    _, places, counts = np.unique(run, return_inverse=True, return_counts=True)
    return lambda values: np.bincount(places, values) / counts


# ---- tables


def table(data: Cells) -> str:
    """Every curve under both utilities, what is known without any, and some together."""
    left_out = [name for name in ("size", "subset", "pool") if len(np.unique(data.groups[name])) > 1]
    together = {
        "nothing but size, loss before, length": [],
        "best + sum of the harmful (euclidean)": ["euclidean: best", "euclidean: sum of the harmful"],
        "best, second, third (euclidean)": [f"euclidean: {name}" for name in ("best", "second", "third")],
        "best + best (euclidean, pmi)": ["euclidean: best", "pmi: best"],
        "best, sqrt, mean (both)": [f"{u}: {name}" for u in UTILITIES for name in ("best", "sqrt", "mean")],
    }
    judged = [judge(data, name, curves, left_out) for name, curves in together.items()]
    judged += [judge(data, name, [name], left_out) for name in data.offered]
    head = "".join(f" over nothing, another {name} |" for name in left_out)
    lines = [
        f"| curve |{head} over random, a record | rank | over random, a run | rank |",
        "|---|" + "---|" * (len(left_out) + 4),
    ]
    for row in judged:
        figures = [*row.nothing.values(), row.over, row.over_rank, row.runs, row.runs_rank]
        lines.append(f"| {row.name} | " + " | ".join("" if np.isnan(f) else f"{f:.2f}" for f in figures) + " |")
    return "\n".join(lines)


# ---- the oracle


class Oracle(NamedTuple):
    """A subset chosen by what is tested on."""

    curve: str
    places: list[int]
    fall: float  # that is foretold over random subsets of the size, nats per token a record


def greedy_by(matrix: Matrix, curve: str, k: int) -> list[int]:
    """Places of the k records that greedy chooses by a curve ("pmi: best"), each target counting alike."""
    utility, name = curve.split(": ", 1)
    whole = getattr(matrix, utility)
    chosen: list[int] = []
    for _ in range(k):
        left = [place for place in range(len(whole)) if place not in set(chosen)]
        worth = [offers(whole[[*chosen, place]], whole, pmi=utility == "pmi")[name].mean() for place in left]
        chosen.append(left[int(np.argmax(worth))])
    return chosen


def oracle(data: Cells, matrix: Matrix, runs: Sequence[Trained], curve: str, size: str) -> Oracle:
    """Greedy on a curve over the held-out records themselves, and what the regression says that it gives."""
    chosen = greedy_by(matrix, curve, round(float(size.rstrip("%")) / 100 * len(matrix.examples)))
    chance = [curves_of(matrix, run.places)[curve] for run in runs if (run.method, run.size) == ("random", size)]
    more = curves_of(matrix, chosen)[curve] - np.mean(chance, axis=0)
    there = ~np.isnan(data.over)
    x, y = data.offered_over[curve][there], data.over[there]
    slope, level = np.polyfit(x, y, 1)
    return Oracle(curve, chosen, float((slope * more + level).mean()))


def main() -> None:
    args = _arguments()
    try:
        if args.keep:
            save_matrix(read_matrix(Path(args.keep[0])), kept(args.keep[1]))
            return
        if args.score:
            _score(args)
        results = read_results(SAMPLES / "evidence.jsonl")
        asked = [args.chance] if args.chance else args.pools
        there = [name for name in asked if kept(name).exists()]
        if not there:
            raise InputError("no pool's figures are kept in samples/; make them: --score 50")
        matrices = {name: load_matrix(kept(name)) for name in there}
        runs = {name: trained(results, name, matrices[name], chance=bool(args.chance)) for name in there}
        data = cells([(matrices[name], runs[name]) for name in there])
        print(f"{len(np.unique(data.run))} subsets of {', '.join(there)}, {len(data.fall)} cells\n")
        if args.oracle:
            name, size = args.oracle
            best = oracle(data, matrices[name], runs[name], args.curve, size)
            print(f"{best.curve}: {best.fall:+.3f} nats a record over random subsets of {size}")
            print("\n".join(matrices[name].examples[place] for place in best.places))
            return
        print(table(data))
    except InputError as error:
        sys.exit(f"datamodel: {error}")


def kept(name: str) -> Path:
    """Where what a pool's records do for held-out ones is kept."""
    return SAMPLES / f"evidence-{name}.npz"


def _score(args: argparse.Namespace) -> None:
    """Every pool before its first held-out records, kept in samples/; what is scored already is not done again."""
    for pool in pools.write_pools(args.data, args.work):
        if pool.name in args.pools:
            first = pool.folder / f"heldout-{args.score}.jsonl"
            lines = pool.path("heldout").read_text(encoding="utf-8").splitlines(keepends=True)
            first.write_text("".join(lines[: args.score]), encoding="utf-8")
            cache = pool.folder / f"heldout-{args.score}.delift"
            command = [sys.executable, "-m", "delift_cli", "score", str(pool.path("pool")), "--targets", str(first)]
            if subprocess.run([*command, "-o", str(cache), "--weights", args.weights]).returncode != 0:
                raise InputError(f"delift score of {pool.name} failed; its message is above")
            save_matrix(read_matrix(cache), kept(pool.name))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the public data")
    parser.add_argument("--work", type=Path, default=ROOT / "evidence", help="folder of everything that is made")
    parser.add_argument("--pools", nargs="+", default=["p3", "gsm8k-p3", "instruct-code"])
    parser.add_argument("--score", type=int, metavar="N", help="score before the first N held-out records first")
    parser.add_argument("--weights", default="bf16", help="of the model that scores; f32 without AVX512-BF16")
    parser.add_argument("--keep", nargs=2, metavar=("CACHE", "POOL"), help="keep a cache's figures, and stop")
    parser.add_argument("--oracle", nargs=2, metavar=("POOL", "SIZE"), help="print what a curve chooses by the tested")
    parser.add_argument("--chance", metavar="POOL", help="only the many random subsets of a pool")
    parser.add_argument("--curve", default="euclidean: best", help="of the oracle")
    return parser.parse_args()


if __name__ == "__main__":
    main()
