"""A run that is told to end (Ctrl-C, SIGTERM, SIGHUP) ends within two seconds, and says how to go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}
GRACE_SECONDS = 1.4  # for the way out through Python; behind it the process ends whatever it is in
SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


class Ended(BaseException):
    """The process was told to end by this signal."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)


def words(number: int) -> str:
    """What the user is told."""
    return f"{WORDS[signal.Signals(number)]}; what delift score has scored is safe, the same command goes on from there"


def exit_code(number: int) -> int:
    """What the shell sees."""
    return 128 + number


@contextmanager
def ending_promptly(*, last: bool = False) -> Iterator[None]:
    """While this lasts, SIGTERM and SIGHUP raise `Ended`, as Ctrl-C raises KeyboardInterrupt.

    last: nothing comes behind it. A process on its way out, with its work done and said, is left to end by itself: by
    a signal's default it would end without a word and with another exit code.

    Python runs what a signal is to do between two of its own steps, and an exception raised in a callback of a library
    is lost. A thread that hears of signals at once ends a process that has not come out of such a place in time:
    whatever is on disk then is as good as after a kill, which caches are made for. A signal that is ignored (nohup)
    stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise Ended(number)

    taken = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    heard = {*taken, *([signal.SIGINT] if callable(signal.getsignal(signal.SIGINT)) else [])}
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    over = threading.Event()
    threading.Thread(target=_watch, args=(receiver, heard, over), daemon=True).start()
    before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    told = sys.unraisablehook

    def lost(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, (KeyboardInterrupt, Ended)):  # of these the thread will say that it ended
            told(what)

    sys.unraisablehook = lost
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in heard if last else taken:
            signal.signal(number, signal.SIG_IGN if last else signal.SIG_DFL)
        over.set()
        sys.unraisablehook = told
        signal.set_wakeup_fd(before)
        os.close(sender)  # which ends the thread


def _watch(receiver: int, heard: set[signal.Signals], over: threading.Event) -> None:
    with open(receiver, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] in heard and not over.wait(GRACE_SECONDS):
                cursor = SHOW_CURSOR if sys.stderr.isatty() else ""
                os.write(2, f"{cursor}delift: {words(number[0])}\n".encode())
                os._exit(exit_code(number[0]))
