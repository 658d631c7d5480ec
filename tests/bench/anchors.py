"""Anchors against a budget of as many pairs: what is the subset that each gives worth on all targets?

    python -m tests.bench.anchors                        # pool200's reference, 50 and 25 anchors, in four views
    python -m tests.bench.anchors --data matrix.npz --anchors 150
    python -m tests.bench.anchors --synthetic 200 600 2000 50000 --share 0.25

Value: facility location over all targets (clip kernel, self-pairs left out) of the subset that is chosen, as a share of
what greedy on the full matrix has; behind the stroke on the scale of `tests.bench.budget` (0 = random subsets, 1 =
greedy on the full matrix). Above 5,000 records nobody has the full matrix: there the share is of what all records
together give to some sampled targets. A budget is planned as `delift score --budget` does it, with the pairs of records
before themselves counted; what is not scored is estimated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from delift_cli.budget import partial_block, plan
from delift_cli.budget.anchors import Anchors, choose_anchors
from delift_cli.budget.measured import nothing_scored
from delift_cli.budget.proposals import propose
from delift_cli.submodular.kernel import dense_kernel, factored_kernel
from delift_cli.submodular.objectives import make_objective
from delift_cli.submodular.select import select
from tests.bench.budget import embed, load, synthetic
from tests.bench.large import joined

SHARES = (0.1, 0.3)
WHOLE = 5_000  # records up to which the full matrix is made
SAMPLED = 400  # targets that larger pools are valued on
DRAWS = 200  # random subsets
MOST_PAIRS = 5_000_000

Source = Callable[[np.ndarray, np.ndarray], np.ndarray]
Value = Callable[[np.ndarray], str]
Choice = Callable[[int], np.ndarray]
Texts = tuple[list[str], list[str]]


def by_anchors(source: Source, anchors: Anchors, n: int, objective: str) -> Choice:
    """Chooses records by their utilities to the anchors, each weighted by what it stands for."""
    block = np.empty((n, len(anchors.places)), np.float32)
    for column, target in enumerate(anchors.places):
        block[:, column] = source(np.arange(n), np.full(n, target))
    block[anchors.places, np.arange(len(anchors.places))] = 0
    made = make_objective(objective, dense_kernel(block.clip(0)), weight=anchors.weights)
    return lambda k: select(made, k).indices


def by_budget(
    source: Source, texts: Texts, embeddings: np.ndarray | None, base: np.ndarray | None, pairs: int
) -> Choice:
    """Chooses records after so many pairs."""
    n = len(texts[0])
    key = np.arange(n)
    points = None if embeddings is None else (embeddings, embeddings)
    proposals = propose(texts, None, pairs, key, key, points, base)
    scored = nothing_scored()
    for left in range(plan.ROUNDS, 0, -1):
        scored = joined(scored, plan.next_round(proposals, scored, pairs, rounds_left=left), source)
    model = plan.fit_scored(proposals, scored, 0)
    if partial_block.hint((n, n)):
        rows, factors = partial_block.rows_with_estimates(scored, model, key, key), np.zeros((2, n, 0))
    else:
        rows, factors = partial_block.rows_of(scored, n), model.factors()
    kernel = factored_kernel(*rows, *factors, example_group=key, target_group=key)
    return lambda k: select(kernel, k).indices


def on_all(U: np.ndarray) -> Value:
    """What a subset is worth beside greedy on the full matrix."""
    S = np.where(np.eye(len(U), dtype=bool), 0, U.clip(0)).astype(np.float32)
    kernel, rng = dense_kernel(S), np.random.default_rng(1)
    found: dict[int, tuple[float, float]] = {}

    def value(chosen: np.ndarray) -> str:
        k = len(chosen)
        if k not in found:
            draws = [S[rng.choice(len(S), k, replace=False)].max(0).sum() for _ in range(DRAWS)]
            found[k] = float(np.mean(draws)), float(S[select(kernel, k).indices].max(0).sum())
        worth, (zero, one) = float(S[chosen].max(0).sum()), found[k]
        return f"{worth / one:8.3f} / {(worth - zero) / (one - zero):6.3f}"

    return value


def on_sampled(source: Source, n: int) -> Value:
    """What a subset gives to some targets, as a share of what all records give them."""
    rng = np.random.default_rng(0)
    targets = rng.choice(n, min(n, SAMPLED), replace=False)
    columns = [source(np.arange(n), np.full(n, i)).clip(0) for i in targets]
    for column, i in zip(columns, targets, strict=True):
        column[i] = 0
    whole = sum(float(column.max()) for column in columns)

    def value(chosen: np.ndarray) -> str:
        return f"{sum(float(column[chosen].max()) for column in columns) / whole:8.3f}         "

    return value


def compare(
    name: str,
    source: Source,
    value: Value,
    texts: Texts,
    embeddings: np.ndarray | None,
    base: np.ndarray | None,
    counts: list[int],
) -> Iterator[str]:
    n = len(texts[0])
    sizes = [round(share * n) for share in SHARES]
    yield f"{name}, {n:,} records{'':24}" + "".join(f"{f'k = {share:.0%}':>18}" for share in SHARES)
    for count in counts:
        best = choose_anchors(texts, embeddings, count)
        drawn = np.sort(np.random.default_rng(0).choice(n, count, replace=False))
        ways = {
            f"{count} anchors, topm": by_anchors(source, best, n, "topm"),
            f"{count} anchors, fl": by_anchors(source, best, n, "fl"),
            f"{count} random targets, topm": by_anchors(source, Anchors(drawn, np.full(count, n / count)), n, "topm"),
            f"a budget of {count * n:,} pairs": by_budget(source, texts, embeddings, base, count * n),
        }
        for way, choose in ways.items():
            yield f"  {way:40}" + "".join(f"{value(choose(k)):>20}" for k in sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="as of tests.bench.budget")
    parser.add_argument("--embed", action="store_true", help="records' embeddings count too (runs SmolLM2)")
    parser.add_argument("--embeddings", type=Path, metavar="NPY", help="the same, kept in this file")
    parser.add_argument("--anchors", type=int, nargs="+", default=[50, 25])
    parser.add_argument("--synthetic", type=int, nargs="+", metavar="N", help="generated records in place of a matrix")
    parser.add_argument("--share", type=float, default=0.25, help="of generated records: anchors, of up to 5 M pairs")
    args = parser.parse_args()
    for n in args.synthetic or []:
        prompts, responses, source = synthetic(n, 0)
        if n <= WHOLE:
            example, target = np.indices((n, n))
            value = on_all(source(example.ravel(), target.ravel()).reshape(n, n))
        else:
            value = on_sampled(source, n)
        counts = [min(round(args.share * n), MOST_PAIRS // n)]
        for line in compare("generated", source, value, (prompts, responses), None, None, counts):
            print(line, flush=True)
    if args.synthetic:
        return
    embeddings = None
    for utility in ("euclidean", "pmi"):
        for transpose in (False, True):
            U, prompts, responses, base, name = load(args.data, utility, transpose)
            if (args.embed or args.embeddings) and embeddings is None:
                embeddings = embed(prompts, responses, args.embeddings)
            value = on_all(U)

            def source(example: np.ndarray, target: np.ndarray, known: np.ndarray = U) -> np.ndarray:
                return known[example, target].astype(np.float32)

            for line in compare(name, source, value, (prompts, responses), embeddings, base, args.anchors):
                print(line, flush=True)


if __name__ == "__main__":
    main()
