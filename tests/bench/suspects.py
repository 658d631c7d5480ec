"""Which figure finds spoiled answers: records are spoiled on purpose, and it is counted how well each figure tells.

    python -m tests.bench.suspects measure --minutes 7     # as often as it takes; goes on where it stopped
    python -m tests.bench.suspects table                   # what was measured, as the tables of samples/EVIDENCE.md

10, 20 and 40 % of the records of three pools of public data are spoiled in one of three ways: answers swapped inside a
task, answers cut off, answers replaced by boilerplate. The 10 % are among the 20 %, these among the 40 %, and pairs of
which neither record is spoiled are measured once. A record stands behind 8 others: its nearest by prompt, as `delift
score --budget` has them. Every version of a record is measured without an example too, with and without its prompt.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from delift_cli.amount import counted
from delift_cli.data import ngrams
from delift_cli.data.reading import parse_records
from delift_cli.data.record import Message, RecordSet
from delift_cli.model.converted import converted
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings
from delift_cli.model.places import locate
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.encoding import EncodedExamples, encode_examples, encode_targets
from delift_cli.scoring.measures import Measures
from delift_cli.scoring.pairs import Scoring, TargetTokens, Unit, cells_needed
from delift_cli.selection.suspects import judge
from tests.evidence.harder import BOILERPLATE, CUT, swaps
from tests.evidence.pools import Record, read_sources

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WAYS = ("swapped", "truncated", "boilerplate")
SHARES = (0.1, 0.2, 0.4)
NEIGHBOURS = 8
NO_EXAMPLES = EncodedExamples([], [])


class Pool(NamedTuple):
    """Records of one pool; `version` spoils one."""

    name: str
    records: list[Record]
    neighbours: np.ndarray  # int [n, NEIGHBOURS], the examples that each record is behind

    def spoiled(self, way: str, seed: int) -> tuple[list[int], dict[int, str]]:
        """Records in the order in which they are spoiled, and what becomes of their answers.

        The order is long enough for 40 % of the pool unless too few of its answers can be spoiled in this way.
        """
        draw = random.Random(f"{self.name} {way} {seed}")
        places = draw.sample(range(len(self.records)), len(self.records))
        answers = [record["response"] for record in self.records]
        if way == "swapped":
            return self._swapped(places, answers)
        if way == "truncated":
            places = [place for place in places if len(answers[place]) >= CUT]
            cut = {
                place: answers[place][: int(len(answers[place]) * draw.uniform(0.3, 0.7))].rstrip() for place in places
            }
            return places, cut
        return places, {place: draw.choice(BOILERPLATE) for place in places}

    def _swapped(self, places: list[int], answers: list[str]) -> tuple[list[int], dict[int, str]]:
        """Two and two of one task, whose answers differ."""
        order, new = [], {}
        for one, other in swaps(places, self.records):
            order += [one, other]
            new |= {one: answers[other], other: answers[one]}
        return order, new


def pools(data: Path) -> list[Pool]:
    sources = read_sources(data)
    draw = random.Random(0)

    def take(source: str, count: int, most: int) -> list[Record]:
        fitting = [
            r for r in sources[source] if len(r["prompt"]) + len(r["response"]) <= most and r["response"].strip()
        ]
        return draw.sample(fitting, count)

    by_task: dict[str, list[Record]] = defaultdict(list)
    fitting = sum(len(r["prompt"]) + len(r["response"]) <= 450 and bool(r["response"].strip()) for r in sources["p3"])
    for record in take("p3", fitting, 450):
        by_task[record["task"]].append(record)
    rich = sorted(
        task
        for task, records in by_task.items()
        if len(records) >= 10 and len({r["response"] for r in records[:10]}) > 1
    )
    p3 = [record for task in draw.sample(rich, 12) for record in by_task[task][:10]]
    made = {
        "p3": p3,
        "gsm8k": take("gsm8k-train", 80, 420),
        "instruct-code": take("instruct", 35, 500) + take("code", 35, 450),
    }
    return [Pool(name, records, nearest(records)) for name, records in made.items()]


def nearest(records: list[Record]) -> np.ndarray:
    """The nearest by prompt, which no way of spoiling changes."""
    vectors = ngrams.grams([r["prompt"] for r in records], [""] * len(records))
    own = np.arange(len(records))
    return ngrams.neighbours(vectors, vectors, NEIGHBOURS, own, own)[0]


class Versions:
    """All that becomes of a pool's records: version 0 as it is, then one for each way and seed."""

    def __init__(self, pool: Pool, seeds: int) -> None:
        self.pool, self.seeds = pool, seeds
        self.orders = {(way, seed): pool.spoiled(way, seed) for seed in range(seeds) for way in WAYS}
        n = len(pool.records)
        self.place: dict[tuple[int, int], int] = {(r, 0): r for r in range(n)}
        answers = [record["response"] for record in pool.records]
        owners = list(range(n))
        for number, (key, (order, new)) in enumerate(self.orders.items(), start=1):
            self.orders[key] = order[: round(SHARES[-1] * n)], new
            for r in self.orders[key][0]:
                self.place[r, number] = len(answers)
                answers.append(new[r])
                owners.append(r)
        self.owners = np.array(owners)
        lines = [
            json.dumps({"id": str(at), "prompt": pool.records[r]["prompt"], "response": answer or " "})
            for at, (r, answer) in enumerate(zip(owners, answers, strict=True))
        ]
        self.records: RecordSet = parse_records("\n".join(lines).encode() + b"\n", pool.name)
        assert len(self.records.records) == len(answers)

    def at(self, way: str, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        """What the pool consists of: version places int [n], and which are spoiled bool [n]."""
        n = len(self.pool.records)
        order = self.orders[way, seed][0][: round(share * n)]
        number = 1 + list(self.orders).index((way, seed))
        places, spoiled = np.arange(n), np.zeros(n, bool)
        for r in order:
            places[r], spoiled[r] = self.place[r, number], True
        return places, spoiled

    def needed(self, seeds: int, known: set[tuple[int, int]]) -> Iterator[Unit]:
        """Every pair that some state of the pool consists of and that is not known, once; one seed and way after the
        other."""
        known = set(known)
        for seed in range(seeds):
            for way in WAYS:
                units: dict[int, list[int]] = defaultdict(list)
                for share in (0.0, *SHARES):
                    places, _ = self.at(way, seed, share)
                    for i, row in enumerate(self.pool.neighbours):
                        for j in row.tolist():
                            pair = int(places[j]), int(places[i])
                            if pair not in known:
                                known.add(pair)
                                units[pair[0]].append(pair[1])
                yield from (Unit(example, np.array(sorted(targets))) for example, targets in sorted(units.items()))


def measure(pool: Pool, seeds: int, upto: int, out: Path, until: float) -> bool:
    """Append what is missing of the first `upto` seeds of a pool to `out`; False where the time ran out first."""
    versions = Versions(pool, seeds)
    known = [row for row in rows(out) if row["pool"] == pool.name]
    done = {(row["example"], target) for row in known if "example" in row for target in row["targets"]}
    units = list(versions.needed(upto, done))
    if not units:
        return True
    original = ModelFile(locate(None))
    file = converted(original, original.identity()["sha256"], "bf16", threads=1)
    template = load_template(None, original.template, original.vocabulary)
    encoded = encode_targets(versions.records, template, limit=None)
    targets, examples = TargetTokens(encoded), encode_examples(versions.records, template, limit=None)
    settings = Settings(threads=1)
    cells = cells_needed(examples.prefixes, targets, settings.batch)
    print(f"{pool.name}: {sum(len(u.targets) for u in units)} pairs to go", file=sys.stderr, flush=True)
    with out.open("a", encoding="utf-8") as file_out, Model(file, settings, cells=cells) as model:

        def write(**fields: Any) -> None:
            file_out.write(json.dumps({"pool": pool.name, **fields}) + "\n")
            file_out.flush()

        if not any("base" in row for row in known):
            bare = replace(
                versions.records,
                records=[replace(r, turns=(Message("user", ""), r.turns[-1])) for r in versions.records.records],
            )
            without = TargetTokens(encode_targets(bare, template, limit=None))
            base, nothing = (list(Scoring([model], NO_EXAMPLES, tokens).alone()) for tokens in (targets, without))
            write(
                base=figures(base),
                bare=figures(nothing),
                tokens=[len(target.response) for target in encoded.targets],
            )

        def keep(unit: Unit, measured: Measures) -> None:
            write(example=unit.example, targets=unit.targets.tolist(), figures=figures([measured]))

        for _ in Scoring([model], examples, targets).units(units, keep):
            if time.time() > until:
                return False
    return True


def figures(parts: list[Measures]) -> list[list[float]]:
    """Distances and mean log-probabilities, as they are written down."""
    return [np.round(np.concatenate(values).astype(float), 6).tolist() for values in zip(*parts, strict=True)]


def rows(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off when the run was
            continue
    return found


class State(NamedTuple):
    """One state of a pool with what was measured of it: losses in nats per token."""

    pool: str
    way: str
    share: float
    seed: int
    spoiled: np.ndarray  # bool [n]
    loss: np.ndarray  # [n], behind the prompt
    alone: np.ndarray  # [n], without it
    tokens: np.ndarray  # [n], of the response
    behind: np.ndarray | None  # [n, NEIGHBOURS], behind an example and the prompt; None: not every pair is measured
    given: np.ndarray | None  # [n], mean utility to those that it was shown before
    kin: np.ndarray  # int [n, NEIGHBOURS], the examples it is behind

    def figures(self) -> dict[str, np.ndarray]:
        """By name, the more suspect the higher; what needs pairs comes first."""
        found = {}
        if self.behind is not None and self.given is not None:
            found = {
                "suspicion": judge(self.loss, self.behind, self.alone).score,
                "loss behind kin": judge(self.loss, self.behind, None).score,
                "loss behind kin, standardised among kin": among_kin(self.behind.mean(1), self.kin),
                "−mean utility": -self.given,
            }
        length = self.tokens.astype(float)
        return {
            **found,
            "suspicion without kin": judge(self.loss, np.full((len(length), 1), np.nan), self.alone).score,
            "IFD": self.loss / self.alone,
            "loss": self.loss,
            "length": length,
            "−length": -length,
        }


def states(data: Path, out: Path, seeds: int) -> Iterator[State]:
    """Every state that is measured, as far as it is."""
    every = rows(out)
    for pool in pools(data):
        versions = Versions(pool, seeds)
        own = [row for row in every if row["pool"] == pool.name]
        bases = next((row for row in own if "base" in row), None)
        if bases is None:
            continue
        known = {
            (row["example"], target): (distance, logprob)
            for row in own
            if "example" in row
            for target, distance, logprob in zip(row["targets"], *row["figures"][:2], strict=True)
        }
        base, bare, tokens = (np.array(bases[name]) for name in ("base", "bare", "tokens"))
        for seed, way, share in itertools.product(range(seeds), WAYS, SHARES):
            places, spoiled = versions.at(way, seed, share)
            if places.max() >= len(tokens):
                continue  # of a seed that was not asked for
            keys = [[(int(places[j]), int(places[i])) for j in row] for i, row in enumerate(pool.neighbours)]
            behind = given = None
            if all(key in known for row in keys for key in row):
                pairs = np.array([[known[key] for key in row] for row in keys])
                behind = -pairs[:, :, 1]
                utility, shown = base[0, places][:, None] - pairs[:, :, 0], pool.neighbours.ravel()
                count = np.bincount(shown, minlength=len(places))
                given = np.bincount(shown, utility.ravel(), len(places)) / np.maximum(count, 1)
            losses = -base[1, places], -bare[1, places]
            yield State(pool.name, way, share, seed, spoiled, *losses, tokens[places], behind, given, pool.neighbours)


def among_kin(values: np.ndarray, kin: np.ndarray) -> np.ndarray:
    """How far each value is above those of its kin, in standard deviations (half that of all added to their own)."""
    own = np.concatenate([values[:, None], values[kin]], axis=1)
    return np.asarray((values - values[kin].mean(1)) / (own.std(1) + values.std() / 2))


def area(score: np.ndarray, spoiled: np.ndarray) -> float:
    """Under the curve: the chance that a spoiled record stands before a sound one, ties counting half."""
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inverse]
    bad = int(spoiled.sum())
    return float((rank[spoiled].sum() - bad * (bad + 1) / 2) / (bad * (len(score) - bad)))


def first_tenth(score: np.ndarray, spoiled: np.ndarray) -> float:
    """The share of spoiled records among the tenth with the highest scores."""
    return float(spoiled[np.argsort(-score, kind="stable")[: round(len(score) / 10)]].mean())


def tables(found: list[State]) -> str:
    """Markdown: the states whose pairs are measured, by pool and way and by share; then every one without its pairs."""
    whole = [state for state in found if state.behind is not None]
    alone = [state._replace(behind=None) for state in found]
    parts = [
        table(whole, lambda state: f"{state.pool}, {state.way}"),
        table(whole, lambda state: f"{state.share:.0%} spoiled"),
        f"Of {counts(whole)}.",
        table(alone, lambda state: f"{state.pool}, {state.way}"),
        f"What needs no pairs, of {counts(alone)}.",
    ]
    return "\n\n".join(parts)


def table(found: list[State], column: Callable[[State], str]) -> str:
    """Area under the curve / precision of the first tenth, means over the states of each column."""
    columns: dict[str, list[State]] = defaultdict(list)
    for state in found:
        columns[column(state)].append(state)
    lines = ["| figure | " + " | ".join([*columns, "mean"]) + " |", "|---" * (len(columns) + 2) + "|"]
    for name in found[0].figures():
        cells = []
        for group in columns.values():
            scored = [(state.figures()[name], state.spoiled) for state in group]
            cells.append(np.mean([(area(*each), first_tenth(*each)) for each in scored], axis=0))
        cells.append(np.mean(cells, axis=0))
        lines.append(f"| {name} | " + " | ".join(f"{area:.2f} / {first:.0%}" for area, first in cells) + " |")
    return "\n".join(lines)


def counts(found: list[State]) -> str:
    """How many states of how many seeds the pools have."""
    pools = dict.fromkeys(state.pool for state in found)
    return ", ".join(
        f"{pool}: {counted(len({state.seed for state in found if state.pool == pool}), 'seed')}, "
        f"{counted(sum(state.pool == pool for state in found), 'state')}"
        for pool in pools
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path("suspects"), help="folder of what was measured")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pools", nargs="*", help="Measure these alone; default all.")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    out = args.work / "measured.jsonl"
    if args.what == "table":
        print(tables(list(states(args.data, out, args.seeds))))
        return
    until = time.time() + 60 * args.minutes
    for upto in range(1, args.seeds + 1):
        for pool in pools(args.data):
            if args.pools and pool.name not in args.pools:
                continue
            if not measure(pool, args.seeds, upto, out, until):
                return
    print("all measured", file=sys.stderr)


if __name__ == "__main__":
    main()
