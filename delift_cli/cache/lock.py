"""One writer at a time: the lock of a cache, and where locks may not reach."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
from pathlib import Path

from ..errors import RunError
from .files import NO_LOCKS, open_file

_OCTAL = re.compile(r"\\([0-7]{3})")  # what the kernel writes in place of white space in a path
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs")


def take_lock(path: Path) -> io.BufferedRandom:
    """Lock the cache at `path` until the file is closed; RunError names the process that has it.

    The kernel drops the lock of a process that is gone, so that no lock is ever stale.
    """
    try:
        lock = open(open_file(path / "lock", os.O_RDWR | os.O_CREAT), "r+b")  # noqa: SIM115 (it is held)
    except OSError as error:
        raise RunError(f"cannot write {path}: lock: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = lock.read(64).decode(errors="replace").strip()
        lock.close()
        if error.errno in NO_LOCKS:
            raise RunError(
                f"{path} cannot be locked ({error.strerror}): this file system keeps no second process out; "
                "score into a directory on a local disk"
            ) from None
        pid = owner if owner.isdecimal() else "unknown"
        raise RunError(f"{path} is being written by another delift (pid {pid}); wait for it") from None
    with contextlib.suppress(OSError):  # who holds it is for people; a full disk is told where it matters
        lock.truncate(0)
        os.write(lock.fileno(), str(os.getpid()).encode())
    return lock


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that `path` is on, None on a local disk or where it cannot be told.

    There a lock may not reach other machines: two that score into one cache may spoil each other's rows.
    """
    where, found = os.path.realpath(path), ("", "")
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
            _, place, kind, *_ = line.split(" ")
            place = _OCTAL.sub(lambda code: chr(int(code[1], 8)), place)
            inside = where == place or where.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(found[0]):
                found = place, kind
    return found[1] if found[1] in NETWORK else None
