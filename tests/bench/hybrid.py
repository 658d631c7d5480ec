"""How fast models with whole states are scored beside what their prompt processing gives, and how many tokens it takes.

    python -m tests.bench.hybrid                   lfm2, granitehybrid, falcon-h1, qwen3next, mamba2
    python -m tests.bench.hybrid lfm2 --seconds 20 --json

Random weights of some tens of millions of parameters; samples/pool.jsonl as records. The raw rate is that of one
sequence that fills each batch, with the logits of as large a share of its tokens as scoring asks for; both are measured
in turn, for machines drift, and the share is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from delift_cli.data.reading import read_records
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings
from delift_cli.prompt.builtin import load_template
from delift_cli.scoring import job
from delift_cli.scoring.pairs import cells_needed, common_start, row_scorer
from delift_cli.scoring.way import STATES

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from gguf_architectures import write_architecture  # noqa: E402

WIDTH, HEADS, LAYERS, INNER = 1024, 16, 4, 3072
RECORDS = 24  # of the samples, each before all of them
RAW = 4  # full batches for each row
ATTENTION = 4  # one layer in so many attends, where an architecture leaves it open
EXPERTS = {"qwen3next": True}
SHAPES: dict[str, dict[str, Any]] = {
    "lfm2": {},
    "granitehybrid": {"ssm.time_step_rank": 32, "ssm.state_size": 64, "ssm.group_count": 1},
    "falcon-h1": {"ssm.time_step_rank": 32, "ssm.state_size": 64, "ssm.group_count": 1},
    "qwen3next": {"ssm.inner_size": 1024, "ssm.time_step_rank": 8, "ssm.group_count": 8, "feed_forward_length": 768},
    "mamba2": {"ssm.time_step_rank": 32, "ssm.state_size": 64, "ssm.group_count": 1},
}


def shape(architecture: str) -> dict[str, Any]:
    """Metadata that make a tiny model of an architecture a small one."""
    heads = [HEADS if layer % ATTENTION == 0 else 0 for layer in range(LAYERS)]
    partly = architecture in ("lfm2", "granitehybrid")
    return {
        "embedding_length": WIDTH,
        "block_count": LAYERS,
        "feed_forward_length": INNER,
        "attention.head_count": heads if partly and architecture != "lfm2" else HEADS,
        "attention.head_count_kv": heads if partly else HEADS,
        "rope.dimension_sections": [WIDTH // HEADS // 4] * 4,
        "ssm.inner_size": 2 * WIDTH,
        "expert_feed_forward_length": 384,
        "expert_shared_feed_forward_length": 384,
        **SHAPES[architecture],
    }


def measure(architecture: str, folder: Path, settings: Settings, seconds: float) -> dict[str, Any]:
    """Rates and tokens of one architecture."""
    path = folder / f"{architecture}.gguf"
    write_architecture(path, architecture, experts=EXPERTS.get(architecture, False), changes=shape(architecture))
    file = ModelFile(path)
    records = read_records(str(ROOT / "samples" / "pool.jsonl"))
    records = replace(records, records=records.records[:RECORDS])
    template = load_template(None, file.template, file.vocabulary)
    inputs = job.prepare(records, None, template, context=4096, truncate=False, skip_invalid=False)
    examples, targets = inputs.encoded_examples, inputs.target_tokens
    cells = cells_needed(examples.prefixes, targets, settings.batch)
    ours, raw, whole = [0, 0.0], [0, 0.0], 0
    with Model(file, settings, cells=cells) as model:
        parameters, shares = path.stat().st_size // 4, []
        scorer = row_scorer(model, threading.Event())
        scorer.keep_head(common_start(examples.prefixes))
        layout, _ = targets.behind(examples.systems[0], targets.all, scorer.lay_out)
        asked = len(layout.edge_token) / len(layout.tokens)
        scorer.row(examples.prefixes[0], layout)  # warms up
        rows, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            prefix, system = (
                examples.prefixes[rows % len(examples.prefixes)],
                examples.systems[rows % len(examples.prefixes)],
            )
            layout, _ = targets.behind(system, targets.all, scorer.lay_out)
            before, started = scorer.tokens, time.perf_counter()
            scorer.row(prefix, layout)
            took, tokens = time.perf_counter() - started, scorer.tokens - before
            raw_took, raw_tokens = raw_batches(model, asked, RAW), RAW * settings.batch
            ours[0], ours[1] = ours[0] + tokens, ours[1] + took
            raw[0], raw[1] = raw[0] + raw_tokens, raw[1] + raw_took
            shares.append(tokens / took / (raw_tokens / raw_took))
            whole += len(prefix) + int((targets.lengths - 1).sum())
            scorer.keep_head(common_start(examples.prefixes))
            rows += 1
    path.unlink()
    return {
        "architecture": architecture,
        "parameters": parameters,
        "raw_tokens_per_second": raw[0] / raw[1],
        "tokens_per_second": ours[0] / ours[1],
        "share_of_raw": float(np.median(shares)),
        "shares": [round(share, 3) for share in sorted(shares)],
        "tokens_over_prefixes_and_whole_targets": ours[0] / whole,
        "decodes_a_row": len(layout.blocks) + 1,
    }


def raw_batches(model: Model, asked: float, count: int) -> float:
    """Seconds for `count` full batches, each a sequence of its own, with the logits of a share of the tokens."""
    size = model.settings.batch
    tokens = np.random.default_rng(0).integers(0, model.vocabulary_size, size).astype(np.int32)
    places, one = np.arange(size, dtype=np.int32), np.ones(size, np.int32)
    outputs = np.diff(np.floor(np.arange(size + 1) * asked)).astype(np.bool_)
    started = time.perf_counter()
    for _ in range(count):
        model.clear()
        model.decode(tokens, places, 0 * one, one, outputs)
    return time.perf_counter() - started


def say(row: dict[str, Any]) -> None:
    tokens = row["tokens_over_prefixes_and_whole_targets"]
    print(
        f"{row['architecture']}: {row['parameters'] / 1e6:.0f} M parameters, raw {row['raw_tokens_per_second']:,.0f} "
        f"tokens/s, scoring {row['tokens_per_second']:,.0f}; in the median of {len(row['shares'])} turns "
        f"{row['share_of_raw']:.2f} of it ({row['shares'][0]:.2f} to {row['shares'][-1]:.2f}); tokens evaluated "
        f"{tokens:.3f} × (prefixes + whole targets), {row['decodes_a_row']} decodes a row",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", nargs="*", default=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=8.0, help="for each architecture")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in options.architecture:
            settings = Settings(threads=options.threads, batch=options.batch, states=STATES)
            found.append(measure(architecture, Path(folder), settings, options.seconds))
            if not options.json:
                say(found[-1])
    if options.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
