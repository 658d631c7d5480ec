"""Where a run's records come from, and the cache that is named after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from ..data.folders import ENDINGS
from ..data.options import Reading
from ..data.reading import parse_lines, read_records
from ..data.record import RecordSet
from ..errors import InputError

# a file or several, - for stdin, or the records themselves
Source: TypeAlias = str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]]


def read_source(source: Source, reading: Reading) -> RecordSet:
    """The records of files, or those that are given themselves.

    Raises:
        InputError: as `read_records`.
    """
    if files := files_of(source):
        return read_records(files, reading)
    rows = [] if isinstance(source, str | Path) else source
    return parse_lines(b"".join(orjson.dumps(record) + b"\n" for record in rows), "<records>", reading)


def default_cache(source: Source, targets: Source | None, *, as_existing: bool) -> Path:
    """NAME.delift, after the set that makes this cache different from the pool's own."""
    named = files_of(source if targets is None or as_existing else targets)
    if not named or named[0] == "-":
        raise InputError("records without a file need a name for the cache: -o NAME.delift")
    return named_after(named[0])


def files_of(source: Source) -> list[str]:
    """The names in a source of files; none where it is the records themselves."""
    sources = [source] if isinstance(source, str | Path) else source
    return [str(name) for name in sources if isinstance(name, str | Path)]


def named_after(source: str) -> Path:
    """The cache of a file of records, where no other name is given."""
    name = Path(source.replace(":", "-") if source.startswith("hf:") else source).name
    for ending in (".gz", ".zst", *ENDINGS):
        name = name.removesuffix(ending)
    return Path(f"{name}.delift")
