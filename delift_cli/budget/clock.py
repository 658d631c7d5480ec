"""The time that a run had to work in: a budget of hours is not spent while the process is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_SECONDS = 0.25
STOPPED_SECONDS = 2.0  # a silence so long was a stop, if the process did next to nothing meanwhile
IDLE_SHARE = 0.1


class Stops:
    """Seconds in which the process was stopped, by its ticks.

    A machine that sleeps stops `time.monotonic` by itself, and setting the time of day does not move it. A process that
    is stopped (SIGSTOP, Ctrl-Z, a frozen container) shows by its ticks: none came, and it used no processor.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last = time.monotonic(), time.process_time()
        self._ticking = threading.Lock()  # two threads tick, and would both count a stop that both see

    def seconds(self) -> float:
        """Up to now."""
        self.tick()
        return self._seconds

    def tick(self) -> None:
        """Has there been a stop since the last tick?"""
        with self._ticking:
            now, worked = time.monotonic(), time.process_time()
            silence = now - self._last[0]
            if silence > STOPPED_SECONDS and worked - self._last[1] < IDLE_SHARE * silence:
                self._seconds += silence - TICK_SECONDS
            self._last = now, worked


@contextmanager
def stops() -> Iterator[Callable[[], float]]:
    """The seconds of `Stops`, which a thread of its own ticks for."""
    counted, over = Stops(), threading.Event()

    def ticks() -> None:
        while not over.wait(TICK_SECONDS):
            counted.tick()

    threading.Thread(target=ticks, daemon=True).start()
    try:
        yield counted.seconds
    finally:
        over.set()
