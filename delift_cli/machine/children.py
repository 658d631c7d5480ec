"""Python in a process of its own, over this very package: for what can be stopped only so, or may end its process.

Nothing here needs more than Python itself, for `doctor`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def run_child(*arguments: object, seconds: float | None, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`python ARGUMENTS` to its end, with `given` on its stdin; killed with whatever ends the waiting.

    Raises:
        subprocess.TimeoutExpired: after `seconds`.
    """
    own = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (own, os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        input=given,
        capture_output=True,
        timeout=seconds,
        env={**os.environ, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"},
        check=False,
    )


def end_with_parent() -> None:
    """For the child: it does not outlive its parent (on Linux), and ends with Ctrl-C at once."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def said_lines(said: bytes) -> list[str]:
    """The lines of what a child said that are not empty."""
    return [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]


def ending(code: int) -> str:
    """How a child ended: the signal, or its exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
