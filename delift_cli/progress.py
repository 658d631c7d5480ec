"""How long-running work says where it is: a callback gets steps, and whoever passes it decides what a person sees."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class Step(NamedTuple):
    """How far one stage of a run is: `done` of `total`, a word on the speed, and the seconds that are left."""

    stage: str
    done: int
    total: int
    speed: str = ""
    seconds_left: float | None = None


Progress: TypeAlias = Callable[[Step], None]
Say: TypeAlias = Callable[[str], None]  # takes one line on what is going on


def silent(_said: object) -> None:
    """A `Progress` or `Say` of which nothing is seen."""


def counting(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """A callback for what says no more than how many of `total` are done."""
    started = time.monotonic()

    def report(done: int) -> None:
        rate = done / max(time.monotonic() - started, 1e-9)
        progress(Step(stage, done, total, f"{rate:.1f} a second", (total - done) / rate if done else None))

    return report
