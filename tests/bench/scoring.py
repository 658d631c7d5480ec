"""Scoring beside what it is compared with, all in one run: other roads, the raw rate, the reference, the tokens.

    python -m tests.bench.scoring                      everything that needs no extra package
    python -m tests.bench.scoring roads contract       some parts
    python -m tests.bench.scoring --json > out.json

Parts:
    reference   rows 0 to 9 of pool200 against the reference results, where they are at hand
    contract    batched against one sequence at a time, on F32, BF16 and the shipped weights
    roads       pairs/s and tokens/s beside the high-level loop, the careful loop and raw prompt processing
    auto        the same with --weights auto against loops on the shipped weights
    tokens      tokens evaluated against the least possible
    shapes      random weights with the shapes and vocabularies of larger models
    transformers    (needs torch, transformers) the published code's kind of loop
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from delift_cli.data.reading import read_records
from delift_cli.data.record import Message, Record, RecordSet
from delift_cli.model import high_level
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings, quantize
from delift_cli.model.places import locate
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.encoding import EncodedExamples
from delift_cli.prompt.trie import Sequences, build_trie
from delift_cli.scoring import job, throughput
from delift_cli.scoring.pairs import TargetTokens, cells_needed, common_start, row_scorer
from tests.bench import baselines, shapes

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
PARTS = ("reference", "contract", "roads", "auto", "tokens", "shapes")


@dataclass
class Block:
    """A block ready to score, and its measured rows."""

    file: ModelFile
    inputs: job.Inputs
    targets: TargetTokens


def block(file: ModelFile, examples: RecordSet, targets: RecordSet) -> Block:
    template = load_template(None, file.template, file.vocabulary)
    inputs = job.prepare(examples, targets, template, context=file.context, truncate=False, skip_invalid=False)
    return Block(file, inputs, TargetTokens(inputs.encoded_targets))


def our_rows(made: Block, settings: Settings, between: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Distances and log-probabilities of the whole block, and how fast they came, targets without example apart.

    `between` is called after each row and not timed: what is compared with our rate is measured there, for machines
    drift.
    """
    examples = made.inputs.encoded_examples
    cells = cells_needed(examples.prefixes, made.targets, settings.batch)
    with Model(made.file, settings, cells=cells) as model:
        scorer = row_scorer(model, threading.Event())
        base = scorer.alone(made.targets.alone, np.arange(made.targets.count))
        scorer.keep_head(common_start(examples.prefixes))
        shape = (len(examples.prefixes), made.targets.count)
        distance, logprob = np.empty(shape), np.empty(shape)
        scorer.tokens, scorer.decode_seconds, scorer.reduce_seconds = 0, 0.0, 0.0
        seconds = 0.0
        for row, (prefix, system) in enumerate(zip(examples.prefixes, examples.systems, strict=True)):
            started = time.perf_counter()
            trie, order = made.targets.behind(system, made.targets.all, scorer.lay_out)
            distance[row, order], logprob[row, order] = scorer.row(prefix, trie)
            seconds += time.perf_counter() - started
            between()
    return {
        "base_distance": base.distance,
        "distance": distance,
        "logprob": logprob,
        "pairs_per_second": distance.size / seconds,
        "tokens_per_second": scorer.tokens / seconds,
        "decode_share": scorer.decode_seconds / seconds,
        "reduction_share": scorer.reduce_seconds / seconds,
        "other_share": 1 - (scorer.decode_seconds + scorer.reduce_seconds) / seconds,
    }


def measure_raw(file: ModelFile, settings: Settings, found: list[float]) -> None:
    found.append(throughput.raw_rate(file, settings, seconds=2.0))


def prefix_shared_tokens(made: Block) -> float:
    """Tokens a pair when each example's prefix is evaluated once and targets share nothing else."""
    prefixes = made.inputs.encoded_examples.prefixes
    sequences = made.targets.lengths - 1
    return float(sum(map(len, prefixes)) / (len(prefixes) * made.targets.count) + sequences.mean())


def speeds(rows: dict[str, Any]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in rows.items() if np.ndim(value) == 0}


def head(records: RecordSet, count: int) -> RecordSet:
    return replace(records, records=records.records[:count])


def sample_pairs(made: Block, count: int) -> tuple[list[high_level.Pair], list[tuple[int, int]]]:
    """`count` pairs spread over the block with their places."""
    n, m = made.inputs.shape
    picks = np.random.default_rng(0).choice(n * m, size=min(count, n * m), replace=False)
    places = [divmod(int(pick), m) for pick in picks]
    return throughput.some_pairs(made.inputs.encoded_examples, made.inputs.encoded_targets, count), places


def careful(made: Block, pairs: list[high_level.Pair], settings: Settings) -> baselines.Result:
    longest = max(len(pair.context) + len(pair.response) for pair in pairs)
    return baselines.careful_loop(
        made.file.path,
        [(pair.context.tolist(), pair.response.tolist()) for pair in pairs],
        baselines.Settings(threads=settings.resolved_threads(), n_batch=settings.batch, n_ctx=-(-longest // 256) * 256),
    )


def apart(ours: np.ndarray, others: np.ndarray) -> dict[str, float]:
    difference = np.abs(np.asarray(ours, np.float64) - others)
    return {"mean": float(f"{difference.mean():.3g}"), "max": float(f"{difference.max():.3g}")}


# ---------------------------------------------------------------------- parts


def reference(models: dict[str, ModelFile], pool: RecordSet, settings: Settings) -> dict[str, Any]:
    file = SHARED / "pool200_reference.npz"
    if not file.exists():
        return {"skipped": "the reference results are not at hand"}
    known = np.load(file)
    made = block(models["bf16"], head(pool, 10), pool)
    ours = our_rows(made, settings)
    return {
        "base_distance": apart(ours["base_distance"], known["base_distance"]),
        "distance": apart(ours["distance"], known["distance"][:10]),
        "logprob": apart(ours["logprob"], known["logprob"][:10]),
    }


def contract(models: dict[str, ModelFile], pool: RecordSet, settings: Settings) -> dict[str, Any]:
    found = {}
    for weights, file in models.items():
        made = block(file, head(pool, 4), head(pool, 50))
        ours = our_rows(made, settings)
        pairs, places = sample_pairs(made, 60)
        alone = careful(made, pairs, settings)
        rows, columns = np.array(places).T
        found[weights] = {
            "distance": apart(ours["distance"][rows, columns], alone.distance),
            "logprob": apart(ours["logprob"][rows, columns], alone.logprob),
        }
    return found


def roads(models: dict[str, ModelFile], pool: RecordSet, settings: Settings) -> dict[str, Any]:
    """The block of issue and README: 10 examples by all targets, every road on the same BF16 weights."""
    made = block(models["bf16"], head(pool, 10), pool)
    raws: list[float] = []
    ours = our_rows(made, settings, partial(measure_raw, made.file, settings, raws))
    raw = float(np.mean(raws))
    pairs, places = sample_pairs(made, 60)
    one_by_one = careful(made, pairs, settings)
    high = high_level.high_level_loop(made.file, settings, pairs[:6])
    rows, columns = np.array(places).T
    return {
        "ours": speeds(ours),
        "careful_loop": {
            "pairs_per_second": one_by_one.pairs_per_second,
            "tokens_per_second": one_by_one.tokens_per_second,
        },
        "high_level_loop": {
            "pairs_per_second": high.pairs_per_second,
            "tokens_per_second": high.tokens_per_second,
        },
        "raw_tokens_per_second": raw,
        "ratios": {
            "to_high_level_loop": ours["pairs_per_second"] / high.pairs_per_second,
            "to_careful_loop": ours["pairs_per_second"] / one_by_one.pairs_per_second,
            "to_raw": ours["tokens_per_second"] / raw,
            # the same pairs, counting the tokens that sharing the prefix alone would leave
            "to_raw_without_trie": ours["pairs_per_second"] * prefix_shared_tokens(made) / raw,
        },
        "distance_from_careful_loop": apart(ours["distance"][rows, columns], one_by_one.distance),
    }


def auto(models: dict[str, ModelFile], pool: RecordSet, settings: Settings) -> dict[str, Any]:
    """What a user gets by default, against loops on the file as it was shipped."""
    shipped = block(models["as-is"], head(pool, 10), pool)
    engine = job.choose_engine(
        shipped.file,
        shipped.file.identity()["sha256"],
        "auto",
        Settings(threads=settings.threads),
        batch=None,
        inputs=shipped.inputs,
        cache=None,
        say=lambda text: print(text, file=sys.stderr),
    )
    ours = our_rows(replace(shipped, file=engine.file), engine.settings)
    pairs, _ = sample_pairs(shipped, 40)
    one_by_one = careful(shipped, pairs, settings)
    high = high_level.high_level_loop(shipped.file, settings, pairs[:6])
    return {
        "weights": engine.weights,
        "batch": engine.settings.batch,
        "deviation": engine.deviation,
        "ours": speeds(ours),
        "careful_loop_pairs_per_second": one_by_one.pairs_per_second,
        "high_level_loop_pairs_per_second": high.pairs_per_second,
        "ratios": {
            "to_high_level_loop": ours["pairs_per_second"] / high.pairs_per_second,
            "to_careful_loop": ours["pairs_per_second"] / one_by_one.pairs_per_second,
        },
    }


def tokens(models: dict[str, ModelFile], pool: RecordSet, settings: Settings) -> dict[str, Any]:
    """Tokens that our stream evaluates over the unique tokens of the trie of every pair's sequence."""
    file = models["as-is"]
    sets = {"pool": pool}
    if (SHARED / "p3_6k.jsonl").exists():
        sets["p3_6k, first 300"] = head(read_records(SHARED / "p3_6k.jsonl"), 300)
    rules = " ".join(f"Rule {number}: answer as briefly as the question allows." for number in range(1, 28))
    sets["a long system message"] = replace(pool, records=[with_system(record, rules) for record in pool.records[:100]])
    found = {}
    for name, records in sets.items():
        made = block(file, records, records)
        evaluated, plain = job.expected_tokens(made.inputs)
        least = unique_tokens(made.inputs.encoded_examples, made.targets)
        found[name] = {
            "evaluated": evaluated,
            "one_by_one": plain,
            "unique": least,
            "over_unique": evaluated / least,
        }
    return found


def with_system(record: Record, text: str) -> Record:
    return replace(record, turns=(Message("system", text), *record.turns))


def unique_tokens(examples: EncodedExamples, targets: TargetTokens) -> int:
    """Evaluated tokens of one trie over every (example, target) sequence: the prefixes' trie, and the targets'
    trie once behind each distinct prefix."""
    whole = Sequences.join([(prefix, prefix[-1:]) for prefix in examples.prefixes])
    prefix_trie = len(build_trie(whole, whole.sorted_order()).tokens)
    distinct = {(prefix.tobytes(), system) for prefix, system in zip(examples.prefixes, examples.systems, strict=True)}
    return prefix_trie + sum(len(targets.behind(system, targets.all)[0].tokens) for _, system in distinct)


def large(models: dict[str, ModelFile], pool: RecordSet, settings: Settings) -> dict[str, Any]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in shapes.SHAPES.items():
            path = shapes.make(Path(folder) / f"{name}.gguf", shape, "bf16")
            made = block(ModelFile(path), head(pool, 2), head(pool, 60))
            raws: list[float] = []
            ours = our_rows(made, settings, partial(measure_raw, made.file, settings, raws))
            raw = float(np.mean(raws))
            found[name] = {**speeds(ours), "raw_tokens_per_second": raw, "to_raw": ours["tokens_per_second"] / raw}
            path.unlink()
    return found


def transformers(models: dict[str, ModelFile], pool: RecordSet, settings: Settings) -> dict[str, Any]:
    made = block(models["as-is"], head(pool, 10), pool)
    pairs, _ = sample_pairs(made, 64)
    result = baselines.transformers_loop(
        made.file.path,
        [(pair.context.tolist(), pair.response.tolist()) for pair in pairs],
        baselines.Settings(threads=settings.resolved_threads()),
    )
    ours = our_rows(block(models["bf16"], head(pool, 10), pool), settings)
    return {
        "ours_bf16": speeds(ours),
        "transformers_pairs_per_second": result.pairs_per_second,
        "ratio": ours["pairs_per_second"] / result.pairs_per_second,
    }


ALL = {
    "reference": reference,
    "contract": contract,
    "roads": roads,
    "auto": auto,
    "tokens": tokens,
    "shapes": large,
    "transformers": transformers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(ALL)}; default all but the last")
    parser.add_argument("--data", type=Path, help="records; default pool200 where at hand, else samples/pool.jsonl")
    parser.add_argument("-m", "--model", help="a GGUF file; default the small default model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(ALL)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    data = arguments.data or next(
        path for path in (SHARED / "pool200.jsonl", ROOT / "samples" / "pool.jsonl") if path.exists()
    )
    settings = Settings(threads=arguments.threads, batch=arguments.batch)
    pool = read_records(data)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = {"as-is": ModelFile(locate(arguments.model))}
        for weights in ("f32", "bf16"):
            path = Path(folder) / f"{weights}.gguf"
            quantize(models["as-is"].path, path, weights, threads=settings.resolved_threads())
            models[weights] = ModelFile(path)
        for part in arguments.parts or PARTS:
            started = time.perf_counter()
            results[part] = ALL[part](models, pool, settings)
            print(f"{part} ({time.perf_counter() - started:.0f} s)", file=sys.stderr)
            print(json.dumps(results[part], indent=2), file=sys.stderr, flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
