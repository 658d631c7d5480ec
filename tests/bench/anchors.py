"""Anchors against a budget of as many pairs: what is the subset that each gives worth on all targets?

    python -m tests.bench.anchors                        # pool200's reference, 50 and 25 anchors, in four views
    python -m tests.bench.anchors --data matrix.npz --anchors 150
    python -m tests.bench.anchors --generated 200 600 2000 50000 --share 0.25

Value: facility location over all targets (clip kernel, self-pairs left out) of the subset that is chosen, as a share of
what greedy on the full matrix has; behind the stroke on the scale of `tests.bench.budget` (0 = random subsets, 1 =
greedy on the full matrix). Above 5,000 records nobody has the full matrix: there the share is of what all records
together give to some sampled targets. A budget is planned as `delift score --budget` does it, with the pairs of records
before themselves counted; what is not scored is estimated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from delift_cli.budget.anchors import Anchors, choose_anchors
from delift_cli.submodular.kernel import dense_kernel
from delift_cli.submodular.objectives import make_objective
from delift_cli.submodular.select import select
from tests.bench.budget import embed, load
from tests.bench.chosen import SHARES, Choice, Known, by_budget, from_matrix, generated

MOST_PAIRS = 5_000_000


def by_anchors(known: Known, anchors: Anchors, objective: str) -> Choice:
    """Chooses records by their utilities to the anchors, each weighted by what it stands for."""
    n = known.shape[0]
    block = np.empty((n, len(anchors.places)), np.float32)
    for column, target in enumerate(anchors.places):
        block[:, column] = known.source(np.arange(n), np.full(n, target))
    block[anchors.places, np.arange(len(anchors.places))] = 0
    made = make_objective(objective, dense_kernel(block.clip(0)), weight=anchors.weights)
    return lambda k: select(made, k).indices


def compare(known: Known, counts: list[int]) -> Iterator[str]:
    n = known.shape[0]
    yield f"{f'{known.name}, {n:,} records':42}" + "".join(f"{f'k = {share:.0%}':>20}" for share in SHARES)
    for count in counts:
        best = choose_anchors(known.texts, known.embeddings, count)
        drawn = np.sort(np.random.default_rng(0).choice(n, count, replace=False))
        ways = {
            f"{count} anchors, topm": by_anchors(known, best, "topm"),
            f"{count} anchors, fl": by_anchors(known, best, "fl"),
            f"{count} random targets, topm": by_anchors(known, Anchors(drawn, np.full(count, n / count)), "topm"),
            f"a budget of {count * n:,} pairs": by_budget(known, count * n),
        }
        for way, choose in ways.items():
            yield f"  {way:40}" + "".join(f"{known.value(choose(round(share * n))):>20}" for share in SHARES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="as of tests.bench.budget")
    parser.add_argument("--embeddings", type=Path, metavar="NPY", help="as of tests.bench.budget")
    parser.add_argument("--anchors", type=int, nargs="+", default=[50, 25])
    parser.add_argument("--generated", type=int, nargs="+", metavar="N", help="generated records in place of a matrix")
    parser.add_argument("--share", type=float, default=0.25, help="of generated records: anchors, of up to 5 M pairs")
    args = parser.parse_args()
    for n in args.generated or []:
        for line in compare(generated(n), [min(round(args.share * n), MOST_PAIRS // n)]):
            print(line, flush=True)
    if args.generated:
        return
    for utility in ("euclidean", "pmi"):
        for transpose in (False, True):
            U, prompts, responses, base, name = load(args.data, utility, transpose)
            embeddings = embed(prompts, responses, args.embeddings) if args.embeddings else None
            known = from_matrix(name, U, (prompts, responses), embeddings=embeddings, base=base)
            for line in compare(known, args.anchors):
                print(line, flush=True)


if __name__ == "__main__":
    main()
