"""A process that is gone before its k-th file operation: no clean-up runs, as after SIGKILL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OPERATIONS = (
    "pwrite", "write", "fsync", "fdatasync", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "posix_fallocate",
)  # fmt: skip


def die_at(step: int) -> None:
    """From now on this process counts its file operations, and is gone before the one with this number (from 0)."""
    left = step

    def before(call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return call(*args, **kwargs)

        return counted

    for name in OPERATIONS:
        if hasattr(os, name):
            setattr(os, name, before(getattr(os, name)))


def died(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that is gone at the given step; whether it got that far."""
    child = os.fork()
    if child == 0:
        try:
            die_at(step)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    return code == 9


@contextmanager
def failing_from(step: int, error: int) -> Iterator[None]:
    """From the step with this number on every file operation fails with this error of the disk."""
    left = step

    def before(call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0 and call.__name__ not in ("unlink", "rmdir"):
                raise OSError(error, os.strerror(error))
            return call(*args, **kwargs)

        return counted

    real = {name: getattr(os, name) for name in OPERATIONS if hasattr(os, name)}
    for name, call in real.items():
        setattr(os, name, before(call))
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)
