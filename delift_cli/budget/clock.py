"""The time that a run had to work in: a budget of hours is not spent while the process is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_SECONDS = 0.25
STOPPED_SECONDS = 2.0  # a silence so long was a stop, if the process did next to nothing meanwhile
IDLE_SHARE = 0.1


class Clock:
    """Seconds by `time.monotonic`, less those in which the process was stopped.

    A machine that sleeps stops that clock by itself, and setting the time of day does not move it. A process that is
    stopped (SIGSTOP, Ctrl-Z, a frozen container) shows by its ticks: none came, and it used no processor.
    """

    def __init__(self) -> None:
        self._stopped = 0.0
        self._last = time.monotonic(), time.process_time()

    def now(self) -> float:
        self.tick()
        return time.monotonic() - self._stopped

    def tick(self) -> None:
        """Has there been a stop since the last tick?"""
        now, worked = time.monotonic(), time.process_time()
        silence = now - self._last[0]
        if silence > STOPPED_SECONDS and worked - self._last[1] < IDLE_SHARE * silence:
            self._stopped += silence - TICK_SECONDS
        self._last = now, worked


@contextmanager
def working_time() -> Iterator[Callable[[], float]]:
    """A `Clock`'s `now`, ticking in a thread of its own."""
    clock, over = Clock(), threading.Event()

    def ticks() -> None:
        while not over.wait(TICK_SECONDS):
            clock.tick()

    threading.Thread(target=ticks, daemon=True).start()
    try:
        yield clock.now
    finally:
        over.set()
