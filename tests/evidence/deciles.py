"""Does utility foretell what training on a record gives? A pool in tenths by utility, and a training on each.

    python -m tests.evidence.deciles CACHE POOL HELDOUT

CACHE: of `delift score POOL --targets`, whose targets are the first records of HELDOUT. The records of POOL are ordered
by the mean of what they do for the targets, the least first; a model is trained on each tenth and tested on the targets
and on as many other held-out records. One JSON line for each tenth is added to samples/evidence-deciles.jsonl as soon
as it is there; the tenths that are there are not done again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from delift_cli.data.reading import read_records
from delift_cli.model.gguf import ModelFile
from delift_cli.model.places import locate
from tests.evidence.matrices import read_matrix
from tests.evidence.runs import append_result, read_results

RESULTS = Path(__file__).resolve().parents[2] / "samples" / "evidence-deciles.jsonl"
TENTHS = 10


def main() -> None:
    args = _arguments()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from tests.evidence.lora import Tuner, encode

    matrix = read_matrix(args.cache)
    order = np.argsort(matrix.euclidean.mean(axis=1), kind="stable")
    tenths: list[list[int]] = [part.tolist() for part in np.array_split(order, TENTHS)]
    done = {(line["pool"], line["tenth"]) for line in read_results(RESULTS)}
    gguf = locate(None)
    file = ModelFile(gguf)
    pool, heldout = (encode(file, read_records(str(path))) for path in (args.pool, args.heldout))
    tested = heldout[: 2 * len(matrix.targets)]
    tuner = Tuner(gguf, device="cpu", threads=args.threads)
    name = args.pool.parent.name
    # Not in their order: what is there when this is stopped tells something of the whole.
    for tenth in (0, 9, 5, 2, 7, 4, 8, 1, 6, 3):
        if (name, tenth) in done:
            continue
        tuner.reset(0)
        took = tuner.train([pool[place] for place in sorted(tenths[tenth])], seed=0)
        measured = tuner.test(tested)
        line = {
            "pool": name,
            "tenth": tenth,
            "chosen": [matrix.examples[place] for place in tenths[tenth]],
            "utility": float(matrix.euclidean[tenths[tenth]].mean()),
            "targets": len(matrix.targets),
            **took._asdict(),
            "heldout": measured._asdict(),
        }
        append_result(RESULTS, line)
        per_record = np.array(measured.loss) / measured.tokens
        print(f"tenth {tenth}: {per_record.mean():.3f} a record, {took.seconds:.0f} s", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cache", "pool", "heldout"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
