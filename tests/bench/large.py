"""What planning and estimating take with large pools, without a model: seconds and peak memory of each step.

    python -m tests.bench.large                            # 20,000, 50,000 and 200,000 records, 20 pairs each
    python -m tests.bench.large 50000 --pairs 10 --width 0  # without embeddings

The steps are those of `delift score --budget` (proposals, rounds of planning with what is covered after each) and
of `delift select` on its cache (proposals without embeddings, the fit, the choice). Utilities and texts are
`tests.bench.budget.synthetic`'s; two embeddings of a record are random. Each size is a process of its own, so that its
peak is its own; `processor` is the time of all threads, which others at work on the machine do not change much.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from delift_cli.budget import partial_block, plan
from delift_cli.budget.measured import HELD_OUT, Scored, coverage, nothing_scored, rows_of, settled
from delift_cli.budget.proposals import propose
from delift_cli.budget.trust import quality
from delift_cli.submodular.kernel import factored_kernel
from delift_cli.submodular.select import select
from tests.bench.budget import synthetic

SIZES = (20_000, 50_000, 200_000)
WIDTH = 576  # of SmolLM2-135M's embeddings
SAMPLED_TARGETS = 200  # that a subset is valued on
PART = 1_000_000  # pairs that the source is asked for at a time


class Clock:
    """Prints what each step took, and keeps it."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, float]] = []
        self._last = time.perf_counter(), time.process_time()

    def __call__(self, step: str) -> None:
        now = time.perf_counter(), time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        took, worked = now[0] - self._last[0], now[1] - self._last[1]
        self.steps.append((took, worked, peak))
        print(f"{step:28}{took:8.1f} s {worked:8.1f} s of a processor   peak {peak:.2f} GiB", flush=True)
        self._last = now


def unit_vectors(n: int, width: int) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((2, n, width), np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return vectors


def run(n: int, pairs: int, width: int, *, with_estimates: bool) -> dict[str, Any]:
    """All steps with n records and so many pairs each; embeddings are `width` wide, 0 for none.

    The choice is made as `delift select` does it: with estimates where they predict held-out pairs, or where asked.
    """
    prompts, responses, source = synthetic(n, 0)
    embeddings = unit_vectors(n, width) if width else None
    key, budget = np.arange(n), pairs * n
    clock = Clock()
    proposals = propose(
        (prompts, responses), None, budget, key, key, None if embeddings is None else (embeddings, embeddings)
    )
    clock("propose")
    scored, covered = nothing_scored(), []
    for left in range(rounds := plan.rounds_for((n, n)), 0, -1):
        planned = plan.next_round(proposals, scored, budget, rounds_left=left)
        clock(f"plan round {rounds - left + 1}")
        before, scored = scored, joined(scored, planned, source)
        clock("(synthetic utilities)")
        covered.append(coverage(proposals, scored))
        settled(proposals, before, scored)
        clock("what is covered")
    del proposals, embeddings
    proposals = propose((prompts, responses), None, 0, key, key)
    clock("select: propose")
    model = plan.fit_scored(proposals, scored, 0)
    clock("select: fit")
    held = scored.source == HELD_OUT
    found = quality(model.predict(scored.example[held], scored.target[held]), scored.utility[held])
    clock("select: quality")
    estimated = with_estimates or found.trusted
    rows, factors = rows_of(scored, n), np.zeros((2, n, 0))
    if estimated and partial_block.hint((n, n)):
        rows = partial_block.rows_with_estimates(scored, model, key, key)
        clock("select: best estimates")
    elif estimated:
        factors = model.factors()
    chosen = select(factored_kernel(*rows, *factors, example_group=key, target_group=key), round(0.3 * n)).indices
    clock("select: 30 %")
    seconds, processor, peaks = zip(*clock.steps, strict=True)
    result = {
        "n": n, "pairs": len(scored), "seconds": round(sum(seconds), 1), "processor": round(sum(processor), 1),
        "peak_gib": round(max(peaks), 2), "r2": found.r2, "estimated": estimated, "covered": covered,
        "truly covered": truly_covered(n, chosen, source),
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    return result


def joined(scored: Scored, planned: plan.Round, source: Any) -> Scored:
    """What was scored, and the pairs of one more round with their utilities."""
    example = np.repeat(np.arange(len(planned.indptr) - 1, dtype=np.int32), np.diff(planned.indptr))
    parts = range(0, len(planned), PART)
    utility = [source(example[a : a + PART], planned.targets[a : a + PART]) for a in parts]
    return Scored(
        np.concatenate([scored.example, example]),
        np.concatenate([scored.target, planned.targets]),
        np.concatenate([scored.utility, *utility]),
        np.concatenate([scored.source, planned.source]),
    )


def truly_covered(n: int, chosen: np.ndarray, source: Any) -> dict[str, float]:
    """Mean over some targets of their best true utility from the chosen, from as many random ones, from all."""
    rng = np.random.default_rng(0)
    targets = rng.choice(n, min(n, SAMPLED_TARGETS), replace=False)
    subsets = {"selected": chosen, "random": rng.choice(n, len(chosen), replace=False), "everything": np.arange(n)}
    found = {}
    for name, examples in subsets.items():
        best = [source(examples[examples != i], np.full((examples != i).sum(), i)).max() for i in targets]
        found[name] = round(float(np.maximum(best, 0).mean()), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[*SIZES], help="records")
    parser.add_argument("--pairs", type=int, default=20, help="of each record")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the embeddings; 0: none")
    parser.add_argument("--estimates", action="store_true", help="choose with estimates though they predict nothing")
    options = parser.parse_args()
    if len(options.sizes) == 1:
        run(options.sizes[0], options.pairs, options.width, with_estimates=options.estimates)
        return
    for size in options.sizes:
        print(f"{size:,} records", flush=True)
        command = [sys.executable, "-m", "tests.bench.large", str(size), "--pairs", str(options.pairs)]
        command += ["--width", str(options.width), *["--estimates"] * options.estimates]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
