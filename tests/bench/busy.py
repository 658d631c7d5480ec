"""Every loop that threads share, by all threads and by one: on a quiet machine, and with a hog on one of its cores.

    python -m tests.bench.busy                   # all of them, under two minutes on two cores
    python -m tests.bench.busy selection logits  # some

Parts:
    selection   exact facility location, n = 5,000, k = 30 %, on a kernel with the make-up of measured utilities
    logits      log-softmax of 64, 256 and 512 rows of 49,152 logits at the wanted tokens
    fit         the planner's estimate from 40,000 pairs of 2,000 records
    candidates  the planner's look for the best unscored pairs of 2,000 x 2,000
    neighbours  the 32 nearest of 4,000 records by their n-grams

A hog is a process that never rests. Each figure is the median of `--repeats` runs in one process, the two ways in turn,
so that what else the machine does falls on both. What counts is the ratio: above 1.1, threads were a loss.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from delift_cli import select
from delift_cli.budget import adaptive, plan
from delift_cli.budget.proposals import propose
from delift_cli.data import ngrams
from delift_cli.model.logprob import token_logprobs
from tests.bench.budget import score_with, synthetic
from tests.bench.selection import make_kernel

PARTS = ("selection", "logits", "fit", "candidates", "neighbours")


def selection(folder: Path) -> dict[str, Callable[[], object]]:
    path = folder / "kernel.npy"
    make_kernel(path, "utilities", 5000)
    kernel = np.load(path)
    return {"selection": lambda: select(kernel, 1500, bound=False)}


def logits(folder: Path) -> dict[str, Callable[[], object]]:
    values = np.random.default_rng(0).standard_normal((512, 49152), np.float32)

    def reduced(count: int) -> Callable[[], object]:
        rows = np.arange(count)
        return lambda: token_logprobs(values[:count], rows, rows.astype(np.int32))

    return {f"logits of {count}": reduced(count) for count in (64, 256, 512)}


def planner(folder: Path) -> dict[str, Callable[[], object]]:
    n, budget = 2000, 40_000
    prompts, responses, source = synthetic(n, 0)
    example, target = np.indices((n, n))
    true = source(example.ravel(), target.ravel()).reshape(n, n)
    key = np.arange(n)
    proposals = propose((prompts, responses), None, budget, key, key)
    scored, _, _ = score_with(true, proposals, budget, 0)
    order = np.lexsort((scored.target, scored.example))
    scored = scored[order]
    rng, nothing = np.random.default_rng(0), np.empty(0, np.int64)
    found, model = adaptive.by_target(proposals, scored, adaptive.BOLD.nth), plan.fit_scored(proposals, scored, 0)
    given = (proposals, scored, found, model, nothing, 8000, rng, key, adaptive.BOLD.optimism)
    return {
        "fit": lambda: plan.fit_scored(proposals, scored, 0),
        "candidates": lambda: adaptive.improving_pairs(*given),
    }


def neighbours(folder: Path) -> dict[str, Callable[[], object]]:
    prompts, responses, _ = synthetic(4000, 0)
    texts = ngrams.grams(prompts, responses)
    return {"neighbours": lambda: ngrams.neighbours(texts, texts, 32, np.arange(4000), np.arange(4000))}


def timed(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Seconds by all threads and by one, in turn."""
    threads = numba.get_num_threads()
    taken: dict[int, list[float]] = {threads: [], 1: []}
    try:
        for turn in range(repeats + 1):
            for count, seconds in taken.items():
                numba.set_num_threads(count)
                began = time.perf_counter()
                work()
                if turn:  # the first one loads what was compiled
                    seconds.append(time.perf_counter() - began)
    finally:
        numba.set_num_threads(threads)
    many, one = (float(np.median(seconds)) for seconds in taken.values())
    return {"threads_s": many, "one_s": one, "ratio": many / one}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    makers = {"selection": selection, "logits": logits, "neighbours": neighbours}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        parts = options.parts or PARTS
        works: dict[str, Callable[[], object]] = {}
        for part in parts:
            works |= makers.get(part, planner)(Path(folder)) if part not in works else {}
        for name, work in works.items():
            if name.split()[0] not in parts:
                continue
            for hogs in (0, 1):
                beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(hogs)]
                try:
                    found[f"{name}, {hogs} hogs"] = timed(work, options.repeats)
                finally:
                    for process in beside:
                        process.kill()
                        process.wait()
                figures = found[f"{name}, {hogs} hogs"]
                if not options.json:
                    print(f"{name:16} {hogs} hogs ", *(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
