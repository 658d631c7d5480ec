"""Does utility foretell what training on a record gives? A pool in tenths by utility, and a training on each.

    python -m tests.evidence.deciles p3 instruct-code    trains, and goes on where it stopped
    python -m tests.evidence.deciles --table             the table, from what there is

What the records of a pool do for its first held-out ones is kept in samples/ (see `tests.evidence.datamodel`). They are
ordered by the mean of it, the least first; a model is trained on each tenth and tested on these held-out records and on
as many others. One JSON line for each tenth is added to samples/evidence-deciles.jsonl as soon as it is there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from delift_cli.errors import InputError
from delift_cli.model.places import locate
from tests.evidence import pools
from tests.evidence.datamodel import kept
from tests.evidence.matrices import Matrix, load_matrix
from tests.evidence.runs import Line, append_result, read_results
from tests.evidence.stats import rank_correlation

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "samples" / "evidence-deciles.jsonl"
TENTHS = 10
# Not in their order: what is there when this is stopped tells something of the whole.
ORDER = (0, 9, 5, 2, 7, 4, 8, 1, 6, 3)


def tenths(matrix: Matrix) -> list[list[int]]:
    """Places of the matrix's examples, a tenth each, by their mean utility to the targets, the least first."""
    order = np.argsort(matrix.euclidean.mean(axis=1), kind="stable")
    return [part.tolist() for part in np.array_split(order, TENTHS)]


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Markdown: for each pool the tenths in order, with the losses by record and by token."""
    for pool in dict.fromkeys(line["pool"] for line in lines):
        found = sorted((line for line in lines if line["pool"] == pool), key=lambda line: line["tenth"])
        yield f"| {pool}, tenth by utility | mean utility | trained tokens | per record | per token |"
        yield "|---|" + "---|" * 4
        rows = []
        for line in found:
            loss, tokens = (np.array(line["heldout"][name]) for name in ("loss", "tokens"))
            rows.append((line["utility"], line["tokens"], (loss / tokens).mean(), loss.sum() / tokens.sum()))
            utility, trained, by_record, by_token = rows[-1]
            yield f"| {line['tenth'] + 1} | {utility:+.3f} | {trained:,} | {by_record:.3f} | {by_token:.3f} |"
        utility, trained, *losses = zip(*rows, strict=True)
        ranks = " | ".join(f"{rank_correlation(utility, loss):+.2f}" for loss in losses)
        yield f"| rank correlation with the utility | | {rank_correlation(utility, trained):+.2f} | {ranks} |\n"


def main() -> None:
    args = _arguments()
    try:
        if args.table:
            print("\n".join(table(read_results(RESULTS))))
            return
        for pool in pools.write_pools(args.data, args.work):
            if pool.name in args.pools:
                _train(pool, load_matrix(kept(pool.name)), args.threads)
    except InputError as error:
        sys.exit(f"deciles: {error}")


def _train(pool: pools.Pool, matrix: Matrix, threads: int) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from tests.evidence.tuned import load

    done = {line["tenth"] for line in read_results(RESULTS) if line["pool"] == pool.name}
    tuning = load(locate(None), {pool.name: pool}, device="cpu", threads=threads)
    records, heldout = tuning.tokens(pool.name, "pool"), list(tuning.tokens(pool.name, "heldout").values())
    parts = tenths(matrix)
    for tenth in ORDER:
        if tenth in done:
            continue
        wanted = {matrix.examples[place] for place in parts[tenth]}
        tuning.tuner.reset(0)
        took = tuning.tuner.train([tokens for name, tokens in records.items() if name in wanted], seed=0)
        measured = tuning.tuner.test(heldout[: 2 * len(matrix.targets)])
        line = {
            "pool": pool.name,
            "tenth": tenth,
            "chosen": sorted(wanted),
            "utility": float(matrix.euclidean[parts[tenth]].mean()),
            "targets": len(matrix.targets),
            **took._asdict(),
            "heldout": measured._asdict(),
            "versions": tuning.versions,
        }
        append_result(RESULTS, line)
        by_record = (np.array(measured.loss) / measured.tokens).mean()
        print(f"{pool.name}, tenth {tenth + 1}: {by_record:.3f} a record, {took.seconds:.0f} s", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", nargs="*")
    parser.add_argument("--table", action="store_true", help="print the table, and stop")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the public data")
    parser.add_argument("--work", type=Path, default=ROOT / "evidence", help="folder of everything that is made")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
