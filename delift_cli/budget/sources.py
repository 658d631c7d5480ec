"""Where a run's records come from, and the cache that is named after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import orjson

from ..data.folders import ENDINGS
from ..data.options import Reading
from ..data.reading import parse_lines, read_records
from ..data.record import RecordSet
from ..errors import InputError

# a file or several, - for stdin, or the records themselves
Source: TypeAlias = str | Path | Iterable[str | Path] | Iterable[Mapping[str, Any]]


def listed(source: Source) -> list[Any]:
    """The files of a source, or its records, as a list that can be gone through again.

    Raises:
        InputError: it has both, or is neither.
    """
    if isinstance(source, str | Path):
        return [source]
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise InputError(f"give a file, several, or a list of records, not one {type(source).__name__}")
    given = list(source)
    if len({isinstance(one, str | Path) for one in given}) > 1:
        raise InputError("give files or records, not both in one list")
    return given


def read_source(source: Source, reading: Reading) -> RecordSet:
    """The records of files, or those that are given themselves.

    Raises:
        InputError: as `read_records` and `listed`.
    """
    given = listed(source)
    if files := files_of(given):
        return read_records(files, reading)
    lines = (_as_json(record, f"<records>: record {number}") for number, record in enumerate(given, 1))
    return parse_lines(b"\n".join(lines), "<records>", reading)


def _as_json(record: Any, named: str) -> bytes:
    """A record as a line of a file.

    Raises:
        InputError: it is not JSON; where it stands, which field, if that can be told, and why.
    """
    try:
        line = orjson.dumps(record, _as_dict, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS)
    except orjson.JSONEncodeError as error:
        raise InputError(f"{named}: it cannot be written as JSON: {error}") from None
    if b"null" in line and (field := _not_finite(record)) is not None:
        raise InputError(f"{named}: {field} is not a finite number; give None or leave it out")
    return line


def _as_dict(value: Any) -> dict[Any, Any]:
    """What json takes in place of a mapping that is no dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON")


def _not_finite(value: Any, name: str = "it") -> str | None:
    """Where in a value that could be written a number stands that JSON would turn into null."""
    if isinstance(value, float | np.floating):
        return None if np.isfinite(value) else name
    if isinstance(value, np.ndarray):
        return name if value.dtype.kind == "f" and not np.isfinite(value).all() else None
    if isinstance(value, Mapping):
        inside = [(one, key if name == "it" else f"{name}.{key}") for key, one in value.items()]
    elif isinstance(value, list | tuple):
        inside = [(one, name) for one in value]
    else:
        return None
    return next((found for one, called in inside if (found := _not_finite(one, called)) is not None), None)


def default_cache(source: Source, targets: Source | None, *, as_existing: bool) -> Path:
    """NAME.delift, after the set that makes this cache different from the pool's own."""
    named = files_of(source if targets is None or as_existing else targets)
    if not named or named[0] == "-":
        raise InputError("records without a file need a name for the cache: -o NAME.delift")
    return named_after(named[0])


def files_of(source: Source) -> list[str]:
    """The names in a source of files; none where it is the records themselves."""
    return [str(name) for name in listed(source) if isinstance(name, str | Path)]


def named_after(source: str) -> Path:
    """The cache of a file of records, where no other name is given."""
    name = Path(source.replace(":", "-") if source.startswith("hf:") else source).name
    for ending in (".gz", ".zst", *ENDINGS):
        name = name.removesuffix(ending)
    return Path(f"{name}.delift")
