"""A cheaper look at a pair: does it say enough of the utility to choose pairs, or records, by it?

    python -m tests.bench.cheap_look                     # 100 x 100 pairs of the P3 sample

A target's prompt is evaluated once, without an example. To look at a pair, its cells and those of the example are put
into one sequence, the prompt moved behind the longest example, and only the response is evaluated: its tokens see the
example, the prompt that they answer has not seen it. The same pairs are scored in full, and it is said what each costs,
how well one agrees with the other, and what subsets chosen by either are worth at what cost.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import llama_cpp
import numpy as np

from delift_cli.budget import plan
from delift_cli.budget.proposals import propose
from delift_cli.cache.dense import Cache
from delift_cli.data.reading import read_records
from delift_cli.data.record import RecordSet
from delift_cli.model.converted import converted
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import MAX_SEQUENCES, Model, Settings
from delift_cli.model.logprob import token_logprobs
from delift_cli.model.places import locate
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.encoding import encode_examples, encode_targets
from delift_cli.prompt.template import Target, Tokens
from delift_cli.scoring.embeddings import embed
from tests.bench.budget import COLUMNS, DATA, Judge, dense, fill, score_with
from tests.evidence.stats import rank_correlation

POOL = DATA / "p3_6k.jsonl"
GROUP, SHOWN = 20, 8  # prompts and examples that are held at a time: each token of a response looks past all of them
FREE = GROUP + SHOWN  # the first sequence for a pair


def look(file: ModelFile, records: RecordSet, settings: Settings) -> tuple[np.ndarray, int, float]:
    """Distances float64 [example, target] of the cheap look, tokens evaluated, seconds."""
    template = load_template(None, file.template, file.vocabulary)
    began = time.perf_counter()
    with Looks(
        file,
        encode_examples(records, template, limit=None).prefixes,
        encode_targets(records, template, limit=None).targets,
        settings,
    ) as looks:
        distance, _ = looks.pairs(range(len(looks.prefixes)), range(len(looks.targets)))
        return distance, looks.tokens, time.perf_counter() - began


class Looks:
    """A model that looks at pairs of some examples and some targets.

    Prompts of targets are sequences 0, 1, and so on, examples those from `GROUP` on, pairs those from `FREE` on. An
    example is evaluated once; its state is kept and laid before each group of targets.
    """

    def __init__(self, file: ModelFile, prefixes: Sequence[Tokens], targets: Sequence[Target], settings: Settings):
        self.prefixes, self.targets = prefixes, targets
        self.offset = max(map(len, prefixes))  # where every target's prompt begins
        longest = max(len(target.alone) for target in targets)
        self.model = Model(file, settings, cells=GROUP * longest + SHOWN * self.offset + settings.batch)
        self.states: dict[int, ctypes.Array[ctypes.c_uint8]] = {}
        self.tokens = 0

    def __enter__(self) -> Looks:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.model.close()

    def alone(self, targets: Sequence[int]) -> np.ndarray:
        """Distances and mean log-probabilities float64 [2, target] without an example."""
        found = []
        for at in targets:
            self.model.clear()
            target = self.targets[at]
            self.tokens += _evaluate(self.model, target.alone[:-1], 0, 0)
            found += _responses(self.model, [Pair(target, 0, None)], len(target.alone) - len(target.after))
        return np.transpose(found)

    def pairs(self, examples: Sequence[int], targets: Sequence[int]) -> np.ndarray:
        """Distances and mean log-probabilities float64 [2, example, target]."""
        out = np.empty((2, len(examples), len(targets)))
        for start in range(0, len(targets), GROUP):
            group = [self.targets[at] for at in targets[start : start + GROUP]]
            self._hold(group)
            for first in range(0, len(examples), SHOWN):
                shown = examples[first : first + SHOWN]
                for place, example in enumerate(shown):
                    self._show(example, GROUP + place)
                pairs = [Pair(group[at], at, GROUP + row) for row in range(len(shown)) for at in range(len(group))]
                found: list[tuple[float, float]] = []
                for batch in _batches(pairs, self.model.settings.batch):
                    found += _responses(self.model, batch, self.offset)
                self.tokens += sum(len(pair.target.response) for pair in pairs)
                block = np.transpose(found).reshape(2, len(shown), len(group))
                out[:, first : first + len(shown), start : start + len(group)] = block
                for place in range(len(shown)):
                    self.model.drop_sequence(GROUP + place)
        return out

    def _hold(self, group: list[Target]) -> None:
        """The prompts of some targets, without what comes before all of them, behind the longest example."""
        self.model.clear()
        for sequence, target in enumerate(group):
            self.tokens += _evaluate(self.model, target.alone[:-1], 0, sequence)
            system = len(target.alone) - len(target.after)
            llama_cpp.llama_memory_seq_rm(self.model._memory, sequence, 0, system)
            llama_cpp.llama_memory_seq_add(self.model._memory, sequence, system, -1, self.offset - system)

    def _show(self, example: int, sequence: int) -> None:
        context = self.model._context
        if example in self.states:
            state = self.states[example]
            if llama_cpp.llama_state_seq_set_data(context, state, len(state), sequence) == 0:
                raise RuntimeError(f"the state of example {example} does not fit")
            return
        self.tokens += _evaluate(self.model, self.prefixes[example], 0, sequence)
        state = (ctypes.c_uint8 * llama_cpp.llama_state_seq_get_size(context, sequence))()
        llama_cpp.llama_state_seq_get_data(context, state, len(state), sequence)
        self.states[example] = state


class Pair(NamedTuple):
    """A target, the sequence that holds its prompt, and that of the example before it, if any."""

    target: Target
    prompt: int
    example: int | None


def _batches(pairs: list[Pair], room: int) -> Iterator[list[Pair]]:
    """As many responses at a time as fit a batch."""
    batch: list[Pair] = []
    size = 0
    for pair in pairs:
        if batch and (size + len(pair.target.response) > room or len(batch) == MAX_SEQUENCES - FREE):
            yield batch
            batch, size = [], 0
        batch.append(pair)
        size += len(pair.target.response)
    yield batch


def _evaluate(model: Model, text: np.ndarray, position: int, sequence: int) -> int:
    for a in range(0, len(text), model.settings.batch):
        part = np.asarray(text[a : a + model.settings.batch], np.int32)
        places = np.arange(position + a, position + a + len(part), dtype=np.int32)
        one = np.ones(len(part), np.int32)
        model.decode(part, places, sequence * one, one, np.zeros(len(part), bool))
    return len(text)


def _responses(model: Model, pairs: list[Pair], offset: int) -> list[tuple[float, float]]:
    """Distance and mean log-probability of each pair."""
    read, places, sequences, expected, owner = [], [], [], [], []
    for number, (target, prompt, example) in enumerate(pairs):
        if example is not None:
            model.copy_sequence(example, FREE + number)
        model.copy_sequence(prompt, FREE + number)
        own = [target.alone[-1], *target.response[:-1]]
        first = offset + len(target.after) - 1
        read += own
        places += range(first, first + len(own))
        sequences += [FREE + number] * len(own)
        expected += target.response.tolist()
        owner += [number] * len(own)
    count = len(read)
    one = np.ones(count, np.int32)
    logits = model.decode(
        np.array(read, np.int32), np.array(places, np.int32), np.array(sequences, np.int32), one, one.astype(bool)
    )
    logprob = token_logprobs(logits, np.arange(count), np.array(expected, np.int32))
    for number in range(len(pairs)):
        model.drop_sequence(FREE + number)
    each = np.bincount(owner)
    distance = np.sqrt(np.bincount(owner, (1 - np.exp(logprob)) ** 2) / each)
    return list(zip(distance.tolist(), (np.bincount(owner, logprob) / each).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=POOL)
    parser.add_argument("--work", type=Path, default=Path("cheap-look"), help="folder of the pool and its cache")
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pool, path = args.work / "pool.jsonl", args.work / "pool.delift"
    lines = args.data.read_text(encoding="utf-8").splitlines()
    pool.write_text("".join(line + "\n" for line in random.Random(0).sample(lines, args.records)), encoding="utf-8")
    command = [sys.executable, "-m", "delift_cli", "score", str(pool), "-o", str(path), "--weights", "bf16", "--json"]
    summary = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    given = ModelFile(locate(None))
    file = converted(given, given.identity()["sha256"], "bf16", threads=Settings().resolved_threads())
    records = read_records(str(pool))
    distance, tokens, seconds = look(file, records, Settings())
    cache = Cache(path)
    true = (cache.base_distance - cache.distance).astype(float)
    cheap = cache.base_distance - distance
    n = len(true)
    off = ~np.eye(n, dtype=bool)
    if summary["pairs_scored"]:
        print(f"in full: {summary['tokens_evaluated']:,} tokens, {summary['seconds']:.0f} s")
    print(f"cheap:   {tokens:,} tokens, {seconds:.0f} s")
    print(
        f"correlation {np.corrcoef(true[off], cheap[off])[0, 1]:.3f}; by ranks within a target "
        f"{np.mean([rank_correlation(true[off[:, i], i], cheap[off[:, i], i]) for i in range(n)]):.3f}, "
        f"within an example {np.mean([rank_correlation(true[j, off[j]], cheap[j, off[j]]) for j in range(n)]):.3f}"
    )

    # What subsets are worth, as in tests/bench/budget.py.
    judge, key = Judge(true), np.arange(n)
    values = [(json.loads(line)["prompt"], json.loads(line)["response"]) for line in pool.read_text().splitlines()]
    prompts, responses = map(list, zip(*values, strict=True))
    template = load_template(None, file.template, file.vocabulary)
    texts = encode_examples(records, template, limit=None).prefixes
    with Model(file, Settings(), cells=max(map(len, texts)) + Settings().batch, embeddings=True) as model:
        embeddings = embed(model, texts)
    print(f"{'':44}" + "".join(f"{column:>12}" for column in COLUMNS))
    own = np.where(off, cheap, true)  # self-pairs measured

    def say(name: str, found: list[np.ndarray]) -> None:
        print(f"{name:44}" + "".join(f"{value:12.3f}" for value in np.mean(found, 0)))

    say("cheap looks at all pairs, nothing else", [judge(own)])
    for share in (0.05, 0.1, 0.2):
        budget = round(share * n * n)
        ours = propose((prompts, responses), None, budget, key, key, (embeddings, embeddings))
        order = np.argsort(np.where(off, -cheap, np.inf), axis=0, kind="stable").T[:, : ours.nearest.shape[1]]
        proposed = replace(ours, nearest=order.astype(np.int32))
        for name, proposals in (("text and embeddings propose", ours), ("cheap looks propose", proposed)):
            found = []
            for seed in range(args.seeds):
                scored, _, _ = score_with(true, proposals, budget, seed)
                found.append(judge(fill(scored, dense(plan.fit_scored(proposals, scored, seed), 2.0))))
            say(f"{share:.0%} of the pairs, {name}", found)
        taken = np.unravel_index(np.argsort(-np.where(off, cheap, -np.inf), axis=None)[: budget - n], (n, n))
        known = own.copy()
        known[taken] = true[taken]
        say(f"{share:.0%} of the pairs, the best cheap ones", [judge(known)])


if __name__ == "__main__":
    main()
