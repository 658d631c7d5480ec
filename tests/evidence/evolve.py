"""Score, train on the 30 % that are chosen, score again as the model is then: `make evolve`.

    python -m tests.evidence.evolve samples/pool.jsonl [--share 30%] [--epochs 3] [--threads 2] [-o evolve]

What is written: before.delift, subset.jsonl, adapter.gguf, after.delift, and on stdout, as JSON, how far the model has
moved and how far the two selections differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

import delift_cli
from delift_cli.data.reading import read_records
from delift_cli.evaluation.moved import moved
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Settings
from delift_cli.model.places import locate
from tests.evidence import adapter
from tests.evidence.lora import ALPHA, Tuner, encode

AGREEMENT = 0.1  # mean difference of losses between torch with the LoRA and llama.cpp with it, nats per token


def evolve(pool: Path, out: Path, *, model: str | None, share: str, epochs: int, threads: int) -> dict[str, Any]:
    """Everything, and the figures."""
    out.mkdir(parents=True, exist_ok=True)
    settings = Settings(threads=threads)
    took: dict[str, float] = {}
    before = _timed(took, "score", lambda: _score(pool, out / "before.delift", model, settings))
    chosen = delift_cli.select_records(before, share)
    chosen.write(out / "subset.jsonl", input_order=True)
    places = chosen.selection.indices.tolist()
    path = locate(model)
    file = ModelFile(path)
    tuner = Tuner(path, threads=threads)
    records = encode(file, read_records(str(pool)))
    lessons = [records[place] for place in sorted(places)]
    trained = _timed(took, "train", lambda: tuner.train(lessons, seed=0, epochs=epochs))
    weights = {name: weight.detach().cpu().float().numpy() for name, weight in tuner.state().items()}
    lora = adapter.write(out / "adapter.gguf", weights, ALPHA, file.header)
    after = _timed(took, "score again", lambda: _score(pool, out / "after.delift", model, settings, str(lora)))
    again = delift_cli.select_records(after, share)
    tested = tuner.test(records)
    apart = float(np.abs(-np.array(tested.loss) / tested.tokens - after.base_logprob).mean())
    if apart > AGREEMENT:
        raise SystemExit(f"torch and llama.cpp are {apart:.3f} nats per token apart with the adapter")
    first, second = set(places), set(again.selection.indices.tolist())
    return {
        "pool": str(pool),
        "records": len(records),
        "chosen": len(first),
        "trained": trained._asdict(),
        "moved": moved(before, after).as_dict(),
        "chosen_again": len(first & second),
        "jaccard": len(first & second) / len(first | second),
        "by_chance": len(first) / len(records) * len(second),
        "loss_before": float(-before.base_logprob.mean()),
        "loss_after": float(-after.base_logprob.mean()),
        "torch_and_llama_apart": apart,
        "seconds": {name: round(seconds, 1) for name, seconds in took.items()},
    }


def _score(pool: Path, cache: Path, model: str | None, settings: Settings, *adapters: str) -> Any:
    def say(text: str) -> None:
        print(text, file=sys.stderr)

    done = delift_cli.score(str(pool), output=cache, model=model, settings=settings, adapters=adapters, say=say)
    return done.cache


def _timed(took: dict[str, float], name: str, work: Any) -> Any:
    print(f"{name} …", file=sys.stderr)
    began = time.monotonic()
    result = work()
    took[name] = time.monotonic() - began
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pool", type=Path, nargs="?", default=Path("samples/pool.jsonl"))
    parser.add_argument("-o", "--output", type=Path, default=Path("evolve"))
    parser.add_argument("-m", "--model")
    parser.add_argument("--share", default="30%")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=Settings().resolved_threads())
    args = parser.parse_args()
    found = evolve(args.pool, args.output, model=args.model, share=args.share, epochs=args.epochs, threads=args.threads)
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
