"""What a fuzzer is let loose on: every place where bytes of somebody else's are read, and bytes to begin with.

Each target takes bytes and may raise DeliftError, nothing else. What is behind a checksum is given the right one, so
that the checks behind it are reached.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hostile
import numpy as np
import orjson
from tiny_runs import QUICK, jsonl, make_cache, model, pair, pairs, start

from delift_cli.amount import parse_amount, parse_budget, parse_counts, parse_quota, parse_share, quota_records
from delift_cli.cache import manifest as manifests
from delift_cli.cache.contents import contents
from delift_cli.cache.npy import header, open_array
from delift_cli.cache.sidecar import read_kept
from delift_cli.cache.sparse import open_cache
from delift_cli.cache.stored_round import plan_digest
from delift_cli.cache.verification import examine
from delift_cli.data import hub as data_hub
from delift_cli.data.ids import Names
from delift_cli.data.limits import named_indices
from delift_cli.data.options import Reading, parse_roles
from delift_cli.data.reading import parse_records
from delift_cli.data.record import copy_groups
from delift_cli.errors import InputError
from delift_cli.machine import kept
from delift_cli.model.header import check_model, read_header
from delift_cli.model.places import hub as model_hub
from delift_cli.prompt.builtin import BUILT_IN
from delift_cli.prompt.jinja import Jinja
from delift_cli.scoring.tuning import BOOK, _remembered

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 2**64 - 1, 0.5, 1e308, "", "x", "..", "a/b", "\x1b[2J"),
    *("0" * 64, "dense", "sparse", "generation-1", [], [None], ["x"], [1, 2], {}, {"a": 1}, {"distance": 1}, [[]]),
)


class Target(NamedTuple):
    """`run` reads bytes; `seeds` are what to begin with; `share` of all inputs, in a hundred."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    share: int


def _take(data: bytes, choices: Any) -> tuple[Any, bytes]:
    return choices[(data[0] if data else 0) % len(choices)], data[1:]


# ---- records

READINGS = (
    Reading(),
    Reading(skip_invalid=True),
    Reading(turns="last", strict=True),
    Reading(prompt_field="messages", skip_invalid=True),
    Reading(prompt_field="a.0.b", response_field="text", records="data"),
)


def _read(data: bytes, name: str, reading: Reading) -> None:
    found = parse_records(data, name, reading)
    copy_groups(found.records)
    for record in found.records:
        assert record.turns[-1].scored
        assert record.response is not None
    names = Names(found.records)
    for record in found.records:
        names.find(names.name(names.find(f"record:{found.records.index(record) + 1}")))


def read_json(data: bytes) -> None:
    reading, data = _take(data, READINGS)
    _read(data, "pool.jsonl", reading)


def read_container(data: bytes) -> None:
    """CSV, TSV, gzip, zstd, Parquet and Arrow; the first byte says what the others are wrapped in."""
    import zstandard

    wraps: tuple[Callable[[bytes], tuple[bytes, str]], ...] = (
        lambda data: (data, "pool.csv"),
        lambda data: (data, "pool.tsv"),
        lambda data: (gzip.compress(data, 1, mtime=0), "pool.csv.gz"),
        lambda data: (b"\x1f\x8b" + data, "pool.jsonl"),
        lambda data: (gzip.compress(data[:32], 1, mtime=0) + data[32:], "pool.jsonl"),
        lambda data: (zstandard.compress(data, 1), "pool.jsonl.zst"),
        lambda data: (b"\x28\xb5\x2f\xfd" + data, "pool.jsonl"),
        lambda data: (data, "pool"),
        lambda data: (data, "pool"),
    )
    wrap, data = _take(data, wraps)
    reading, data = _take(data, READINGS)
    _read(*wrap(data), reading)


def _tables() -> list[bytes]:
    import pyarrow as arrow
    import pyarrow.parquet

    table = arrow.Table.from_pylist([{**pair(n), "messages": [{"role": "user", "content": "x"}]} for n in range(3)])
    parquet, stream, file = io.BytesIO(), io.BytesIO(), io.BytesIO()
    arrow.parquet.write_table(table, parquet)
    with arrow.ipc.new_stream(stream, table.schema) as out:
        out.write_table(table)
    with arrow.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    return [buffer.getvalue() for buffer in (parquet, stream, file)]


def _json_seeds() -> list[bytes]:
    return [b"\0" + data for data in hostile.corpus().values() if len(data) < 20_000]


def _container_seeds() -> list[bytes]:
    texts = [b"prompt,response\np,r\n", b'prompt\tresponse\n"a\nb"\tr\n', pairs(1, 2)]
    wrapped = [bytes([kind, 0]) + text for kind in range(7) for text in texts]
    wrapped += [bytes([3, 0]) + gzip.compress(pairs(1))[2:]]
    return wrapped + [bytes([7, 0]) + table for table in _tables()]


# ---- templates

MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "cat % {} {{ 1 }}\n\ttext"},
    {"role": "assistant", "content": "dog", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2]}}}]},
]


def read_template(data: bytes) -> None:
    """Compiled and rendered, as `ChatTemplate` does it: what a template raises is its own affair, in one line."""
    source = data.decode("utf-8", "replace")
    template = Jinja(source, "template")
    variables = {"messages": copy.deepcopy(MESSAGES), "tools": None, "add_generation_prompt": True, "bos_token": "<s>"}
    try:
        template.render(variables, 100, 3)
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(" ".join(str(error).split())) from None


def _template_seeds() -> list[bytes]:
    attacks = (
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{{ 'a' * 10**9 }}{{ [1] * 9**9 }}{{ '%9999d' | format(1) }}{{ '{:>9999}'.format(1) }}",
        "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('a') }}",
        "{{ messages | map(attribute='content') | join(',') }}{{ messages | tojson(indent=2) }}",
        "{{ ''.__class__.__mro__ }}{{ messages | attr('append') }}{{ cycler(1).next.__globals__ }}",
        "{% generation %}{{ messages[0]['content'] | trim | upper | replace('a', 'b') }}{% endgeneration %}",
        "{% for m in messages if m.role != 'user' recursive %}{{ loop(messages) }}{% endfor %}",
    )
    return [text.encode() for text in (*BUILT_IN.values(), *attacks)]


# ---- caches


class _Caches:
    """A cache of each kind, in memory where there is a file system for that; whatever is changed is put back."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
        os.environ["DELIFT_CACHE"] = str(self.folder / "kept")
        (self.folder / "kept").mkdir()
        self.dense = make_cache(self.folder / "dense", pairs(*range(4)))
        self.sparse = self.folder / "sparse"
        (self.folder / "pool.jsonl").write_bytes(pairs(*range(10)))
        run = start("score", self.folder / "pool.jsonl", "-o", self.sparse, "--budget", "45%", "-m", model(), *QUICK)
        said = run.communicate()[1]  # in a process of its own: a fuzzer's instrumented code cannot be compiled
        assert run.returncode == 0, said
        self.file = self.folder / "file"

    def with_files(self, files: dict[Path, bytes], read: Callable[[], object]) -> None:
        before = {file: file.read_bytes() for file in files}
        try:
            for file, data in files.items():
                file.write_bytes(data)
            read()
        finally:
            for file, data in before.items():
                file.write_bytes(data)


_made: list[_Caches] = []


def caches() -> _Caches:
    if not _made:
        _made.append(_Caches())
    return _made[0]


def _json_of(data: bytes) -> Any:
    """A value: one of VALUES by the first byte, or what the others say as JSON."""
    index, rest = (data[0], data[1:]) if data else (0, b"")
    if index < len(VALUES):
        return copy.deepcopy(VALUES[index])
    try:
        return json.loads(rest)
    except (ValueError, RecursionError):
        return rest.decode("latin-1")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from _paths(part, (*path, key))


def _changed(document: Any, data: bytes) -> Any:
    """The document with up to three of its values others, gone, or under another name."""
    document = copy.deepcopy(document)
    for _ in range(1 + (data[0] if data else 0) % 3):
        places = [path for path in _paths(document) if path]
        if not places or len(data) < 3:
            break
        path, how, data = places[data[1] % len(places)], data[2] % 8, data[3:]
        inside = document
        for key in path[:-1]:
            inside = inside[key]
        if how == 0:
            del inside[path[-1]]
        elif how == 1 and isinstance(inside, dict):
            inside[data[:8].decode("latin-1")] = inside.pop(path[-1])
        else:
            inside[path[-1]] = _json_of(data)
        data = data[4:]
    return document


def _dumped(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a number beyond 64 bits
        return json.dumps(document).encode("utf-8", "surrogatepass")


def _use(path: Path) -> None:
    """What the verbs do with a cache."""
    cache = open_cache(path)
    contents(cache)
    cache.check_rows()
    cache.examples()


def read_manifest(data: bytes) -> None:
    there = caches()
    path, data = _take(data, (there.dense, there.sparse))
    manifest = _changed(json.loads((path / "manifest.json").read_bytes()), data)
    if isinstance(manifest, dict) and data[:1] != b"\xff":
        try:
            manifest["checksum"] = manifests._digest(manifest)
        except TypeError:
            return
    changed = {path / "manifest.json": _dumped(manifest)}
    there.with_files(changed, lambda: examine(path))
    there.with_files(changed, lambda: _use(path))


def read_plan(data: bytes) -> None:
    there = caches()
    folder = there.sparse / "round-1"
    plan = _changed(json.loads((folder / "plan.json").read_bytes()), data)
    if isinstance(plan, dict):
        plan.pop("checksum", None)
        try:
            plan["checksum"] = plan_digest(plan)
        except TypeError:
            return
    changed = {folder / "plan.json": _dumped(plan)}
    there.with_files(changed, lambda: examine(there.sparse))
    there.with_files(changed, lambda: _use(there.sparse))


def read_ids(data: bytes) -> None:
    """A cache's ids.json, a list of ids, and names of records."""
    there = caches()
    how, data = _take(data, (0, 1, 2))
    if how == 0:
        manifest = json.loads((there.dense / "manifest.json").read_bytes())
        manifest["examples"]["ids"] = manifest["targets"]["ids"] = hashlib.sha256(data).hexdigest()
        manifest["checksum"] = manifests._digest(manifest)
        changed = {there.dense / "manifest.json": _dumped(manifest), there.dense / "examples.ids.json": data}
        there.with_files(changed, lambda: _use(there.dense))
        return
    records = parse_records(jsonl([pair(1), pair(2), {**pair(3), "id": "r1"}, {**pair(4), "id": "line:1"}]), "pool")
    if how == 1:
        there.file.write_bytes(data)
        named_indices(there.file, records.records)
    else:
        Names(records.records).find(data.decode("utf-8", "replace"))


SHAPES = ((), (0,), (3,), (3, 4), (-1,), (2**40, 2**40))
TYPES = ("<f4", "<i8", "|u1")


def read_array(data: bytes) -> None:
    """An .npy file, and an array that is kept behind a checksum, as it is and with the right one."""
    there = caches()
    shape, data = _take(data, SHAPES)
    kind, data = _take(data, TYPES)
    there.file.write_bytes(data)
    read_kept(there.file, shape, np.dtype(kind))
    there.file.write_bytes(zlib.crc32(data).to_bytes(4, "little") + data)
    read_kept(there.file, shape, np.dtype(kind))
    there.file.write_bytes(data)
    if -1 not in shape:
        open_array(there.file, shape, kind)


def _array_seeds() -> list[bytes]:
    small = [(place, shape) for place, shape in enumerate(SHAPES) if max(shape, default=0) < 9 and -1 not in shape]
    files = [
        bytes([place, number]) + header(shape, np.dtype(kind)) + bytes(int(np.prod(shape)) * np.dtype(kind).itemsize)
        for place, shape in small
        for number, kind in enumerate(TYPES)
    ]
    return [*files, bytes([4, 0]) + bytes(8), bytes([3, 0]) + bytes(48)]


def read_book(data: bytes) -> None:
    """tuning.json: an entry of it with other values, or any bytes in its place."""
    there = caches()
    file = there.folder / "kept" / f"{BOOK}.json"
    rates, deviation = {"as-is": 1.0}, {"mean_distance": 0.1, "max_distance": 0.2, "mean_logprob": 0.1}
    entry = {"weights": "f16", "batch": 512, "deviation": deviation, "rates": rates, "promised": rates}
    entry |= {"rejected": {}, "seconds": 1.0}
    file.write_bytes(data[1:] if data[:1] == b"\0" else _dumped({"key": _changed(entry, data[1:])}))
    kept.read_book(BOOK)
    found = _remembered("key")
    if found is not None:
        assert found.line


def _header_bytes() -> bytes:
    return model().read_bytes()[: 1 << 14]


def read_gguf(data: bytes) -> None:
    there = caches()
    there.file.write_bytes(data)
    check_model(there.file, read_header(there.file))


# ---- what is given on the command line


def read_words(data: bytes) -> None:
    which, data = _take(data, range(9))
    text = data.decode("utf-8", "replace")
    if which == 0:
        parse_amount(text, 1000)
    elif which == 1:
        parse_budget(text).goal(10_000, 100)
    elif which == 2:
        quota_records(parse_quota(text), 500)
    elif which == 3:
        parse_counts([text], "--at-least")
    elif which == 4:
        parse_share(text, "--share")
    elif which == 5:
        parse_roles([text])
    elif which == 6:
        data_hub.parse(f"hf:{text}")
    elif which == 7:
        model_hub.parse(text)
    else:
        parse_budget("+" + text)


def _word_seeds() -> list[bytes]:
    texts = ("500", "30%", "200ktok", "1.5Mtok", "2M", "+5%", "8h", "task:10%", "code=200", "ai=assistant", "a/b@c:d")
    return [bytes([which]) + text.encode() for which in range(9) for text in texts]


def _changes() -> list[bytes]:
    caches()
    changes = (
        (kind, 1, place, how, value) for kind in (0, 1) for place in range(40) for how in (0, 3) for value in (0, 7)
    )
    return [bytes(change) for change in changes]


TARGETS = {
    "records": Target(read_json, _json_seeds, 26),
    "containers": Target(read_container, _container_seeds, 12),
    "templates": Target(read_template, _template_seeds, 14),
    "manifest": Target(read_manifest, _changes, 4),
    "plans": Target(read_plan, _changes, 4),
    "ids": Target(read_ids, lambda: [b'\0[["r0",1]]', b"\1r1\nline:2\n", b"\2record:3", b"\2r1#2"], 8),
    "arrays": Target(read_array, _array_seeds, 6),
    "tunings": Target(read_book, lambda: [b"\0{}", *_changes()], 4),
    "amounts": Target(read_words, _word_seeds, 12),
    "headers": Target(read_gguf, lambda: [caches() and _header_bytes()], 10),
}
