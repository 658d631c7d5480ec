"""Parquet and Arrow to rows: each a JSON object under the names of the columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .fields import row_text

if TYPE_CHECKING:
    import pyarrow

_BATCH = 4096


def kind_of(head: bytes) -> str | None:
    """ "parquet" or "arrow" by the first bytes of a file, else None."""
    if head[:4] == b"PAR1":
        return "parquet"
    return "arrow" if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff" else None


def library(source: str) -> Any:
    """pyarrow, with its parquet module; InputError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f'{source}: for Parquet and Arrow files: pip install "delift-cli[data]"') from None
    return pyarrow


def table_rows(data: bytes, kind: str, source: str) -> Iterator[tuple[int, bytes]]:
    """Place, from 1, and JSON text of each row."""
    arrow = library(source)
    place = 0
    try:
        for batch in _batches(arrow, data, kind):
            for row in batch.to_pylist():
                place += 1
                yield place, row_text(row, other)
    except Exception as error:  # of a library that was not made for what anybody may send
        raise InputError(f"{source}: the {kind} data is damaged: {' '.join(str(error).split())}") from None


def read_table(data: bytes, kind: str, source: str) -> pyarrow.Table:
    """The whole table, with its schema."""
    arrow = library(source)
    return arrow.Table.from_batches(list(_batches(arrow, data, kind)), schema=_schema(arrow, data, kind))


def _batches(arrow: Any, data: bytes, kind: str) -> Iterator[Any]:
    source = arrow.BufferReader(data)
    if kind == "parquet":
        yield from map(_sound, arrow.parquet.ParquetFile(source).iter_batches(_BATCH))
    elif data[:6] == b"ARROW1":
        reader = arrow.ipc.open_file(source)
        for place in range(reader.num_record_batches):
            yield from _slices(_sound(reader.get_batch(place)))
    else:
        for batch in arrow.ipc.open_stream(source):
            yield from _slices(_sound(batch))


def _sound(batch: Any) -> Any:
    """A batch as it lay in the file, every offset and text in it looked at: Arrow itself reads where these point to."""
    batch.validate(full=True)
    return batch


def _slices(batch: Any) -> Iterator[Any]:
    for first in range(0, batch.num_rows, _BATCH):
        yield batch.slice(first, _BATCH)


def _schema(arrow: Any, data: bytes, kind: str) -> Any:
    source = arrow.BufferReader(data)
    if kind == "parquet":
        return arrow.parquet.ParquetFile(source).schema_arrow
    return (arrow.ipc.open_file if data[:6] == b"ARROW1" else arrow.ipc.open_stream)(source).schema


def other(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"<{len(value):,} bytes>"
    return str(value)
