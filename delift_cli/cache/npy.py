"""Arrays in .npy files: opened only as the very array they must be, written in place, and their checksums."""

from __future__ import annotations

import io
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DamagedError, InputError
from .files import Content, not_opened, open_file, sync, write_all

_PLAIN_HEADER = re.compile(
    rb"\{'descr': '(<[fiu][248]|\|[iu]1)', 'fortran_order': \w{4,5}, 'shape': (\([\d, ]{0,60}\))"
)


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


def array_content(array: npt.NDArray[Any]) -> Content:
    """What the .npy file of an array is to hold."""
    return Content.of(header(array.shape, array.dtype) + array.tobytes())


def array_contents(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Content]:
    """The same of several, by the names of their files."""
    return {f"{name}.npy": array_content(array) for name, array in arrays.items()}


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
    """A memory map of the array of this shape and type, else DamagedError; see also `not_opened`."""
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
        raise DamagedError(path.parent, path.name, str(error)) from None


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
    """An .npy file opened for writing in place.

    Raises:
        InputError: it cannot be written to.
        DamagedError: it does not hold such an array.
    """

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
            raise DamagedError(path.parent, path.name, str(error)) from None

    def write(self, element: int, values: npt.NDArray[Any]) -> None:
        """Write `values` from the array's element `element` (in C order) on."""
        data = np.ascontiguousarray(values, self.dtype)
        write_all(self.file, data.tobytes(), self._offset + element * self.dtype.itemsize)

    def sync(self) -> None:
        """Wait until what was written is on disk."""
        sync(self.file)

    def close(self) -> None:
        """Give the file back; nothing is waited for."""
        os.close(self.file)


def checksum(arrays: Iterable[npt.NDArray[Any]]) -> int:
    """CRC-32 of the arrays' bytes, one after the other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc
