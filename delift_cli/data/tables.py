"""Parquet and Arrow to rows: each a JSON object under the names of the columns.

A map is an object. Bytes are the text that they are in UTF-8; others `fields` has a form for, which is no text.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InputError
from .fields import BYTES, Fault, RecordError, quoted, row_text

if TYPE_CHECKING:
    import pyarrow

_BATCH = 4096
TABLES = ("parquet", "arrow")
Make: TypeAlias = Callable[[Any], Any]


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
    """Place, from 1, and JSON text of each row, or a `Fault`.

    Raises:
        InputError: the data are damaged, or two columns have one name.
    """
    arrow = library(source)
    place = 0
    try:
        names = _schema(arrow, data, kind).names
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{source}: two columns have the name {quoted(twice)}")
        for batch in _batches(arrow, data, kind):
            maps = _with_maps(arrow, batch.schema)
            for row in batch.to_pylist():
                place += 1
                yield place, _row(row, maps)
    except InputError:
        raise
    except Exception as error:  # of a library that was not made for what anybody may send
        raise InputError(f"{source}: the {kind} data is damaged: {' '.join(str(error).split())}") from None


def _row(row: dict[str, Any], maps: Mapping[str, Make]) -> bytes:
    for name, make in maps.items():
        try:
            row[name] = make(row[name])
        except RecordError as error:
            return Fault(f"field {quoted(name)}: {error}".encode())
    return row_text(row, other)


def _with_maps(arrow: Any, fields: Iterable[Any]) -> dict[str, Make]:
    """Those of the fields of a schema or a struct that have maps in them, and what makes objects of these."""
    made = {field.name: _objects(arrow, field.type) for field in fields}
    return {name: make for name, make in made.items() if make is not None}


def _objects(arrow: Any, kind: Any) -> Make | None:
    """What makes objects of the maps in a value of this type, which Arrow gives as pairs; None where it has none."""
    if arrow.types.is_map(kind):
        inner = _objects(arrow, kind.item_type)
        return _unless_null(lambda pairs: _object(pairs, inner))
    if arrow.types.is_struct(kind):
        parts = _with_maps(arrow, kind)
        if not parts:
            return None
        return _unless_null(lambda value: value | {name: make(value[name]) for name, make in parts.items()})
    # what a list or a dictionary holds, or what stands for a type of somebody's own
    of = getattr(kind, "value_type", None) or getattr(kind, "storage_type", None)
    make = None if of is None else _objects(arrow, of)
    listed = hasattr(kind, "value_type") and not hasattr(kind, "index_type") and not hasattr(kind, "run_end_type")
    return _unless_null(lambda values: [*map(make, values)]) if make and listed else make


def _unless_null(make: Make) -> Make:
    return lambda value: None if value is None else make(value)


def _object(pairs: list[tuple[Any, Any]], inner: Make | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        name = key if isinstance(key, str) else other(key)
        if not isinstance(name, str):
            raise RecordError("a map has a key that is no text")
        if name in found:
            raise RecordError(f"a map has the key {quoted(name)} twice")
        found[name] = value if inner is None else inner(value)
    return found


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
            return {BYTES: b64encode(value).decode()}
    return str(value)
