"""The user's cache directory: what delift keeps there between runs, and how processes share it.

Small facts (tunings, digests of files that llama.cpp is known to survive) lie in books, JSON objects that are replaced
whole. Whatever is read from here is checked before it is used: it may be of another version, or damaged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError

DIRECTORY_VARIABLE = "DELIFT_CACHE"
WAIT_SECONDS = 600.0  # for another process that holds a lock: as long as a large model's conversion may take


def home() -> Path | None:
    """The user's home directory; None where the user has none (a container run under a number that is nobody's)."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(text: str | Path) -> Path:
    """A path in which ~ stands for a home directory.

    Raises:
        InputError: nobody is called so, or the user has no home directory.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(f"{text}: there is no such home directory; write the path out") from None


def user_caches() -> Path | None:
    """Where the programs of this user keep what they can make again: $XDG_CACHE_HOME, else ~/.cache, else None."""
    own, mine = os.environ.get("XDG_CACHE_HOME"), home()
    return Path(own) if own else mine and mine / ".cache"


def cache_directory() -> Path:
    """Where delift keeps things: $DELIFT_CACHE, else delift/ in the user's cache directory.

    Raises:
        InputError: the user has no home directory.
    """
    own = os.environ.get(DIRECTORY_VARIABLE)
    if own:
        return Path(own)
    caches = user_caches()
    if caches is None:
        raise InputError(
            f"this user has no home directory to keep converted models and tunings in: set {DIRECTORY_VARIABLE} to a "
            "directory of its own"
        )
    return caches / "delift"


@contextlib.contextmanager
def locked(name: str, *, seconds: float = WAIT_SECONDS, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock `name` of the cache directory, alone among all processes; gives whether it is held.

    Where there can be none (no such directory can be made, a file system without locks) and after `seconds` of
    waiting the work is done without: the lock spares double work, what is written is replaced whole in any case.

    Args:
        waiting: called once if another process holds it.
    """
    held = False
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            directory = cache_directory()
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC
            file = os.open(directory / f"{name}.lock", flags, 0o600)
            stack.callback(os.close, file)
            held = _take(file, seconds, waiting)
        yield held


def _take(file: int, seconds: float, waiting: Callable[[], None] | None) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if waiting is not None:
                waiting()
                waiting = None
            if time.monotonic() > until:
                return False
            time.sleep(0.1)


def read_book(name: str) -> dict[str, Any]:
    """The entries of a book; none where there is no such book, or no whole one."""
    try:
        entries = json.loads((cache_directory() / f"{name}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def remember(name: str, key: str, value: Any) -> None:
    """Add an entry to a book. What cannot be remembered is found out again: a full disk is no reason to fail."""
    with contextlib.suppress(OSError), locked(f"{name}.json", seconds=5.0):
        entries = {**read_book(name), key: value}
        write_own(cache_directory() / f"{name}.json", json.dumps(entries, indent=2).encode())


def write_own(path: Path, data: bytes) -> None:
    """Replace a file in one step, with a mode in which only its owner can change it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(data)
            os.fchmod(out.fileno(), 0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def is_own(path: Path) -> bool:
    """Is it a regular file that belongs to this user (or root), and that nobody else may write?"""
    try:
        status = path.lstat()
    except OSError:
        return False
    regular = (status.st_mode & 0o170000) == 0o100000
    return regular and status.st_uid in (os.geteuid(), 0) and not status.st_mode & 0o022


def file_sha256(*paths: Path) -> str:
    """SHA-256 of the files' bytes, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
