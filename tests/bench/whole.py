"""A budget from end to end with the real model: what a share of the pairs costs, and what its subset is worth.

    python -m tests.bench.whole                                # 1,000 records, 5 % of the pairs; hours on two cores
    python -m tests.bench.whole --only text random             # the subsets that need no scored pairs
    python -m tests.bench.whole --records 500 --targets 60     # a smaller one

The first records of the P3 sample are scored with a budget and 30 % of them selected. What is compared: the same
number of pairs drawn at random (unscored ones estimated in the same way, and counted as 0), facility location over
text similarities without a model, and random records. Each subset's value is what its records really do: facility
location (clip kernel, a record does not cover itself or a copy) on pairs with random targets, every one of which is
scored. Everything is kept in the work folder, and a second run goes on from there.
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

from delift_cli.cache.dense import Cache
from delift_cli.data import ngrams
from delift_cli.data.reading import read_records
from delift_cli.data.record import copy_groups
from delift_cli.submodular.select import select

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "p3_6k.jsonl"
RESAMPLES = 4000
# The planner with nothing but random pairs, all in its first round.
AT_RANDOM = """
from delift_cli.budget import plan
plan.shares = lambda pairs, targets, examples: (0.0, 1.0)
from delift_cli.cli import main
main()
"""
SCORED = {"budget": ("-m", "delift_cli"), "random-pairs": ("-c", AT_RANDOM)}
WAYS = ("text", "random", *SCORED)


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
    vectors = ngrams.grams([r["prompt"] for r in records], [r["response"] for r in records])
    indices, values = ngrams.neighbours(vectors, vectors, n - 1, key, key)
    similarity = np.zeros((n, n), np.float32)
    found = indices >= 0
    similarity[indices[found], np.nonzero(found)[0]] = values[found]
    return select(similarity, k).indices.tolist()


def by_pairs(way: str, pool: Path, budget: str, k: int, place: dict[str, int]) -> dict[str, list[int]]:
    """Subsets chosen from a part of the pairs, with and without estimates of the others."""
    cache, found = pool.parent / f"{way}.delift", {}
    summary, seconds = delift(
        "score", pool, "-o", cache, "--weights", "bf16", "--budget", budget, "--json", program=SCORED[way]
    )
    done = json.loads(summary)
    print(
        f"{way}: {done['pairs_measured']:,} pairs, of them {done['pairs_scored']:,} now in {seconds:.0f} s "
        f"({done['tokens_evaluated']:,} tokens); held out: {json.dumps(done['held_out'])}",
        flush=True,
    )
    for estimates in ("auto", "off"):
        how = ("--ids-only", "--estimates", estimates, "--drop-suspects", "off")
        chosen, seconds = delift("select", cache, "-k", k, *how)
        found[f"{way}, estimates {estimates}"] = [place[line] for line in chosen.split()]
        print(f"  select, estimates {estimates}: {seconds:.1f} s", flush=True)
    return found


def judged(members: list[int], lines: list[str], drawn: list[int], work: Path) -> np.ndarray:
    """Clipped utilities [record, target] of these records for the drawn targets; 0 for records never asked for.

    The cache grows: who was judged in an earlier call is not scored again.
    """
    targets, examples, order = work / "targets.jsonl", work / "judged.jsonl", work / "judged.json"
    targets.write_text("".join(lines[at] + "\n" for at in drawn), encoding="utf-8")
    known = json.loads(order.read_text()) if order.exists() else []
    known += sorted({*members} - {*known})
    order.write_text(json.dumps(known))
    examples.write_text("".join(lines[at] + "\n" for at in known), encoding="utf-8")
    path = work / "judge.delift"
    asked = ("--examples", examples, "--targets", targets, "-o", path, "--weights", "bf16", "--budget", "100%")
    _, seconds = delift("score", *asked)
    print(f"valuing: {len(known)} x {len(drawn)} pairs, this call {seconds:.0f} s", flush=True)
    cache = Cache(path)
    utility = np.zeros((len(lines), len(drawn)))
    utility[known] = np.maximum(cache.base_distance - cache.distance, 0)
    label = copy_groups(read_records(str(work / "pool.jsonl")).records)
    utility[label[:, None] == label[drawn]] = 0
    return utility


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="p3_6k.jsonl, or another file of prompts and responses")
    parser.add_argument("--work", type=Path, default=Path("whole"), help="folder for caches and subsets")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--budget", default="5%")
    parser.add_argument("--targets", type=int, default=100, help="random targets that subsets are valued on")
    parser.add_argument("--draws", type=int, default=1, help="random subsets that are valued")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS, help="what to compare in this run")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pool = args.work / "pool.jsonl"
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.records]
    pool.write_text("\n".join(lines) + "\n", encoding="utf-8")
    records = [json.loads(line) for line in lines]
    place = {record["id"]: at for at, record in enumerate(records)}
    n, k = len(records), round(0.3 * len(records))
    drawn = sorted(random.Random(0).sample(range(n), args.targets))

    chance = [random.Random(1 + draw).sample(range(n), k) for draw in range(args.draws)]
    subsets = {f"random {draw}": chosen for draw, chosen in enumerate(chance, start=1)}
    if "text" in args.only:
        subsets["text similarity, no model"] = by_text(records, k)
    for way in SCORED:
        if way in args.only:
            subsets |= by_pairs(way, pool, args.budget, k, place)
    utility = judged([at for chosen in subsets.values() for at in chosen], lines, drawn, args.work)

    best = {name: utility[chosen].max(0) for name, chosen in subsets.items()}
    base = np.mean([best[f"random {draw}"] for draw in range(1, args.draws + 1)], axis=0)
    # Greedy for these very targets among all that were judged: more than any choice made without knowing them.
    ceiling = utility[select(utility, k).indices].max(0).sum() - base.sum()
    rng = np.random.default_rng(0)
    resampled = rng.integers(len(drawn), size=(RESAMPLES, len(drawn)))
    print(f"{'':36}{'value':>9}{'- random':>10}   95 % interval over targets   of what is to be had")
    for name, chosen in best.items():
        difference = chosen - base
        low, high = np.quantile(difference[resampled].sum(1), (0.025, 0.975))
        print(
            f"{name:36}{chosen.sum():9.3f}{difference.sum():10.3f}   {low:+8.3f} to {high:+8.3f}"
            f"{difference.sum() / ceiling:21.3f}"
        )


if __name__ == "__main__":
    main()
