"""One run: the chosen records of a pool to training, and the held-out ones to what the report compares."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from delift_cli.data.reading import read_records
from delift_cli.errors import RunError
from delift_cli.model.gguf import ModelFile
from tests.evidence import peers, scored
from tests.evidence.lora import Tokens, Tuner, encode
from tests.evidence.pools import Pool
from tests.evidence.runs import Run

CHECKED = 24  # records whose losses must be what delift measured
AGREEMENT = 0.1  # mean difference allowed, nats per token: bfloat16 activations here, float32 there (seen: 0.05)
PACKAGES = ("delift-cli", "torch", "transformers", "peft", "llama-cpp-python")


class Tuning:
    """A model and the pools as tokens."""

    def __init__(self, tuner: Tuner, file: ModelFile, pools: dict[str, Pool]) -> None:
        self.tuner, self.file, self.pools = tuner, file, pools
        self.precision = str(tuner.precision).removeprefix("torch.")
        self.versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {
            "python": platform.python_version(),
            "device": str(tuner.device),
            "precision": self.precision,
        }
        self.tokens = cache(self._encode)
        self._tuned_before = cache(self._tune_before)
        self._check = cache(self._check_base)

    def __call__(self, run: Run, chosen: list[str]) -> dict[str, Any]:
        """Train on the chosen records of the run's pool, in the pool's order, and test."""
        self._check(run.pool)
        if run.stage == "continual":
            self.tuner.restore(self._tuned_before(run.pool, run.training_seed))
        else:
            self.tuner.reset(run.training_seed)
        took: dict[str, Any] = {"steps": 0, "tokens": 0, "seconds": 0.0, "loss": None}
        if chosen:
            wanted = set(chosen)
            records = [t for name, t in self.tokens(run.pool, "pool").items() if name in wanted]
            took = self.tuner.train(records, seed=run.training_seed, epochs=run.epochs)._asdict()
        tested = {part: self._tested(run.pool, part, with_tasks=not chosen) for part in run.tested}
        return {**took, **tested, "versions": self.versions}

    def chosen_by_peer(self, run: Run, like: Callable[[], Sequence[str]]) -> list[str]:
        """The ids that a way of `tests.evidence.peers` chooses; `like` says what `delift` chose."""
        assert run.variant is not None
        pool, peer = self.pools[run.pool], run.variant.peer
        if peer == "originals":
            return peers.originals(pool)
        records = self.tokens(run.pool, "pool")
        k = round(float(run.size.rstrip("%")) / 100 * len(records))
        if peer == "tokens":
            lengths = {name: len(tokens.context) + len(tokens.response) for name, tokens in records.items()}
            return peers.by_tokens(lengths, like(), run.selection_seed)
        if peer == "states":
            self.tuner.reset(0)
            aims = list(self.tokens(run.pool, "target" if run.stage == "task-specific" else "heldout").values())
            sides = (self.tuner.states(side) for side in (list(records.values()), aims[: peers.SEEN]))
            return [list(records)[place] for place in peers.by_states(*sides, k)]
        matrix = peers.seen(pool)
        return peers.by_influence(matrix, k) if peer == "influence" else peers.by_curve(matrix, peer, k)

    def _tested(self, pool: str, part: str, *, with_tasks: bool) -> dict[str, Any]:
        """`with_tasks`: what every run of the pool would repeat."""
        measured = self.tuner.test(list(self.tokens(pool, part).values()))
        told = {**measured._asdict(), "loss": [round(loss, 5) for loss in measured.loss]}
        if with_tasks:
            told["tasks"] = [record["task"] for record in self.pools[pool].records(part)]
        return told

    def _encode(self, pool: str, part: str) -> dict[str, Tokens]:
        records = read_records(str(self.pools[pool].path(part)))
        return dict(zip((r.id for r in records.records), encode(self.file, records), strict=True))

    def _tune_before(self, pool: str, seed: int) -> dict[str, torch.Tensor]:
        """LoRA weights of a model that has learnt the existing data."""
        self.tuner.reset(seed)
        self.tuner.train(list(self.tokens(pool, "existing").values()), seed=seed)
        return self.tuner.state()

    def _check_base(self, pool: str) -> None:
        """RunError unless the model in torch says of the pool's records what it said in llama.cpp."""
        path = scored.cache(self.pools[pool], "POOL") / "base_logprob.npy"
        records = list(self.tokens(pool, "pool").values())[:CHECKED]
        self.tuner.reset(0)
        measured = self.tuner.test(records)
        here = -np.array(measured.loss) / measured.tokens
        difference = float(np.abs(here - np.load(path)[: len(records)]).mean())
        if not difference <= AGREEMENT:
            raise RunError(
                f"{pool}: log-probabilities without training differ by {difference:.3f} nats per token between torch "
                f"and {path}, more than {AGREEMENT}: not the same model or not the same text"
            )


def load(gguf: Path, pools: dict[str, Pool], *, device: str, threads: int, precision: str | None = None) -> Tuning:
    """The model for training, on `device` ("cpu", "cuda"), in "float32", "bfloat16" or None: what is quick there."""
    kind = None if precision is None else getattr(torch, precision)
    return Tuning(Tuner(gguf, device=device, precision=kind, threads=threads), ModelFile(gguf), pools)
