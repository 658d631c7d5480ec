"""Loaded by each worker process of a local cluster as it starts: Ctrl-C in a terminal is the client's to hear."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(_worker: Any) -> None:
    """Called by dask in the worker's main thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
