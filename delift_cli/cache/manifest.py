"""What a cache says it is: its manifest, how it is described, compared and checked before anything is read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ..data.record import RecordSet
from ..errors import DamagedError, InputError
from .files import Content, read_bytes, read_file, replace_file
from .npy import checksum

FORMAT = "delift-cache"
VERSION = 2  # since when everything has a checksum, and records may change anywhere
READ = (1, 2)
MISMATCH = "does not match its checksum"
_ANEW = "score into a new directory"
DENSE = "dense"  # the layout of caches from before there were two, which do not name theirs
HERE = "."  # where the files of a cache are, unless they were made anew and have not taken their places yet
BASES = ("base_distance", "base_logprob")
TOKENS = ("example_tokens", "response_tokens")
BASE_CRC = np.dtype([("distance", "<u4"), ("logprob", "<u4")])  # of one target's measurements, 0: not measured
MAX_RECORDS = 2**31 - 1  # targets are counted in int32
_GENERATION = re.compile(r"generation-[1-9]\d{0,8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _optional_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value <= MAX_RECORDS


def _optional_whole(value: Any) -> bool:
    return value is None or _whole(value)


def _sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _checksums(value: Any) -> bool:
    return isinstance(value, dict) and all(type(crc) is int and 0 <= crc < 2**32 for crc in value.values())


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())


def _numbers(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(type(number) in (int, float) for number in value.values()))


def _roles(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(role, str) for role in value.values()))


def _file_names(value: Any) -> bool:
    return isinstance(value, list) and all(_name(name) for name in value)


def _files(value: Any) -> bool:
    return isinstance(value, str) and (value == HERE or _GENERATION.fullmatch(value) is not None)


_ROLES = ("examples", "targets")
_FIELDS: dict[str, Callable[[Any], bool]] = {  # what every manifest has, and which values are right
    **{f"{role}.{name}": _text for role in _ROLES for name in ("source", "form")},
    **{f"{role}.sha256": _sha256 for role in _ROLES},
    **{f"{role}.count": _whole for role in _ROLES},
    "model.name": _text,
    "model.sha256": _sha256,
    "model.quantization": _optional_text,
    "model.architecture": _optional_text,
    **{f"template.{name}": _text for name in ("name", "text")},
    "template.arguments": lambda value: value is None or isinstance(value, dict),
    **{f"fields.{name}": _optional_text for name in ("prompt", "response")},
    "targets.same_as_examples": lambda value: isinstance(value, bool),
    "weights.type": _name,
    "weights.deviation": _numbers,
    "run.batch": _whole,
    "run.states": _optional_whole,  # not in caches from before there were hybrid models
    "metric": _object,
    "settings": _object,
    "settings.kv_type": _name,
    "settings.flash_attention": _name,
    "settings.truncate": _optional_whole,
    "settings.max_response_tokens": _optional_whole,
    "fields": _object,
    "fields.turns": _optional_text,
    "fields.roles": _roles,
}
_THERE = ("fields.prompt", "fields.response", "settings.truncate", "weights.deviation")  # also where it is null
_FIELDS_OF_VERSION: dict[int, dict[str, Callable[[Any], bool]]] = {
    1: {"pending": _file_names},
    2: {
        "layout": _name,
        "files": _files,
        "checksums": _checksums,
        "checksum": _sha256,
        **{f"{role}.ids": _sha256 for role in _ROLES},
        **{f"{role}.layouts": _counts for role in _ROLES},
        **{f"checksums.{name}": lambda value: type(value) is int for name in TOKENS},
    },
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
        "files": HERE,
        "checksums": {name: checksum([arrays[name]]) for name in TOKENS},
    }


_NOT_COMPARED = {
    "version", "run", "examples", "targets", "pending", "files", "checksums", "checksum", "file", "name", "deviation",
}  # fmt: skip


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """The fields that two manifests do not share, with both values; see `_NOT_COMPARED`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here} - _NOT_COMPARED):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} (there {_brief(there)}, now {_brief(here)})"


def _brief(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else orjson.dumps(value, default=str).decode()).split())
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"


def _describe_records(records: RecordSet) -> dict[str, Any]:
    return {
        "source": os.fsencode(records.source).decode("utf-8", "replace"),  # file names may be any bytes
        "form": records.form,
        "count": len(records.records),
        "sha256": records_hash(records),
        "ids": hashlib.sha256(ids(records)).hexdigest(),
        "layouts": records.layouts,
    }


def records_hash(records: RecordSet) -> str:
    """SHA-256 of the records as a cache keeps them."""
    return hashlib.sha256(lines(records)).hexdigest()


def same_records(manifest: Mapping[str, Any], examples: RecordSet, targets: RecordSet | None) -> bool:
    """Is this the manifest of a cache of these records? No targets: the examples are scored against themselves."""
    sides = {"examples": examples, "targets": examples if targets is None else targets}
    return all(manifest[side]["sha256"] == records_hash(records) for side, records in sides.items())


def record_files(examples: RecordSet, targets: RecordSet | None) -> dict[str, bytes]:
    """The files of a cache that hold its records, by name."""
    sets = {"examples": examples} if targets is None else {"examples": examples, "targets": targets}
    files = {}
    for role, records in sets.items():
        files[f"{role}.jsonl"] = lines(records)
        files[f"{role}.ids.json"] = ids(records)
    return files


def ids(records: RecordSet) -> bytes:
    """The records' ids and line numbers in their source, as JSON."""
    return orjson.dumps([(record.id, record.line) for record in records.records])


def lines(records: RecordSet) -> bytes:
    """The records as they came in, one a line."""
    return b"".join(record.raw + b"\n" for record in records.records)


def empty_arrays(example_tokens: Sequence[int], response_tokens: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a cache has in any layout, with nothing scored."""
    nothing = np.full(len(response_tokens), np.nan, np.float32)
    return {
        "base_distance": nothing,
        "base_logprob": nothing.copy(),
        "base_crc": np.zeros(len(response_tokens), BASE_CRC),
        "example_tokens": np.asarray(example_tokens, np.int32),
        "response_tokens": np.asarray(response_tokens, np.int32),
    }


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Put a manifest in place in one step, with its checksum."""
    manifest = {**manifest, "checksum": _digest(manifest)}
    replace_file(path / "manifest.json", Content.of(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n"))


def _digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of everything that a manifest says."""
    said = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


def cache_around(path: Path) -> Path | None:
    """The cache that `path` is or lies in, links followed; None where it lies in none."""
    place = Path(os.path.realpath(path))
    return next((folder for folder in (place, *place.parents) if _names_a_cache(folder / "manifest.json")), None)


def _names_a_cache(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return FORMAT.encode() in read_file(file)  # also where it is damaged
    return False


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the cache at `path`; InputError where there is none, or not one that this version reads."""
    if path.is_file():
        raise InputError(f"{path} is a file, not a cache; make one with: delift score {path}")
    if not path.is_dir():
        raise InputError(f"{path}: no such cache; make it with: delift score … -o {path}")
    file = path / "manifest.json"
    if not os.path.lexists(file) and os.path.lexists(path / "examples.ids.json"):
        raise DamagedError(path, file.name, "is missing", _ANEW)
    if not os.path.lexists(file):
        raise InputError(f"{path} is not a delift cache (it has no manifest.json); nothing was touched")
    try:
        manifest = orjson.loads(read_bytes(file))
    except orjson.JSONDecodeError as error:
        raise DamagedError(path, file.name, f"is not JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} is not a delift cache (manifest.json is something else's)")
    version = manifest.get("version")
    if type(version) is not int or version not in READ:
        raise InputError(
            f"{path} has cache format {_brief(version)}, this delift reads {' and '.join(map(str, READ))}; "
            "update delift or score again"
        )
    wanted = {**_FIELDS, **_FIELDS_OF_VERSION[version]}
    wrong = next((name for name, right in wanted.items() if not right(field(manifest, name))), None)
    wrong = wrong or next((name for name in _THERE if not _has(manifest, name)), None)
    if wrong:
        raise DamagedError(path, file.name, f"has no proper {wrong}")
    if version == 1:  # caches from before there were two layouts do not name theirs
        manifest = {"layout": DENSE, "files": HERE, **manifest}
        if not (_name(manifest["layout"]) and manifest["files"] == HERE and _checksums(manifest.get("checksums", {}))):
            raise DamagedError(path, file.name, "says what no cache of format 1 does")
    elif manifest["checksum"] != _digest(manifest):
        raise DamagedError(path, file.name, MISMATCH, _ANEW)
    if manifest["targets"]["same_as_examples"] and manifest["targets"]["sha256"] != manifest["examples"]["sha256"]:
        raise DamagedError(path, file.name, "gives a pool two hashes")
    return manifest


def _has(manifest: dict[str, Any], name: str) -> bool:
    section, last = name.split(".")
    return last in manifest[section]


def field(manifest: Any, name: str) -> Any:
    """A manifest's value by its dotted name, None where there is none."""
    for part in name.split("."):
        manifest = manifest.get(part) if isinstance(manifest, dict) else None
    return manifest


def adapters_of(manifest: dict[str, Any]) -> list[tuple[str, float]]:
    """SHA-256 and scale of each LoRA adapter that the model was scored with."""
    return [(entry["sha256"], entry["scale"]) for entry in manifest["model"].get("adapters", {}).values()]
