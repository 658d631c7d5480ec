"""`delift score` killed again and again, in every kind of run, and what it comes to in the end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dying import die_at
from gguf_models import lora, write_adapter
from tiny_runs import pairs, score, tree

from delift_cli.cache.sparse import SparseCache, layout_of, open_cache
from delift_cli.errors import DeliftError

START, APPENDED, EDITED = [*range(10)], [*range(13)], [0, 11, 1, 3, 2, 4, 5, 12, 7, 8, 9]
SHARE, MORE = ("--budget", "45%"), ("--continue", "--budget", "+20%")
ADAPTER, EARLIER = "adapter.gguf", "warm-begun"  # in the bench's folder: a LoRA adapter, and a cache without it
TUNED = ("--lora", ADAPTER, "--previous", EARLIER)
NOT_COMPARED = ("lock", "llama.cpp.log")
MOST_KILLS = 6  # of one run, before it is let through


@dataclass(frozen=True)
class Scenario:
    """A run over a pool, with these options; behind another one where `begun` has that one's options.

    targets: of these instead of the pool.
    """

    name: str
    pool: list[int]
    options: tuple[str, ...] = ()
    begun: tuple[str, ...] | None = None
    targets: list[int] | None = None


SCENARIOS = (
    Scenario("all pairs", START),
    Scenario("a budget", START, SHARE),
    Scenario("more of a budget", START, MORE, begun=SHARE),
    Scenario("growing", APPENDED, begun=()),
    Scenario("growing in part", APPENDED, SHARE, begun=SHARE),
    Scenario("edited", EDITED, begun=()),
    Scenario("edited in part", EDITED, SHARE, begun=SHARE),
    Scenario("other targets", START, (), targets=[10, 11, 12]),
    Scenario("anchors", START, ("--anchors", "4")),
    Scenario("an adapter", START, TUNED),
    Scenario("an adapter in part", START, (*TUNED, *SHARE)),
    Scenario("edited under an adapter", EDITED, ("--lora", ADAPTER), begun=("--lora", ADAPTER)),
)


class Bench:
    """A folder with every scenario's beginning and its uninterrupted end.

    One budget is scored in this process first, so that its children begin with everything compiled and imported.
    """

    def __init__(self, folder: Path, scenarios: Sequence[Scenario] = SCENARIOS, steps: int | None = None) -> None:
        """steps: how many file operations a run has, where they are not to be counted."""
        self.folder = folder
        self.want: dict[str, dict[str, bytes]] = {}
        self.seconds: dict[str, float] = {}
        self.steps: dict[str, int] = {}
        write_adapter(folder / ADAPTER, lora())
        warm = Scenario("warm", START, SHARE)
        self._pool(warm).write_bytes(pairs(*START))
        assert self.run(warm, self._place(warm, "begun")) == 0
        for scenario in scenarios:
            begun = self._place(scenario, "begun")
            if scenario.begun is not None:
                self._pool(scenario).write_bytes(pairs(*START))
                assert self._child(lambda: self.run(scenario, begun, scenario.begun or ())) == 0  # noqa: B023
            self._pool(scenario).write_bytes(pairs(*scenario.pool))
            if scenario.targets is not None:
                self._targets(scenario).write_bytes(pairs(*scenario.targets))
            end = self._begin(scenario, "end")
            started = time.monotonic()
            assert self._child(lambda: self.run(scenario, end)) == 0  # noqa: B023
            self.seconds[scenario.name] = time.monotonic() - started
            self.want[scenario.name] = compared(end)
            self.steps[scenario.name] = steps or self._count_steps(scenario)

    def trial(self, scenario: Scenario, rng: random.Random) -> tuple[int, str]:
        """Kill a run at random steps and moments until it gets through: how often, and what is wrong in the end."""
        path, kills = self._begin(scenario, "killed"), 0
        while True:
            step = after = None
            if kills < MOST_KILLS and rng.random() < 0.85:
                if rng.random() < 0.6:
                    step = rng.randrange(self.steps[scenario.name])
                else:
                    after = rng.random() * self.seconds[scenario.name]
            code = self._child(lambda: self.run(scenario, path), step=step, after=after)
            if code == 1:
                return kills, "refused"
            if code == 0:
                break
            kills += 1
            wrong = readable(path)
            if wrong:
                return kills, wrong
            if ended(path, scenario):
                break
        got, want = compared(path), self.want[scenario.name]
        different = sorted(name for name in {*got, *want} if got.get(name) != want.get(name))
        left = [name for name in os.listdir(self.folder) if name.startswith(".")]
        return kills, f"other than uninterrupted: {different[:3]}" if different else f"left: {left}" if left else ""

    def run(self, scenario: Scenario, path: Path, options: tuple[str, ...] | None = None) -> int:
        chosen = [
            self.folder / option if option in (ADAPTER, EARLIER) else option
            for option in (scenario.options if options is None else options)
        ]
        targets = () if scenario.targets is None else ("--targets", self._targets(scenario))
        result = score(self._pool(scenario), *targets, "-o", path, "-q", *chosen)
        print(result.err, end="", file=sys.stderr)
        return result.code

    def _count_steps(self, scenario: Scenario) -> int:
        path = self._begin(scenario, "counted")
        low, high = 0, 1 << 16
        while low < high:  # the first step that is never reached
            middle = (low + high) // 2
            shutil.rmtree(path, ignore_errors=True)
            self._begin(scenario, "counted")
            if self._child(lambda: self.run(scenario, path), step=middle) == 0:
                high = middle
            else:
                low = middle + 1
        return low

    def _pool(self, scenario: Scenario) -> Path:
        return self.folder / f"{scenario.name}.jsonl"

    def _targets(self, scenario: Scenario) -> Path:
        return self.folder / f"{scenario.name}-targets.jsonl"

    def _place(self, scenario: Scenario, what: str) -> Path:
        return self.folder / f"{scenario.name}-{what}"

    def _begin(self, scenario: Scenario, what: str) -> Path:
        path = self._place(scenario, what)
        shutil.rmtree(path, ignore_errors=True)
        if scenario.begun is not None:
            shutil.copytree(self._place(scenario, "begun"), path)
        return path

    @staticmethod
    def _child(work: Callable[[], int], *, step: int | None = None, after: float | None = None) -> int:
        """`work` in a child that dies at a step or is killed after a time; its exit code, -9 and 9 for killed."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if step is not None:
                    die_at(step)
                code = work()
            finally:
                os._exit(code)
        if after is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return 9 if code == -signal.SIGKILL else code


def compared(path: Path) -> dict[str, bytes]:
    """Every file with its content, but for those that say who wrote it."""
    return {name: data for name, data in tree(path).items() if name not in NOT_COMPARED}


def readable(path: Path) -> str:
    """What is wrong with a cache that a killed run left, for a reader; lost pairs of no one's round are nothing."""
    if layout_of(path) is None:
        return ""
    try:
        cache = open_cache(path)
        cache.check_rows()
        cache.examples()
    except DeliftError as error:
        return str(error)
    return ""


def ended(path: Path, scenario: Scenario) -> bool:
    """Had a run that may not be repeated (+20%) come to its end before it was killed?"""
    if "--continue" not in scenario.options:
        return False
    cache = SparseCache(path)
    return cache.complete and cache.rounds[-1].ended and cache.rounds[-1].asked.budget == scenario.options[-1]
