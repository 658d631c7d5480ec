"""A budget from end to end with the real model: what a share of the pairs costs, and what its subset is worth.

    python -m tests.bench.whole                                # 1,000 records, 5 % of the pairs; hours on two cores
    python -m tests.bench.whole --records 500 --targets 60     # a smaller one

The first records of the P3 sample are scored with a budget and 30 % of them selected. What is compared: the same
number of pairs drawn at random (unscored ones estimated in the same way, and counted as 0), facility location over
text similarities without a model, and random subsets. Each subset's value is what its records really do: facility
location (clip kernel, a record does not cover itself) on pairs with random targets, all of them scored.
Everything is kept in the work folder, and a second run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from delift_cli import lexical
from delift_cli.cache import Cache
from delift_cli.selection import select

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "p3_6k.jsonl"
DRAWS = 1000
# The planner with nothing but random pairs, all in its first round.
AT_RANDOM = """
from delift_cli import plan
plan.NEIGHBOUR_SHARE, plan.RANDOM_SHARE = 0.0, 1.0
from delift_cli.cli import main
main()
"""


def delift(*arguments: object, program: tuple[str, ...] = ("-m", "delift_cli")) -> tuple[str, float]:
    """stdout, and how long it took."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"delift {' '.join(map(str, arguments))} ended with exit code {done.returncode}")
    return done.stdout, time.perf_counter() - began


def by_text(records: list[dict[str, str]], k: int) -> list[int]:
    """Facility location over the similarities that propose pairs, without a model."""
    n, key = len(records), np.arange(len(records))
    vectors = lexical.grams([r["prompt"] for r in records], [r["response"] for r in records])
    indices, values = lexical.neighbours(vectors, vectors, n - 1, key, key)
    similarity = np.zeros((n, n), np.float32)
    found = indices >= 0
    similarity[indices[found], np.nonzero(found)[0]] = values[found]
    return select(similarity, k).indices.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="p3_6k.jsonl, or another file of prompts and responses")
    parser.add_argument("--work", type=Path, default=Path("whole"), help="folder for caches and subsets")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--budget", default="5%")
    parser.add_argument("--targets", type=int, default=100, help="random targets that subsets are valued on")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pool = args.work / "pool.jsonl"
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.records]
    pool.write_text("\n".join(lines) + "\n", encoding="utf-8")
    records = [json.loads(line) for line in lines]
    place = {record["id"]: at for at, record in enumerate(records)}
    n, k = len(records), round(0.3 * len(records))

    subsets: dict[str, list[int]] = {}
    for name, program in (("budget", ("-m", "delift_cli")), ("random pairs", ("-c", AT_RANDOM))):
        cache = args.work / f"{name.replace(' ', '-')}.delift"
        summary, seconds = delift(
            "score", pool, "-o", cache, "--weights", "bf16", "--budget", args.budget, "--json", program=program
        )
        done = json.loads(summary)
        print(
            f"{name}: {done['pairs_measured']:,} pairs, of them {done['pairs_scored']:,} now in {seconds:.0f} s "
            f"({done['tokens_evaluated']:,} tokens); held out: {json.dumps(done['held_out'])}",
            flush=True,
        )
        for estimates in ("auto", "off"):
            chosen, seconds = delift("select", cache, "-k", k, "--ids-only", "--estimates", estimates)
            subsets[f"{name}, estimates {estimates}"] = [place[line] for line in chosen.split()]
            print(f"  select, estimates {estimates}: {seconds:.1f} s", flush=True)
    subsets["text similarity, no model"] = by_text(records, k)

    targets = args.work / "targets.jsonl"
    drawn = sorted(random.Random(0).sample(range(n), args.targets))
    targets.write_text("".join(lines[at] + "\n" for at in drawn), encoding="utf-8")
    judge = args.work / "judge.delift"
    _, seconds = delift("score", pool, "--targets", targets, "-o", judge, "--weights", "bf16", "--budget", "100%")
    print(f"valuing: {n} x {args.targets} pairs in {seconds:.0f} s", flush=True)
    cache = Cache(judge)
    utility = np.maximum(cache.base_distance - cache.distance, 0)
    utility[drawn, np.arange(len(drawn))] = 0

    rng = np.random.default_rng(0)
    chance = [utility[rng.choice(n, k, replace=False)].max(0).sum() for _ in range(DRAWS)]
    best = utility[select(utility, k).indices].max(0).sum()
    zero, spread = float(np.mean(chance)), float(np.std(chance))
    print(f"{'random subsets':36}{zero:9.3f} ± {spread:.3f}   0")
    for name, chosen in subsets.items():
        value = utility[chosen].max(0).sum()
        print(f"{name:36}{value:9.3f}            {(value - zero) / (best - zero):.3f}")
    print(f"{'greedy for these very targets':36}{best:9.3f}            1")


if __name__ == "__main__":
    main()
