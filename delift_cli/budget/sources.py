"""Where a run's records come from, and the cache that is named after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

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
    return parse_lines(b"".join(orjson.dumps(record) + b"\n" for record in given), "<records>", reading)


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
