"""Standard streams that the shell has closed, as `>&-` does, or whose encoding lacks what is written."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from ..errors import RunError


class _Closed(io.RawIOBase):
    """A stdout that takes nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise RunError("stdout is closed: what belongs there has nowhere to go")


def keep_places() -> None:
    """Stand in for streams that are closed.

    The next file that is opened, one of a cache say, would have the stream's number otherwise, and get what a library
    prints. What is meant for a closed stdout is an error; stderr's words are lost, as was asked for.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # it gets the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 (as long as the process lasts)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(_Closed(), encoding="utf-8", write_through=True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def print_anything() -> None:
    """What the encoding of stdout lacks is written as an escape, as Python does on stderr; data are bytes anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
