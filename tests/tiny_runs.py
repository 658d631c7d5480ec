"""The tool on a tiny model: run it in this process or in one of its own, and make caches without any model."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt
from gguf_models import write_model

from delift_cli.cache.dense import CacheWriter, open_for_scoring
from delift_cli.cli import main
from delift_cli.data.reading import parse_records
from delift_cli.data.record import RecordSet

WORDS = ("cat", "dog", "sun", "moon", "tree", "river", "stone", "bird", "fish", "cloud", "wind", "rain", "snow")
QUICK = ("--threads", "1", "--weights", "as-is")  # no tuning, no spinning workers on a loaded machine


class Result(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refusal(self, code: int = 2) -> str:
        """The one line on stderr with which a run was refused."""
        assert self.code == code, self
        assert self.out == b""
        assert self.err.startswith("delift: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.removeprefix("delift: ").removesuffix("\n")


def delift(*args: object, stdin: bytes = b"") -> Result:
    """`delift` with these arguments, in this process."""
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"),
        "stdout": io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True),
        "stderr": io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True),
    }
    with mock.patch.multiple(sys, argv=["delift", *map(str, args)], **streams):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    out, err = (streams[name].buffer.getvalue() for name in ("stdout", "stderr"))  # type: ignore[attr-defined]
    return Result(code, out, err.decode())


def score(*args: object, stdin: bytes = b"") -> Result:
    """`delift score` with the tiny model."""
    return delift("score", *args, "-m", model(), *QUICK, stdin=stdin)


def start(*args: object, **options: Any) -> subprocess.Popen[bytes]:
    """`delift` in a process of its own."""
    command = [sys.executable, "-m", "delift_cli", *map(str, args)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **{**streams, **options})


@cache
def model() -> Path:
    """A tiny model with a ChatML template, the same for all tests."""
    directory = tempfile.mkdtemp(prefix="delift-tests-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return write_model(Path(directory) / "tiny.gguf")


def pair(number: int) -> dict[str, str]:
    a, b = WORDS[number % len(WORDS)], WORDS[(3 * number + 1) % len(WORDS)]
    return {"id": f"r{number}", "prompt": f"say {a} and {b}", "response": f"{a} {b} {number}"}


def jsonl(records: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def pairs(*numbers: int) -> bytes:
    return jsonl([pair(number) for number in numbers])


ARRAYS = (
    "distance",
    "logprob",
    "base_distance",
    "base_logprob",
    "base_crc",
    "example_tokens",
    "response_tokens",
    "rows",
)


def arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a cache, read with NumPy alone."""
    return {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in ARRAYS}


def array_bytes(path: Path) -> dict[str, bytes]:
    return {name: (path / f"{name}.npy").read_bytes() for name in ARRAYS}


def tree(path: Path) -> dict[str, bytes]:
    """Every file below `path` with its content."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


# ---- caches without a model

DESCRIPTION: dict[str, Any] = {
    "model": {"name": "made up", "sha256": "0" * 64, "architecture": "llama", "quantization": "F32"},
    "weights": {"type": "as-is", "deviation": None},
    "run": {"batch": 512},
    "template": {"name": "plain", "text": "{{ messages }}", "date": "2025-01-01", "add_bos": True},
    "metric": {"distance": "d", "logprob": "l"},
    "settings": {"truncate": None, "kv_type": "f16", "flash_attention": "auto"},
    "fields": {"prompt": None, "response": None},
}


def records(data: bytes, source: str = "pool.jsonl") -> RecordSet:
    return parse_records(data, source)


def tokens(records: RecordSet) -> list[int]:
    return [10 + len(record.raw) % 7 for record in records.records]


def open_cache(
    path: Path, examples: bytes, targets: bytes | None = None, description: dict[str, Any] = DESCRIPTION
) -> CacheWriter:
    """The cache's writer, as `delift score` opens it."""
    sets = records(examples), None if targets is None else records(targets, "targets.jsonl")
    return open_for_scoring(
        path,
        description,
        *sets,
        example_tokens=tokens(sets[0]),
        response_tokens=[token - 8 for token in tokens(sets[1] or sets[0])],
    )


def said(example: int, targets: npt.NDArray[np.int64], seed: int = 0) -> tuple[npt.NDArray[np.float32], ...]:
    """Distances and log-probabilities that depend on nothing but the pair: what a model would say."""
    rng = [np.random.default_rng((seed, example + 1, int(target))) for target in targets]
    distance = np.array([r.uniform(0.0, 1.0) for r in rng], np.float32)
    return distance, np.array([-r.uniform(0.0, 5.0) for r in rng], np.float32)


def fill(cache: CacheWriter, rows: Sequence[int] | None = None, seed: int = 0) -> None:
    """Write what is missing of the base and of `rows`, as scoring does."""
    n, m = cache.shape
    if np.isnan(cache.base_distance).any():
        cache.write_base(0, *said(-1, np.arange(m), seed))
    cache.sync()
    for example in range(n) if rows is None else rows:
        missing = cache.missing(example)
        if len(missing):
            cache.write_row(example, *said(example, missing, seed))


def make_cache(path: Path, examples: bytes, targets: bytes | None = None, seed: int = 0) -> Path:
    """A complete cache of made-up measurements."""
    with open_cache(path, examples, targets) as cache:
        fill(cache, seed=seed)
    return path


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}
