"""What a cache says it is: its manifest, how it is described, compared and checked before anything is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ..data.record import RecordSet
from ..errors import InputError
from .files import checksum, sync_directory, write_file

FORMAT = "delift-cache"
VERSION = 1
DENSE = "dense"  # the layout of caches from before there were two, which do not name theirs
BASES = ("base_distance", "base_logprob")
TOKENS = ("example_tokens", "response_tokens")
_FIELDS: dict[str, Any] = {  # what every manifest has, and what kind of value
    **{f"{role}.{name}": str for role in ("examples", "targets") for name in ("source", "form", "sha256")},
    **{f"{role}.count": int for role in ("examples", "targets")},
    **{f"model.{name}": str for name in ("name", "sha256")},
    **{f"template.{name}": str for name in ("name", "text")},
    **{f"fields.{name}": (str, type(None)) for name in ("prompt", "response")},
    "targets.same_as_examples": bool,
    "weights.type": str,
    "run.batch": int,
    "run.states": (int, type(None)),  # not in caches from before there were hybrid models
    "settings": dict,
    "fields": dict,
    "pending": list,
}


def describe(
    layout: str,
    description: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    arrays: dict[str, npt.NDArray[Any]],
) -> dict[str, Any]:
    """The manifest of a cache that begins with these records and arrays."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "layout": layout,
        **description,
        "examples": _describe_records(examples),
        "targets": {**_describe_records(targets or examples), "same_as_examples": targets is None},
        "pending": [],
        "checksums": {name: checksum([arrays[name]]) for name in TOKENS},
    }


_NOT_COMPARED = {"run", "examples", "targets", "pending", "checksums", "file", "name", "deviation"}


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """The fields that two manifests do not share, with both values; see `_NOT_COMPARED`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here} - _NOT_COMPARED):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} (there {_brief(there)}, now {_brief(here)})"


def _brief(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else orjson.dumps(value).decode()).split())
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"


def changed_records(data: bytes, role: str, records: RecordSet) -> Iterator[str]:
    """What a cache keeps of its records against those of now: nothing where these only add to its end."""
    there = data.split(b"\n")[:-1]
    if len(there) > len(records.records):
        yield f"{role} (there {len(there)} records, now {len(records.records)})"
        return
    for at, (line, record) in enumerate(zip(there, records.records, strict=False)):
        if line != record.raw:
            yield f"{role} (record {at + 1}, now {record.id}, was another one)"
            return


def _describe_records(records: RecordSet) -> dict[str, Any]:
    return {
        "source": os.fsencode(records.source).decode("utf-8", "replace"),  # file names may be any bytes
        "form": records.form,
        "count": len(records.records),
        "sha256": hashlib.sha256(lines(records)).hexdigest(),
        "layouts": records.layouts,
    }


def record_files(examples: RecordSet, targets: RecordSet | None) -> dict[str, bytes]:
    """The files of a cache that hold its records, by name."""
    sets = {"examples": examples} if targets is None else {"examples": examples, "targets": targets}
    files = {}
    for role, records in sets.items():
        files[f"{role}.jsonl"] = lines(records)
        files[f"{role}.ids.json"] = orjson.dumps([(record.id, record.line) for record in records.records])
    return files


def lines(records: RecordSet) -> bytes:
    """The records as they came in, one a line."""
    return b"".join(record.raw + b"\n" for record in records.records)


def empty_arrays(example_tokens: Sequence[int], response_tokens: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a cache has in any layout, with nothing scored."""
    nothing = np.full(len(response_tokens), np.nan, np.float32)
    return {
        "base_distance": nothing,
        "base_logprob": nothing.copy(),
        "example_tokens": np.asarray(example_tokens, np.int32),
        "response_tokens": np.asarray(response_tokens, np.int32),
    }


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Put a manifest in place in one step."""
    draft = path / "manifest.json.new"
    write_file(draft, [orjson.dumps(manifest, option=orjson.OPT_INDENT_2), b"\n"])
    draft.replace(path / "manifest.json")
    sync_directory(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the cache at `path`; InputError where there is none, or not one of this version."""
    if path.is_file():
        raise InputError(f"{path} is a file, not a cache; make one with: delift score {path}")
    if not path.is_dir():
        raise InputError(f"{path}: no such cache; make it with: delift score … -o {path}")
    file = path / "manifest.json"
    if not file.exists():
        raise InputError(f"{path} is not a delift cache (it has no manifest.json); nothing was touched")
    try:
        manifest = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: manifest.json: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} is not a delift cache (manifest.json is something else's)")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{path} has cache format {manifest.get('version')}, this delift reads {VERSION}; "
            "update delift or score again"
        )
    lacking = next((name for name, kind in _FIELDS.items() if not isinstance(field(manifest, name), kind)), None)
    if lacking:
        raise InputError(f"{path} is damaged: manifest.json has no proper {lacking}")
    return {"layout": DENSE, **manifest}  # caches from before there were two layouts do not name theirs


def field(manifest: Any, name: str) -> Any:
    """A manifest's value by its dotted name, None where there is none."""
    for part in name.split("."):
        manifest = manifest.get(part) if isinstance(manifest, dict) else None
    return manifest
