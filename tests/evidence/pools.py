"""The pools: what is chosen from, what the choice is tested on, and the target and existing data of the other stages.

Out of public data: 6,000 pairs of the P3/T0 mixture, GSM8K, the self-instruct seed tasks, GPTeacher's code tasks. No
record, up to case and white space, is in two of a pool's files.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delift_cli.errors import InputError
from tests.evidence import harder

FILES = {
    "p3_6k.jsonl": "prompt/response pairs of the P3/T0 mixture with the prompt template as `task`",
    "gsm8k_train_2k.jsonl": "question/answer, the first 2,000 of GSM8K's training records",
    "gsm8k_test_500.jsonl": "question/answer, the first 500 of GSM8K's test records",
    "self_instruct_seed_alpaca.json": "the 175 seed tasks of self-instruct as instruction/input/output",
    "codegen_instruct.json": "GPTeacher's code tasks as instruction/input/response",
}
PARTS = ("pool", "heldout", "target", "existing", "heldout-existing", "heldout-fresh")

Record = dict[str, str]  # id, task, prompt, response


@dataclass(frozen=True)
class Pool:
    """A pool's files; what only one of the stages uses is there only for that stage."""

    name: str
    folder: Path

    @property
    def parts(self) -> list[str]:
        """The parts that it has."""
        return [part for part in PARTS if self.path(part).exists()]

    def path(self, part: str) -> Path:
        return self.folder / f"{part}.jsonl"

    def records(self, part: str) -> list[Record]:
        return [json.loads(line) for line in self.path(part).read_text(encoding="utf-8").splitlines()]


def write_pools(data: Path, work: Path, seed: int = 0) -> list[Pool]:
    """All pools as files under `work`, in a folder each; files that are there are left as they are.

    Raises:
        InputError: a file of the public data is missing.
    """
    pools = []
    sources = None
    for name, make in MADE.items():
        pool = Pool(name, work / name)
        last = "heldout-fresh" if name in FRESH else "heldout"  # is written last: it says that the others are whole
        if not pool.path(last).exists():
            sources = sources or read_sources(data)
            draw = _Draw(sources, random.Random(f"{seed} {name}"), seed)
            made = make(draw)
            parts = sorted(made, key="heldout".__eq__)  # which comes last
            mixed = {part: draw.order.sample(made[part], len(made[part])) for part in parts}
            if name in FRESH:
                draw.order = random.Random(f"{seed} {name} fresh")
                mixed["heldout-fresh"] = FRESH[name](draw)
            pool.folder.mkdir(parents=True, exist_ok=True)
            for part in (part for part in mixed if not pool.path(part).exists()):
                lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in mixed[part])
                pool.path(part).write_text(lines, encoding="utf-8")
        pools.append(pool)
    return pools


def read_sources(data: Path) -> dict[str, list[Record]]:
    """The public data as records, by file: "p3", "gsm8k-train", "gsm8k-test", "instruct", "code"."""
    missing = [f"{name} ({what})" for name, what in FILES.items() if not (data / name).exists()]
    if missing:
        raise InputError(
            f"{data} lacks public data that the evidence suite uses: {'; '.join(missing)}; name it: --data"
        )
    return {
        "p3": [{key: row[key] for key in ("id", "task", "prompt", "response")} for row in _rows(data / "p3_6k.jsonl")],
        "gsm8k-train": _read(data / "gsm8k_train_2k.jsonl", "gsm8k", "question", "answer"),
        "gsm8k-test": _read(data / "gsm8k_test_500.jsonl", "gsm8k-test", "question", "answer", task="gsm8k"),
        "instruct": _read(data / "self_instruct_seed_alpaca.json", "instruct", "instruction", "output"),
        "code": _read(data / "codegen_instruct.json", "code", "instruction", "response"),
    }


def text(record: Record) -> str:
    """What two records have in common that are copies of each other: their text up to case and white space."""
    return " ".join(f"{record['prompt']} {record['response']}".casefold().split())


class _Draw:
    """Draws records, none of them twice."""

    def __init__(self, sources: dict[str, list[Record]], order: random.Random, seed: int) -> None:
        self.sources, self.order, self.seed = sources, order, seed
        self.taken: set[str] = set()

    def __call__(self, source: str, count: int, most: int, tasks: list[str] | None = None) -> list[Record]:
        """`count` records of at most `most` characters; with `tasks` as many of each as of the others, in turn."""
        fitting = [r for r in self.sources[source] if len(r["prompt"]) + len(r["response"]) <= most]
        shuffled = self.order.sample(fitting, len(fitting))
        if tasks is not None:
            shuffled = list(_in_turn(shuffled, tasks))
        drawn = []
        for record in shuffled:
            if len(drawn) == count:
                break
            if text(record) not in self.taken and record["response"].strip():
                self.taken.add(text(record))
                drawn.append(record)
        if len(drawn) < count:
            raise InputError(f"{source}: {len(drawn)} records of at most {most} characters, {count} are needed")
        return drawn

    def tasks(self, first: int, count: int, least: int = 30, most: int = 500) -> list[str]:
        """P3 templates number `first` and on, in a random order of those with `least` records of `most` characters."""
        sizes: dict[str, int] = defaultdict(int)
        for record in self.sources["p3"]:
            sizes[record["task"]] += len(record["prompt"]) + len(record["response"]) <= most
        names = sorted(name for name, size in sizes.items() if size >= least)
        return random.Random("templates").sample(names, len(names))[first : first + count]


def _p3(draw: _Draw) -> dict[str, list[Record]]:
    tasks = draw.tasks(0, 20)
    return {"pool": draw("p3", 200, 500, tasks), "heldout": draw("p3", 150, 500, tasks)}


def _gsm8k_p3(draw: _Draw) -> dict[str, list[Record]]:
    tasks = draw.tasks(20, 20)
    return {
        "pool": draw("gsm8k-train", 100, 500) + draw("p3", 100, 500, tasks),
        "heldout": draw("gsm8k-test", 75, 500) + draw("p3", 75, 500, tasks),
        "target": draw("gsm8k-train", 30, 500),
    }


def _instruct_code(draw: _Draw) -> dict[str, list[Record]]:
    # The old data are code and P3: of the pool's halves one is known then, the other is not. Of the seed tasks there
    # are too few for shorter ones.
    old = draw.tasks(40, 15)
    return {
        "pool": draw("instruct", 100, 900) + draw("code", 100, 500),
        "heldout": draw("instruct", 50, 900) + draw("code", 75, 500),
        "existing": draw("code", 30, 500) + draw("p3", 30, 500, old),
        "heldout-existing": draw("code", 30, 500) + draw("p3", 30, 500, old),
    }


def _sound(draw: _Draw, name: str, count: int | None = None, tested: int | None = None) -> dict[str, list[Record]]:
    """Another pool as it is drawn itself: its first `count` records, as many of each task, and `tested` held-out ones;
    all where nothing is said."""
    made = MADE[name](_Draw(draw.sources, random.Random(f"{draw.seed} {name}"), draw.seed))
    return {"pool": made["pool"][:count], "heldout": made["heldout"][:tested]}


def _spoiled(draw: _Draw, share: float, of: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """The same with this share of the pool's answers spoiled."""
    return {**of, "pool": harder.spoiled(of["pool"], share, draw.order)}


def _redundant(draw: _Draw) -> dict[str, list[Record]]:
    sound = _sound(draw, "p3", 34, 80)
    return {**sound, "pool": harder.redundant(sound["pool"])}


def _skewed(draw: _Draw) -> dict[str, list[Record]]:
    tasks = draw.tasks(0, 20)
    return {
        "pool": draw("code", 90, 500) + draw("p3", 10, 500, tasks),
        "heldout": draw("code", 40, 500) + draw("p3", 40, 500, tasks[:10]),
    }


def _p3_1000(draw: _Draw) -> dict[str, list[Record]]:
    tasks = draw.tasks(0, 43, 20, 250)
    return {"pool": draw("p3", 1000, 250, tasks), "heldout": draw("p3", 150, 250, tasks)}


MADE: dict[str, Callable[[_Draw], dict[str, list[Record]]]] = {
    "p3": _p3,
    "gsm8k-p3": _gsm8k_p3,
    "instruct-code": _instruct_code,
    "spoiled-20": lambda draw: _spoiled(draw, 0.2, _sound(draw, "p3", 100, 80)),
    "spoiled-40": lambda draw: _spoiled(draw, 0.4, _sound(draw, "p3", 100, 80)),
    "redundant": _redundant,
    "skewed": _skewed,
    "p3-1000": _p3_1000,
    "spoiled-1000": lambda draw: _spoiled(draw, 0.2, _sound(draw, "p3-1000")),
}

# Held-out records that no rule of a choice was settled by, of the same tasks and as long.
FRESH: dict[str, Callable[[_Draw], list[Record]]] = {
    "p3": lambda draw: draw("p3", 450, 500, draw.tasks(0, 20)),
    "gsm8k-p3": lambda draw: draw("gsm8k-test", 180, 500) + draw("p3", 180, 500, draw.tasks(20, 20)),
}


def _in_turn(records: list[Record], tasks: list[str]) -> Iterator[Record]:
    """The first record of each task, then the second of each, …"""
    of_task: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        of_task[record["task"]].append(record)
    for place in range(max(map(len, of_task.values()))):
        yield from (of_task[task][place] for task in tasks if place < len(of_task[task]))


def _rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(content) if path.suffix == ".json" else []
    return rows or [json.loads(line) for line in content.splitlines() if line.strip()]


def _read(path: Path, name: str, prompt: str, response: str, task: str | None = None) -> list[Record]:
    """Records of two fields and perhaps an "input", with their place in the file as id."""
    records = []
    for place, row in enumerate(_rows(path), start=1):
        given = "\n\n".join(part for part in (str(row[prompt]), str(row.get("input") or "")) if part.strip())
        records.append({"id": f"{name}/{place}", "task": task or name, "prompt": given, "response": str(row[response])})
    return records
