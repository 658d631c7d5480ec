"""Numba functions whose compiled code is kept between runs and can never be stale.

Numba keeps compiled code by source file and does not see that a function compiled into it from another file has
changed. Here all of it lies in one folder named after everything that it depends on: the sources of this package, the
versions of Python and Numba. What is read is checked by its digest, for a cache may have been cut short by a full
disk; what cannot be read or kept is compiled again. A folder that others could write to is not used: compiled code is
code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core import serialize
from numba.core.caching import CompileResultCacheImpl

from .errors import InputError
from .machine.kept import cache_directory, expanded
from .version import sources_digest

WORTH_SHARING = 20e6  # nanoseconds
_UNUSED_DAYS = 30  # how long the code of another version is kept
_DIGEST = 32  # bytes of a SHA-256
_to_tell: list[Callable[[], None]] = []


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with these options, its compiled code kept as described above."""

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        dispatcher._cache = _Kept(function)
        return dispatcher

    return compiled


@contextlib.contextmanager
def threads_for(nanoseconds: float) -> Iterator[None]:
    """One thread inside for work that takes a single thread less than `WORTH_SHARING`, else as many as there are.

    Every parallel region ends when the last thread is done. Where another process has taken one of the cores away, that
    is some milliseconds later than it could be: short work does not earn that back.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(1 if nanoseconds < WORTH_SHARING else before)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@contextlib.contextmanager
def telling(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` once, before the first function inside of which no code is kept: compiling takes seconds."""
    _to_tell.append(tell)
    try:
        yield
    finally:
        _to_tell.clear()


class _Kept:
    """What a Numba dispatcher asks of a cache (`numba.core.caching.Cache`): one file for each signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    @property
    def cache_path(self) -> str | None:
        folder = code_folder()
        return None if folder is None else str(folder)

    def load_overload(self, signature: Any, target: Any) -> Any:
        found = self._load(signature, target)
        if found is None and _to_tell:
            _to_tell.pop()()
        return found

    def _load(self, signature: Any, target: Any) -> Any:
        target.refresh()
        file = self._file(signature, target.codegen())
        try:
            content = b"" if file is None else file.read_bytes()
        except OSError:
            return None
        digest, payload = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        return _REDUCED.rebuild(target, pickle.loads(payload))

    def save_overload(self, signature: Any, result: Any) -> None:
        file = self._file(signature, result.codegen)
        if file is None or not _REDUCED.check_cachable(result):
            return
        payload: bytes = _dumps(_REDUCED.reduce(result))
        with contextlib.suppress(OSError):  # a full disk is no reason to fail
            handle, draft = tempfile.mkstemp(dir=file.parent, prefix=".")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(hashlib.sha256(payload).digest() + payload)
                os.replace(draft, file)
            except BaseException:
                os.unlink(draft)
                raise

    def enable(self) -> None: ...
    def disable(self) -> None: ...
    def flush(self) -> None: ...

    def _file(self, signature: Any, codegen: Any) -> Path | None:
        folder = code_folder()
        if folder is None:
            return None
        key = repr((signature, codegen.magic_tuple(), self._function.__code__.co_firstlineno))
        return folder / f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"


# for what it does with a result; it is given no place for files
_REDUCED: Any = CompileResultCacheImpl.__new__(CompileResultCacheImpl)


_dumps: Any = serialize.dumps


@functools.cache
def code_folder() -> Path | None:
    """Where compiled code is kept, None where there is no place for it; $NUMBA_CACHE_DIR goes first."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    candidates = [Path(given)] if given else []
    with contextlib.suppress(InputError):  # no home directory
        candidates.append(cache_directory())
    candidates.append(Path(tempfile.gettempdir()) / f"delift-{os.getuid()}")
    for candidate in candidates:
        folder = expanded(candidate) / f"compiled-{_version()}"
        if _is_ours(folder):
            _drop_unused(folder)
            return folder
    return None


@functools.cache
def _version() -> str:
    """Of everything that compiled code depends on beside the processor, which Numba's own key names."""
    sources = sources_digest(b"numba", b"compiled import")
    return hashlib.sha256(f"{sys.version} {numba.__version__} {sources}".encode()).hexdigest()[:16]


def _is_ours(folder: Path) -> bool:
    """Is it there, or can it be made, writable for this user and for nobody else?"""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        if folder.is_symlink() or state.st_uid != os.geteuid() or state.st_mode & 0o022:
            return False
        os.utime(folder)
        return os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _drop_unused(folder: Path) -> None:
    for other in folder.parent.glob("compiled-*"):
        with contextlib.suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > _UNUSED_DAYS * 86400:
                shutil.rmtree(other)
