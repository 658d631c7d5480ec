"""Files of a cache: arrays written in place, read in place, and what the disk says about it.

All writes are plain writes, never through a memory map: a full disk is an error that can be reported, not a
signal that kills the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, RunError


def header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What an .npy file of a C-ordered array begins with."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )
    return buffer.getvalue()


def write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """A new file whose content is on disk when this returns."""
    with path.open("wb", buffering=1 << 20) as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def array_file(array: npt.NDArray[Any]) -> list[bytes]:
    """An array as the content of an .npy file."""
    return [header(array.shape, array.dtype), array.tobytes()]


def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A memory map of an array that must have this shape and type, else InputError."""
    try:
        if 0 in shape:
            return np.load(path)
        array = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path.parent} is damaged: {path.name}: {error}") from None
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"{path.parent} is damaged: {path.name} holds {array.dtype} {array.shape}, not {dtype} {shape}"
        )
    return array


def read_bytes(path: Path) -> bytes:
    """A file's content, or InputError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.parent} is damaged: {path.name}: {error.strerror}") from None


def checksum(arrays: Iterable[npt.NDArray[Any]]) -> int:
    """CRC-32 of the arrays' bytes, one after the other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc


def write_all(file: int, data: bytes, offset: int) -> None:
    """Write all of `data`, in as many pieces as the disk takes it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def sync(file: int) -> None:
    """Wait until an open file's data are on disk."""
    getattr(os, "fdatasync", os.fsync)(file)


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries are on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def take_lock(path: Path) -> io.BufferedRandom:
    """Lock the cache at `path` until the file is closed; RunError names the process that has it."""
    lock = (path / "lock").open("a+b")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().decode(errors="replace").strip() or "unknown"
        lock.close()
        raise RunError(f"{path} is being written by another delift (pid {owner}); wait for it") from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()
    return lock


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn what the disk says into one line for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(
                f"no space left for {path} ({error.strerror}); what was scored is safe, "
                "make room and run the same command again"
            ) from None
        raise RunError(f"cannot write {path}: {error}") from None
