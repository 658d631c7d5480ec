"""A process that is told to end: within two seconds, in words, wherever it is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

SWALLOWS = """
import sys, time
from delift_cli.machine import signals
with signals.ending_promptly():
    print("ready", flush=True)
    stop = time.monotonic() + 20
    while time.monotonic() < stop:
        try:
            time.sleep(20)
        except BaseException:  # as a library does around its callbacks
            pass
"""


def tell(code: str, number: signal.Signals, before: str = "") -> tuple[int, str, float]:
    """Exit code, stderr and seconds of a program that gets a signal when it says that it is ready."""
    command = ["sh", "-c", f'{before} exec "$0" -c "$1"', sys.executable, code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.3)  # it is in what it does
    started = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err.decode(), time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_library_that_swallows_exceptions_is_left_all_the_same(number: signal.Signals) -> None:
    code, err, seconds = tell(SWALLOWS, number)
    assert code == 128 + number
    assert err.startswith("delift: ")
    assert err.endswith("the same command goes on from there\n")
    assert 1.0 < seconds < 2.0


def test_what_a_callback_loses_is_not_printed() -> None:
    code = (
        "import ctypes, time\nfrom delift_cli.machine import signals\n"
        "def work():\n"
        "    print('ready', flush=True); time.sleep(20)\n"
        "callback = ctypes.CFUNCTYPE(None)(work)\n"
        "with signals.ending_promptly():\n"
        "    while True: callback()\n"
    )
    ended, err, _ = tell(code, signal.SIGTERM)
    assert ended == 128 + signal.SIGTERM
    assert err.startswith("delift: ended by SIGTERM")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_heard_while_everything_is_imported(number: signal.Signals) -> None:
    code = (
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer': exec(\"print('ready', flush=True); time.sleep(20)\")\n"
        "from delift_cli.__main__ import main\n"
        "sys.meta_path.insert(0, Slow()); main()"
    )
    ended, err, seconds = tell(code, number)
    assert ended == 128 + number
    assert err.startswith("delift: ")
    assert err.endswith("the same command goes on from there\n")
    assert err.count("\n") == 1
    assert seconds < 2.0


def test_ctrl_c_while_the_hearing_begins() -> None:
    code = (
        "import threading, time\nfrom delift_cli.__main__ import main\n"
        "def start(self): print('ready', flush=True); time.sleep(20)\n"
        "threading.Thread.start = start\nmain()"
    )
    ended, err, _ = tell(code, signal.SIGINT)
    assert ended == 128 + signal.SIGINT
    assert err.startswith("delift: interrupted; ")
    assert err.count("\n") == 1


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    code, err, _ = tell(SWALLOWS.replace("20", "2"), signal.SIGHUP, before="trap '' HUP;")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_done_is_left_to_end(number: signal.Signals) -> None:
    """Between the last word of a run and the end of its process."""
    code = (
        "import atexit, sys, time\nfrom delift_cli.__main__ import main\n"
        "def end():\n"
        "    print('ready', flush=True); time.sleep(1)\n"
        "atexit.register(end)\nsys.argv = ['delift', 'select', 'nowhere', '-k', '1']\nmain()"
    )
    ended, err, seconds = tell(code, number)
    assert ended == 2
    assert err.startswith("delift: nowhere")
    assert err.count("\n") == 1
    assert seconds < 2.0


def test_handlers_are_given_back() -> None:
    code = SWALLOWS.split("with ")[0] + (
        "import signal\nwith signals.ending_promptly(): pass\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\nassert signal.set_wakeup_fd(-1) == -1\n"
        "print('ready', flush=True); time.sleep(20)"
    )
    assert tell(code, signal.SIGTERM)[0] == -signal.SIGTERM
