"""The time that a run had to work in."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from delift_cli.budget.clock import Stops


def test_a_stopped_process_spends_no_time() -> None:
    code = (
        "import time\nfrom delift_cli.budget.clock import stops\n"
        "with stops() as stopped:\n"
        "    began = time.monotonic()\n    print('ready', flush=True)\n"
        "    while time.monotonic() - began < 3: time.sleep(0.05)\n"
        "    print(stopped(), time.monotonic() - began)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(3.2)
    process.send_signal(signal.SIGCONT)
    stopped, passed = map(float, process.communicate(timeout=30)[0].split())
    assert passed > 3.1
    assert passed - 1.0 < stopped < passed


def test_work_without_a_tick_is_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code that lets no other thread run for seconds is at work."""
    times = {"monotonic": 0.0, "process_time": 0.0}
    for name in times:
        monkeypatch.setattr(time, name, lambda name=name: times[name])
    stops = Stops()
    times.update(monotonic=10.0, process_time=9.0)
    assert stops.seconds() == 0.0
    times.update(monotonic=110.0, process_time=9.1)
    assert stops.seconds() == 99.75


def test_a_stop_that_two_threads_see_at_once_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    class Awaited(float):
        """A time from which nothing is taken before both threads are at it."""

        def __sub__(self, other: float) -> float:
            with suppress(threading.BrokenBarrierError):
                both.wait(timeout=0.5)
            return float(self) - other

    times = {"monotonic": 0.0, "process_time": 0.0}
    for name in times:
        monkeypatch.setattr(time, name, lambda name=name: times[name])
    stops = Stops()
    times["monotonic"] = Awaited(100.0)
    other = threading.Thread(target=stops.tick)
    other.start()
    stops.tick()
    other.join()
    assert stops.seconds() == 99.75
