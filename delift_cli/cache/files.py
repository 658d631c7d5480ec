"""Files of a cache: opened without following links, written whole, and what the disk says about it.

A cache may come from a stranger. So nothing in it is opened through a link, nothing but a plain file is read, a file
with a second name is not written to, and every new file is created under a name that was free. All writes are plain
writes, never through a memory map: a full disk is an error that can be reported, not a signal that kills the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import DamagedError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEPT_OUT = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of files that may well be sound
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_PIECE = 1 << 22  # bytes written at once


class Content(NamedTuple):
    """What a new file is to hold: so many bytes, in these chunks."""

    size: int
    chunks: Iterable[bytes | memoryview]

    @classmethod
    def of(cls, data: bytes) -> Content:
        """These bytes."""
        return cls(len(data), [data])


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
    return DamagedError(path.parent, path.name, f"cannot be read: {error.strerror or error}")


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
        if error.errno in (errno.EPERM, errno.EMLINK, errno.EXDEV, *NO_LOCKS):
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
