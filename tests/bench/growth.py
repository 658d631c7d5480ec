"""What so many pairs a record are worth as a pool grows, beside the nearest neighbours alone.

    python -m tests.bench.growth                               # generated records: 200, 600, 2,000
    python -m tests.bench.growth --sizes 10000 50000 --pairs 10 20 50
    python -m tests.bench.growth --data matrix.npz --sizes 100 200    # of a measured matrix, and parts of it
    python -m tests.bench.growth --heldout p3 instruct-code     # pools before 50 held-out records, of samples/

Values as in `tests.bench.anchors`: facility location over all targets, self-pairs left out, as a share of greedy on the
full matrix / from random subsets (0) to it (1); of sampled targets above 5,000 records. Pairs are counted for each
target; those of records before themselves are among them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.budget import DATA, embed, load
from tests.bench.chosen import SHARES, Known, by_budget, by_neighbours, from_matrix, generated
from tests.evidence.datamodel import kept
from tests.evidence.matrices import load_matrix
from tests.evidence.pools import write_pools


def growth(known: Known, pairs: list[int]) -> Iterator[str]:
    n, m = known.shape
    heads = "".join(f"{f'{way}, k = {share:.0%}':>22}" for way in ("planned", "nearest") for share in SHARES)
    yield f"{f'{known.name}, {n:,} records':40}{heads}"
    for each in pairs:
        if each >= n or (each * m < 2 * (n + m) and known.targets is not None):
            continue
        choices = by_budget(known, each * m), by_neighbours(known, each * m)
        found = [known.value(choose(round(share * n))) for choose in choices for share in SHARES]
        yield f"{f'{each} pairs a record ({each / n:.1%})':40}" + "".join(f"{one:>22}" for one in found)


def of_matrix(path: Path | None, n: int, utility: str, transpose: bool, embeddings: Path | None) -> Known:
    """So many records of a measured matrix."""
    U, prompts, responses, base, name = load(path, utility, transpose)
    part = np.sort(np.random.default_rng(0).choice(len(U), min(n, len(U)), replace=False))
    points = embed(prompts, responses, embeddings)[:, part] if embeddings else None
    texts = tuple([texts[at] for at in part] for texts in (prompts, responses))
    return from_matrix(name, U[np.ix_(part, part)], texts, embeddings=points, base=base[part])  # type: ignore[arg-type]


def of_heldout(names: list[str]) -> Iterator[Known]:
    """Pools before their first held-out records, in both utilities."""
    with tempfile.TemporaryDirectory() as folder:
        pools = {pool.name: pool for pool in write_pools(DATA, Path(folder))}
        for name in names:
            matrix = load_matrix(kept(name))
            sides = []
            for part, ids in (("pool", matrix.examples), ("heldout", matrix.targets)):
                of_id = {record["id"]: record for record in pools[name].records(part)}
                sides.append(tuple([of_id[each][field] for each in ids] for field in ("prompt", "response")))
            for utility in ("euclidean", "pmi"):
                U = getattr(matrix, utility).astype(float)
                yield from_matrix(f"{name} {utility}, held-out", U, sides[0], targets=sides[1])  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 600, 2000], help="records")
    parser.add_argument("--pairs", type=int, nargs="+", default=[5, 10, 20, 50, 100], help="of each record")
    parser.add_argument("--data", type=Path, help="as of tests.bench.budget, in place of generated records")
    parser.add_argument("--utility", choices=("euclidean", "pmi"), default="euclidean", help="of a measured matrix")
    parser.add_argument("--transpose", action="store_true", help="of a measured matrix")
    parser.add_argument("--embeddings", type=Path, metavar="NPY", help="as of tests.bench.budget")
    parser.add_argument("--heldout", nargs="+", metavar="POOL", help="pools of samples/evidence-POOL.npz")
    args = parser.parse_args()
    if args.heldout:
        blocks = of_heldout(args.heldout)
    elif args.data:
        blocks = (of_matrix(args.data, n, args.utility, args.transpose, args.embeddings) for n in args.sizes)
    else:
        blocks = map(generated, args.sizes)
    for known in blocks:
        for line in growth(known, args.pairs):
            print(line, flush=True)


if __name__ == "__main__":
    main()
