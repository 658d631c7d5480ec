"""Selected records out: the very lines that came in, or what a pipeline wants to know of them."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ..data.folders import kind_of
from ..data.ids import Names
from ..data.record import Record
from ..data.tables import TABLES, library
from ..data.writing import packed, written
from ..errors import InputError, RunError
from ..progress import Say, silent
from ..submodular.select import Selection

SCORES = "delift"  # the field that --with-scores adds


def check_form(form: str, destination: Path | None, *, ids_only: bool = False) -> None:
    """InputError where records in this form, or their ids, cannot be written: before the work, not after it."""
    if ids_only and destination is not None and kind_of(destination.name):
        raise InputError(f"{destination}: ids are lines of text, not a file of records; name it .txt, say")
    if form in TABLES and not ids_only:
        library(form)


def render(
    records: Sequence[Record],
    selection: Selection,
    *,
    form: str,
    whole: float,
    came: str = "",
    source: str = "",
    folders: Sequence[Path] = (Path(),),
    say: Say = silent,
    input_order: bool = False,
    with_scores: bool = False,
    ids_only: bool = False,
) -> bytes:
    """The selected records as bytes.

    Args:
        form: `jsonl` gives one line each, `array` a JSON array; the others see `data.writing`, also for `came`,
            `source` and `folders`.
        say: takes what there is to say of the form.
        whole: what the whole pool is worth; the coverage of a record is the share of it that the selection
            reached with that record.
        with_scores: adds to each record a field `delift` of id, rank (from 1), gain and coverage.
    """
    reached = selection.curve / whole if whole > 0 else selection.curve * 0
    order = (np.argsort(selection.indices) if input_order else np.arange(len(selection.indices))).tolist()
    if ids_only:
        names = Names(records)
        return b"".join(names.name(int(selection.indices[rank])).encode() + b"\n" for rank in order)
    chosen = [records[selection.indices[rank]] for rank in order]
    lines = [record.raw for record in chosen]
    added = {}
    if with_scores:
        added[SCORES] = [
            {"id": record.id, "rank": rank + 1, "gain": float(selection.gains[rank]), "coverage": float(reached[rank])}
            for rank, record in zip(order, chosen, strict=True)
        ]
        lines = [_with_field(line, SCORES.encode(), score) for line, score in zip(lines, added[SCORES], strict=True)]
    data, said = written(lines, form, records=chosen, came=came, source=source, folders=folders, added=added)
    if said:
        say(said)
    return data


def _with_field(line: bytes, name: bytes, value: dict[str, Any]) -> bytes:
    """A record's JSON with one more field; what was there keeps its bytes (numbers of any size, spacing)."""
    fields = orjson.loads(line)
    if not isinstance(fields, dict):
        raise InputError("records that are lists of turns have no fields to add scores to; leave out --with-scores")
    if name.decode() in fields:
        return orjson.dumps({**fields, name.decode(): value})
    return b'%s, "%s": %s}' % (line.rstrip().removesuffix(b"}").rstrip(), name, orjson.dumps(value))


def write(data: bytes, destination: Path | None) -> None:
    """To a file, whole or not at all and compressed where its name says so, or to stdout.

    What is there and is no file, /dev/null or a pipe say, is written to and stays what it is.
    """
    if destination is None:
        left = memoryview(data)
        while left:  # an unbuffered stdout (PYTHONUNBUFFERED) may take a part
            left = left[sys.stdout.buffer.write(left) :]
        sys.stdout.buffer.flush()
        return
    data = packed(data, destination)
    try:
        if destination.exists() and not destination.is_file():
            destination.write_bytes(data)
            return
        _replace(destination.resolve(), data)  # a link stays, what it points to is replaced
    except OSError as error:
        raise RunError(f"cannot write {destination}: {error.strerror}") from None


def _replace(final: Path, data: bytes) -> None:
    """Put a file in the place of another one, which keeps its mode and, as far as may be, its owner."""
    draft = final.with_name(f".{final.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    there = final.stat() if final.exists() else None
    mode = 0o666 if there is None else stat.S_IMODE(there.st_mode) & 0o700  # no one else before it is done
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode))
        draft.write_bytes(data)
        if there is not None:
            with contextlib.suppress(OSError):
                os.chown(draft, there.st_uid, there.st_gid)
            draft.chmod(stat.S_IMODE(there.st_mode))
        os.replace(draft, final)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
