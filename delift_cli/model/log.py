"""llama.cpp's own log: kept out of the way, its last errors at hand for ours.

llama.cpp calls back from C, while a model loads or is converted for seconds on end. A callback in Python would be where
a pending Ctrl-C is raised, and an exception cannot leave a callback: it would be printed and forgotten. So the callback
is machine code that writes to file descriptors, and no Python runs before llama.cpp returns.
"""

from __future__ import annotations

import ctypes
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import llama_cpp
import numpy as np

from .native import log_function

NOWHERE = -1  # a descriptor that nothing is written to
KEPT_BYTES = 65536  # of llama.cpp's errors


class Log:
    """Where llama.cpp's own messages go: a file, stderr or nowhere; its errors are kept for ours."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - as long as the process
        # what the callback reads and writes: the log's descriptor, that of the errors, the level of the last message
        self._state = np.array([NOWHERE, self._errors.fileno(), 0], np.int32)
        self._callback = llama_cpp.llama_log_callback(log_function())  # llama.cpp keeps the bare pointer

    def install(self) -> None:
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(self._state.ctypes.data))

    @property
    def descriptor(self) -> int:
        """The file descriptor that everything goes to, or `NOWHERE`."""
        return int(self._state[0])

    @descriptor.setter
    def descriptor(self, descriptor: int) -> None:
        self._state[0] = descriptor

    def forget(self) -> None:
        """Begin anew: what failed before is not the cause of what fails next."""
        self._errors.truncate(0)
        self._errors.seek(0)

    def cause(self) -> str:
        """The first of llama.cpp's errors since `forget`, which names the cause; later ones only pass it on."""
        text = os.pread(self._errors.fileno(), KEPT_BYTES, 0).decode("utf-8", "replace")
        lines = (line.strip() for line in text.splitlines())
        return next(filter(None, lines), "llama.cpp gave no reason")


LOG = Log()
LOG.install()


def log_to(stream: TextIO | None) -> None:
    """Send llama.cpp's own log to the file of `stream`, or nowhere; a stream without a file gets nothing."""
    LOG.descriptor = NOWHERE
    if stream is not None:
        with suppress(io.UnsupportedOperation, ValueError):
            LOG.descriptor = stream.fileno()


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append llama.cpp's own log to a file for a while; a file that cannot be written is no reason to fail."""
    before, own = LOG.descriptor, NOWHERE
    with suppress(OSError):
        own = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        LOG.descriptor = own
    try:
        yield
    finally:
        LOG.descriptor = before
        if own != NOWHERE:
            os.close(own)
