"""A model's own matrix of several hundred records, by the cheaper look of `tests.bench.cheap_look`.

    python -m tests.bench.own_matrix own600.npz                # 600 x 600 of the P3 sample, an hour on two cores
    python -m tests.bench.budget --data own600.npz --per-record 20 50 --seeds 3
    python -m tests.bench.anchors --data own600.npz --anchors 150
    python -m tests.bench.growth --data own600.npz --sizes 200 600
    python -m tests.bench.own_matrix own600.npz --truly own600.delift    # do looks agree with utilities?

Only records with a short response are taken, for a look costs its tokens. The matrix grows as a square, by the
hundred, and is written after each step; the same command goes on where it was stopped. `own600.delift` is what
`delift score own600.jsonl -o own600.delift --budget 3600`, or any other budget, made.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

from delift_cli.cache.sparse import SparseCache, open_cache
from delift_cli.data.reading import read_records
from delift_cli.model.converted import converted
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Settings
from delift_cli.model.places import locate
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.encoding import encode_examples, encode_targets
from delift_cli.prompt.template import ChatTemplate
from tests.bench.cheap_look import POOL, Looks
from tests.evidence.stats import rank_correlation

STEP = 100  # records by which the square grows


def choose(data: Path, n: int, response: int, prompt: int, template: ChatTemplate) -> list[str]:
    """Lines of records that are short enough, in an order by chance."""
    records = read_records(str(data))
    targets = encode_targets(records, template, limit=None).targets
    lines = data.read_text(encoding="utf-8").splitlines()
    short = [
        line
        for line, target in zip(lines, targets, strict=True)
        if len(target.response) <= response and len(target.after) <= prompt
    ]
    return random.Random(0).sample(short, n)


def agreement(path: Path, looked: np.ndarray) -> str:
    """How well looks agree with what `delift score --budget` measured of the same records."""
    cache = open_cache(path)
    assert isinstance(cache, SparseCache)
    pairs = cache.pairs()
    others = np.flatnonzero((pairs.example != pairs.target) & ~np.isnan(pairs.distance))
    example, target = pairs.example[others], pairs.target[others]
    true, cheap = cache.base_distance[target] - pairs.distance[others], looked[example, target]
    within = [rank_correlation(true[of], cheap[of]) for i in range(len(looked)) if (of := target == i).sum() > 9]
    return (
        f"{len(true):,} pairs: correlation {np.corrcoef(true, cheap)[0, 1]:.3f}, "
        f"by ranks within a target {np.mean(within):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the matrix, .npz; its records are written beside it, .jsonl")
    parser.add_argument("--data", type=Path, default=POOL)
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--response", type=int, default=5, help="most tokens of a response")
    parser.add_argument("--prompt", type=int, default=75, help="most tokens of a prompt")
    parser.add_argument("--weights", default="bf16", help="what the weights are converted to; f32 without AVX512-BF16")
    parser.add_argument("--truly", type=Path, metavar="CACHE", help="compare with what was scored, and end")
    parser.add_argument("--hours", type=float, default=24, help="after which no step is begun")
    args = parser.parse_args()
    given = ModelFile(locate(None))
    file = converted(given, given.identity()["sha256"], args.weights, threads=Settings().resolved_threads())
    template = load_template(None, file.template, file.vocabulary)
    pool = args.out.with_suffix(".jsonl")
    if not pool.exists():
        lines = choose(args.data, args.records, args.response, args.prompt, template)
        pool.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    records = read_records(str(pool))
    lines = [json.loads(line) for line in pool.read_text(encoding="utf-8").splitlines()]
    prefixes = encode_examples(records, template, limit=None).prefixes
    targets = encode_targets(records, template, limit=None).targets
    n = len(lines)
    known, base = np.empty((2, 0, 0)), np.empty((2, 0))
    if args.out.exists():
        with np.load(args.out) as file_:
            known = np.stack([file_["distance"], file_["logprob"]])
            base = np.stack([file_["base_distance"], file_["base_logprob"]])
    if args.truly:
        print(agreement(args.truly, base[0] - known[0]))
        return
    began = time.perf_counter()
    with Looks(file, prefixes, targets, Settings()) as looks:
        while (done := known.shape[1]) < n and time.perf_counter() - began < 3600 * args.hours:
            size = min(done + STEP, n)
            grown = np.empty((2, size, size))
            grown[:, :done, :done] = known
            grown[:, done:, :done] = looks.pairs(range(done, size), range(done))
            grown[:, :, done:] = looks.pairs(range(size), range(done, size))
            known, base = grown, np.concatenate([base, looks.alone(range(done, size))], axis=1)
            np.savez(
                args.out,
                **dict(zip(("distance", "logprob"), known, strict=True)),
                **dict(zip(("base_distance", "base_logprob"), base, strict=True)),
                **{field: np.array([line[field] for line in lines[:size]]) for field in ("prompt", "response")},
            )
            seconds = time.perf_counter() - began
            print(f"{size} x {size}: {looks.tokens:,} tokens in {seconds:,.0f} s", flush=True)


if __name__ == "__main__":
    main()
