"""Is a run far slower than this machine was seen to be? Said once, with what helps."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..model.llama import Settings
from .pairs import Work

WINDOW_SECONDS = 20.0  # a rate is taken over
SLOW = 0.4  # of the rate that was seen before: below that something is amiss
OTHER_LOAD = 0.5  # processes that want a processor beside this one's threads: with less it is no other work


class Watch:
    """Sees the work of a run as it grows.

    llama.cpp's threads spin while they wait for each other: with other work on the same cores all of them wait for the
    one that does not run, and the rate falls to a tenth, where one thread less would lose little.

    Args:
        expected: tokens/s that the weights reached here before, 0 where nothing is known; the best that the run itself
            reaches counts too. None: nothing to compare with, and nothing is said.
        say: takes the one line.
    """

    def __init__(self, settings: Settings, expected: float | None, say: Callable[[str], None]) -> None:
        self._settings, self._best, self._say = settings, expected or 0.0, say
        self._tokens, self._seconds = 0, 0.0
        self._said = expected is None

    def see(self, work: Work) -> None:
        """What the run has done so far."""
        seconds = work.seconds - self._seconds
        if self._said or seconds < WINDOW_SECONDS:
            return
        rate = (work.tokens - self._tokens) / seconds
        self._tokens, self._seconds = work.tokens, work.seconds
        threads, load = self._settings.resolved_threads(), _load()
        # longer pairs are slower too, and so are fewer threads than were used before
        if rate < SLOW * self._best and load > threads + OTHER_LOAD:
            self._said = True
            self._say(_slow_line(rate, self._best, threads, load))
        self._best = max(self._best, rate)


def _load() -> float:
    """Processes that want a processor, in the mean of the last minute; 0 where the system does not say."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def _slow_line(rate: float, seen: float, threads: int, load: float) -> str:
    """How slow, why that may be, and what helps."""
    busy = f" (load {load:.1f} on {os.cpu_count()} processors)"
    fewer = max(1, threads // 2)
    helps = f"stop it and go on with --threads {fewer}" if threads > 1 else "end the other work, or wait"
    return f"{rate:,.0f} tokens/s, where {seen:,.0f} were seen: other work is on the same cores{busy}; {helps}"
