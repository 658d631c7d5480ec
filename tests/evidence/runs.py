"""The plan of fine-tuning runs, and their results: one JSON line for each as soon as it is done.

The plan is ordered so that its first part is worth having alone: everything's first seed before any second.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.evidence import variants
from tests.evidence.packed import Line, Lines
from tests.evidence.pools import Pool, Record
from tests.evidence.variants import Stage, Variant

# Tokens/s of two AVX512-BF16 cores, and how many tokens a record has: the template's and its characters'.
TRAIN_SPEED, TEST_SPEED = 400, 1300
EPOCHS = 3
TEMPLATE_TOKENS, CHARACTERS_PER_TOKEN = 32, 3.8


@dataclass(frozen=True)
class Run:
    """One training and its test. Of `nothing` and `all` the size is "0%" and "100%"."""

    stage: Stage
    pool: str
    method: str
    size: str
    selection_seed: int
    training_seed: int

    @property
    def name(self) -> str:
        """What the run is known by in the results."""
        seeds = f"{self.selection_seed}.{self.training_seed}"
        return "/".join((self.stage, self.pool, self.method, self.size, seeds))

    @property
    def epochs(self) -> int:
        """Of training: as many steps as everything takes where the stage says so."""
        share = float(self.size.rstrip("%")) / 100
        return round(EPOCHS / share) if self.stage == "as-long" and share else EPOCHS

    @property
    def tested(self) -> tuple[str, ...]:
        """The parts of the pool that the model is tested on, the first of them always the main one."""
        of_stage = {"continual": ("heldout", "heldout-existing"), "fresh": ("heldout-fresh",)}
        return of_stage.get(self.stage, ("heldout",))

    @property
    def variant(self) -> Variant | None:
        """How its records are chosen; None for `nothing` and `all`."""
        return next((v for v in variants.STAGES[self.stage][1] if v.name == self.method), None)


def plan(*, quick: bool = False) -> list[Run]:
    """All runs, in the order in which they are done; with `quick` a first look at one pool.

    The plan is in parts (see `Variant.part`); in each the larger subsets come first.
    """
    stages = {"instruction": (("p3",), variants.INSTRUCTION)} if quick else variants.STAGES
    of_part: list[tuple[int, int, Run]] = []
    for stage, (pools, compared) in stages.items():
        for pool in pools:
            of_part += [(0, 0, Run(stage, pool, name, size, 0, 0)) for name, size in variants.EXTREMES.items()]
            for variant in compared:
                if (quick and variant.name not in variants.QUICK) or pool not in (variant.pools or pools):
                    continue
                for order, (size, seeds) in enumerate(variant.seeds_of.items()):
                    for seed in range(seeds):
                        part = variant.part_of(seed)
                        if not quick or (part, order) == (0, 0):
                            run = Run(stage, pool, variant.name, size, seed if variant.chance else 0, seed)
                            of_part.append((part, order, run))
    return [run for _, _, run in sorted(of_part, key=lambda entry: entry[:2])]


def key(run: Run, chosen: Sequence[str]) -> str:
    """The same for runs that train on the same records from the same start with the same seed, and test alike."""
    start = "existing" if run.stage == "continual" else "model"
    seed = run.training_seed if chosen or start == "existing" else 0
    longer = [run.epochs] if run.epochs != EPOCHS else []
    otherwise = [run.tested[0]] if run.tested[0] != "heldout" else []
    what = [run.pool, start, seed, sorted(chosen), *longer, *otherwise]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def read_results(path: Path) -> list[Line]:
    """The finished runs, in their order; a line that was not finished, as after a power loss, does not count."""
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Line], Lines]:
    """The finished runs, and what the next line may refer to."""
    before = Lines()
    written = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [before.unpacked(json.loads(line)) for line in written], before


def precision_of(line: Line) -> str:
    """What a run was trained in; before it was noted it was always bfloat16."""
    return str(line["measured"].get("versions", {}).get("precision", "bfloat16"))


def append_result(path: Path, line: Line) -> None:
    """Add a line for good, in as little room as `packed` says: it is on disk when this returns."""
    _, before = _read(path)
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(before.packed(line), separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def carry_out(
    runs: Sequence[Run],
    path: Path,
    *,
    choose: Callable[[Run], list[str]],
    tune: Callable[[Run, list[str]], Line],
    precision: str = "bfloat16",
    deadline: float = float("inf"),
    report: Callable[[str], None] = print,
) -> bool:
    """Do what is missing of `runs` and append it to `path`; False where the deadline came first.

    Args:
        choose: the ids of a run's records.
        tune: trains on them and tests: what was measured.
        precision: that it trains in; what was trained in another is no substitute.
        deadline: of `time.monotonic()`, after which no run is started.
    """
    done = {line["name"]: line for line in read_results(path) if precision_of(line) == precision}
    of_key = {line["key"]: line for line in done.values()}
    for number, run in enumerate(runs, start=1):
        if run.name in done:
            continue
        if time.monotonic() > deadline:
            return False
        chosen = choose(run)
        same = of_key.get(key(run, chosen))
        measured = {**same["measured"], "seconds": 0.0, "same_as": same["name"]} if same else tune(run, chosen)
        line = {"name": run.name, **asdict(run), "key": key(run, chosen), "chosen": chosen, "measured": measured}
        append_result(path, line)
        of_key.setdefault(line["key"], line)
        loss = _loss(measured[run.tested[0]])
        report(f"{number}/{len(runs)} {run.name}: {loss:.4f}, {measured['seconds']:.0f} s")
    return True


def expected_seconds(run: Run, pool: Pool) -> float:
    """About how long a run takes on two cores."""
    records = pool.records("pool")
    share = float(run.size.rstrip("%")) / 100
    learnt = run.epochs * share * sum(map(_tokens, records))
    tested = [record for part in run.tested for record in pool.records(part)]
    return learnt / TRAIN_SPEED + sum(map(_tokens, tested)) / TEST_SPEED


def expected(runs: Sequence[Run], pools: dict[str, Pool]) -> list[float]:
    """The same for a plan: what a run repeats of another is not done again."""
    seen = set()
    seconds = []
    for run in runs:
        same = (run.pool, run.tested, run.method, run.size, run.selection_seed, run.training_seed, run.epochs)
        seconds.append(0.0 if same in seen else expected_seconds(run, pools[run.pool]))
        seen.add(same)
    return seconds


def _tokens(record: Record) -> float:
    return TEMPLATE_TOKENS + (len(record["prompt"]) + len(record["response"])) / CHARACTERS_PER_TOKEN


def _loss(tested: Line) -> float:
    return sum(tested["loss"]) / sum(tested["tokens"])
