"""llama.cpp's own log: kept out of the way, its last errors at hand for ours."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import llama_cpp


class Log:
    """Where llama.cpp's own messages go: a file, stderr or nowhere; its last errors are kept for ours."""

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.errors: deque[str] = deque(maxlen=8)
        self._error_level = False
        self._callback = llama_cpp.llama_log_callback(self._take)  # llama.cpp keeps the bare pointer

    def _take(self, level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace")
        if level != 5:  # 5 continues the line before it
            self._error_level = level == 4
        if self._error_level and line.strip():
            self.errors.append(line.strip())
        if self.stream is not None:
            with suppress(OSError, ValueError):
                self.stream.write(line)
                self.stream.flush()

    def install(self) -> None:
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def cause(self) -> str:
        """The first of llama.cpp's last errors, which names the cause; later ones only pass it on."""
        return self.errors[0] if self.errors else "llama.cpp gave no reason"


LOG = Log()
LOG.install()


def log_to(stream: TextIO | None) -> None:
    """Send llama.cpp's own log to `stream`, or nowhere."""
    LOG.stream = stream


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append llama.cpp's own log to a file for a while; a file that cannot be written is no reason to fail."""
    before = LOG.stream
    with suppress(OSError):
        LOG.stream = path.open("a", encoding="utf-8", errors="replace")
    try:
        yield
    finally:
        if LOG.stream is not None and LOG.stream is not before:
            with suppress(OSError):
                LOG.stream.close()
        LOG.stream = before
