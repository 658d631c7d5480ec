"""Files of a cache: opened without following links, written whole, and what the disk says about it.

A cache may come from a stranger. So nothing in it is opened through a link, nothing but a plain file is read, a file
with a second name is not written to, and every new file is created under a name that was free. All writes are plain
writes, never through a memory map: a full disk is an error that can be reported, not a signal that kills the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import math
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DamagedError, InputError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEPT_OUT = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of files that may well be sound
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_PIECE = 1 << 22  # bytes written at once
_PLAIN_HEADER = re.compile(
    rb"\{'descr': '(<[fiu][248]|\|[iu]1)', 'fortran_order': \w{4,5}, 'shape': (\([\d, ]{0,60}\))"
)


class Content(NamedTuple):
    """What a new file is to hold: so many bytes, in these chunks."""

    size: int
    chunks: Iterable[bytes | memoryview]

    @classmethod
    def of(cls, data: bytes) -> Content:
        return cls(len(data), [data])

    @classmethod
    def of_array(cls, array: npt.NDArray[Any]) -> Content:
        """An array as an .npy file."""
        return cls.of(header(array.shape, array.dtype) + array.tobytes())


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """The descriptor of a plain file; OSError for a link, a pipe, a device or a folder."""
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, and no link in a cache is followed", str(path)) from None
        raise
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
        os.close(file)
        raise OSError(errno.EMLINK, "it has a second name (a hard link), which would be changed too", str(path))
    return file


def may_append(path: Path) -> bool:
    """Is this a plain file with one name, or nothing yet, and can it be written to?"""
    try:
        os.close(open_file(path, os.O_WRONLY | os.O_CREAT))
    except OSError:
        return False
    return True


def is_folder(path: Path) -> bool:
    """Is this a folder, and no link to one?"""
    with contextlib.suppress(OSError):
        return stat.S_ISDIR(path.lstat().st_mode)
    return False


def read_file(path: Path) -> bytes:
    """The content of a plain file; OSError."""
    with open(open_file(path), "rb") as file:
        return file.read()


def read_bytes(path: Path) -> bytes:
    """The content of a plain file; see `not_opened`."""
    try:
        return read_file(path)
    except OSError as error:
        raise not_opened(path, error) from None


def not_opened(path: Path, error: OSError) -> DamagedError | RunError:
    """That a file of a cache cannot be read: it is damaged (DamagedError), or this process is kept out (RunError)."""
    if error.errno in _KEPT_OUT:
        return RunError(f"{path} cannot be read: {error.strerror}")
    return DamagedError(f"{path.parent} is damaged: {path.name}: {error.strerror or error}")


def write_all(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data`, in as many pieces as the disk takes it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view[:_PIECE], offset)
        view, offset = view[written:], offset + written


def create_file(path: Path, content: Content) -> None:
    """A new file whose content is on disk when this returns; FileExistsError where there is one."""
    file = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        _fill(file, content)
    finally:
        os.close(file)


def replace_file(path: Path, content: Content) -> None:
    """Put a file in place in one step; who is killed on the way leaves at most a draft beside it."""
    draft = path.with_name(f".{path.name}.draft")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    create_file(draft, content)
    os.replace(draft, path)
    sync_directory(path.parent)


def write_files(folder: Path, contents: Mapping[str, Content | Path], path: Path) -> None:
    """New files, also in folders of this folder; they are on disk when this returns.

    The room for all of them is taken before the first is written. In place of a content may stand the path of a file
    that is to get this second name (a copy where the file system knows no hard links). `path` is the cache's.

    Raises:
        RunError: there is not so much room.
    """
    written = {name: content for name, content in contents.items() if isinstance(content, Content)}
    folders = sorted({(folder / name).parent for name in contents} - {folder})
    for inner in folders:
        os.mkdir(inner)
    try:
        for name, content in written.items():
            file = open_file(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                _reserve(file, content.size)
            finally:
                os.close(file)
    except OSError as error:
        if error.errno in _FULL:
            raise no_room(path, sum(content.size for content in written.values()), error) from None
        raise
    for name, content in written.items():
        file = open_file(folder / name, os.O_WRONLY)
        try:
            _fill(file, content)
        finally:
            os.close(file)
    for name, other in contents.items():
        if isinstance(other, Path) and not link(other, folder / name):
            data = read_file(other)
            create_file(folder / name, Content.of(data))
    for inner in (*folders, folder):
        sync_directory(inner)


def link(path: Path, name: Path) -> bool:
    """Give a file a second name; whether the file system can."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EMLINK, errno.EXDEV, *_NO_LOCKS):
            return False
        raise
    return True


def take_room(file: Path, size: int, path: Path) -> None:
    """A new file of so many bytes, for whose sake the room is taken; RunError where the cache at `path` has none."""
    room = open_file(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        _reserve(room, size)
    except OSError as error:
        os.unlink(file)
        if error.errno in _FULL:
            raise no_room(path, size, error) from None
        raise
    finally:
        os.close(room)


def _fill(file: int, content: Content) -> None:
    offset = 0
    for chunk in content.chunks:
        write_all(file, chunk, offset)
        offset += len(chunk)
    os.fsync(file)


def _reserve(file: int, size: int) -> None:
    """Take the room for so many bytes; a file system that cannot promise it finds out when it is written."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno in _FULL:
                raise


def no_room(path: Path, needed: int, error: OSError) -> RunError:
    """That `needed` bytes do not fit where `path` is."""
    free = shutil.disk_usage(path if path.exists() else path.parent).free
    return RunError(
        f"no space left for {path}: {needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free "
        f"({error.strerror}); make room and run the same command again"
    )


def sync(file: int) -> None:
    """Wait until an open file's data are on disk."""
    getattr(os, "fdatasync", os.fsync)(file)


def sync_directory(path: Path) -> None:
    """Wait until a directory's entries are on disk."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


# ---- .npy files


def header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What an .npy file of a C-ordered array begins with."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )
    return buffer.getvalue()


def array_size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an .npy file."""
    return len(header(shape, dtype)) + math.prod(shape) * dtype.itemsize


def _data_offset(file: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Where the data of an .npy file begin; ValueError unless header and size are those of this very array.

    Nothing in the header is evaluated: it is compared with the one line that this array can have.
    """
    start = os.pread(file, 10, 0)
    length = int.from_bytes(start[8:10], "little")
    text = os.pread(file, length, 10)
    descr = np.lib.format.dtype_to_descr(dtype)
    wanted = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode("latin-1")
    if start[:8] != b"\x93NUMPY\x01\x00" or len(text) != length or text[-1:] != b"\n":
        raise ValueError("does not begin as an .npy file")
    if text[:-1].rstrip(b" ") != wanted:
        held = _PLAIN_HEADER.match(text)
        what = f"{np.dtype(held[1].decode())} {held[2].decode()}" if held else "something else"
        if what == f"{dtype} {shape}":
            raise ValueError("does not begin as it was written")
        raise ValueError(f"holds {what}, not {dtype} {shape}")
    size, expected = os.fstat(file).st_size, 10 + length + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise ValueError(f"has {size:,} bytes, not {expected:,}")
    return 10 + length


def open_array(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A memory map of the array of this shape and type, else InputError; see also `not_opened`."""
    dtype = np.dtype(dtype)
    try:
        with open(open_file(path), "rb") as file:
            offset = _data_offset(file.fileno(), shape, dtype)
            if 0 in shape:
                return np.empty(shape, dtype)
            return np.memmap(file, dtype, "r", offset, shape)
    except OSError as error:
        raise not_opened(path, error) from None
    except ValueError as error:
        raise InputError(f"{path.parent} is damaged: {path.name} {error}") from None


def settled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy of an array that may be written to meanwhile.

    An element is written at once, but who reads it then can see half of it before and half of it behind: what is the
    same when it is read again is whole.
    """
    found = np.array(array)
    while (again := np.array(array)).tobytes() != found.tobytes():
        found = again
    return found


class ArrayFile:
    """An .npy file opened for writing in place; InputError where it is not that of such an array."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        try:
            self.file = open_file(path, os.O_RDWR)
        except OSError as error:
            raise InputError(f"{path.parent}: {path.name} cannot be written: {error.strerror}") from None
        try:
            self._offset = _data_offset(self.file, shape, self.dtype)
        except ValueError as error:
            os.close(self.file)
            raise InputError(f"{path.parent} is damaged: {path.name} {error}") from None

    def write(self, element: int, values: npt.NDArray[Any]) -> None:
        """Write `values` from the array's element `element` (in C order) on."""
        data = np.ascontiguousarray(values, self.dtype)
        write_all(self.file, data.tobytes(), self._offset + element * self.dtype.itemsize)

    def sync(self) -> None:
        """Wait until what was written is on disk."""
        sync(self.file)

    def close(self) -> None:
        os.close(self.file)


def checksum(arrays: Iterable[npt.NDArray[Any]]) -> int:
    """CRC-32 of the arrays' bytes, one after the other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc


# ---- one writer at a time, and what the disk says


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
        if error.errno in _NO_LOCKS:
            raise RunError(
                f"{path} cannot be locked ({error.strerror}): this file system keeps no second process out; "
                "score into a directory on a local disk"
            ) from None
        pid = owner if owner.isdecimal() else "unknown"
        raise RunError(f"{path} is being written by another delift (pid {pid}); wait for it") from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()
    return lock


NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs")


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that `path` is on, None on a local disk or where it cannot be told.

    There a lock may not reach other machines: two that score into one cache may spoil each other's rows.
    """
    where, found = os.path.realpath(path), ("", "")
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
            _, place, kind, *_ = line.split(" ")
            inside = where == place or where.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(found[0]):
                found = place, kind
    return found[1] if found[1] in NETWORK else None


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn what the disk says into one line for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(
                f"no space left for {path} ({error.strerror}); what was scored is safe, "
                "make room and run the same command again"
            ) from None
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        raise RunError(f"cannot write {path}: {error.strerror or error}{where}") from None
