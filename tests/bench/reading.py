"""Reading at size: JSONL's speed and memory, a million records previewed, and Parquet against JSONL.

    python -m tests.bench.reading [--megabytes 1000] [--records 10000]

The records are made up: conversations and pairs of made-up words. Each is read by a process of its own, so that its
peak of memory is its own. The raw rate beside it is that of `orjson.loads` over the same lines. The last part scores
the same records from JSONL and from Parquet with a tiny model and compares the caches array by array, and the subsets.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_runs import ARRAYS, QUICK, model

READ = """
import resource, sys, time
from delift_cli.data.reading import read_records
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start, busy = peak(), time.perf_counter(), time.process_time()
found = read_records(sys.argv[1])
print(len(found.records), time.perf_counter() - start, time.process_time() - busy, peak(), before)
"""
PARSE = """
import sys, time, orjson
start, count = time.perf_counter(), 0
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        orjson.loads(line)
        count += 1
print(count, time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="of JSONL that is read; 0 for none, and no preview")
    parser.add_argument(
        "--records", type=int, default=10_000, help="that are scored from JSONL and from Parquet; 0 for none"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, make in (("pairs", _pair), ("chats", _chat)) if options.megabytes else ():
            path = folder / f"{what}.jsonl"
            _write(path, make, options.megabytes * 1_000_000)
            _read(path)
            path.unlink()
        if options.megabytes:
            path = folder / "million.jsonl"
            _write(path, _short, None, 1_000_000)
            _preview(path)
            path.unlink()
        if options.records:
            _parquet(folder, options.records)


def _read(path: Path) -> None:
    size = path.stat().st_size
    records, wall, busy, peak, before = map(float, _python(READ, path))
    _, plain = map(float, _python(PARSE, path))
    print(
        f"{path.name}: {size / 1e6:,.0f} MB, {records:,.0f} records in {wall:.2f} s, {size / 1e6 / wall:.0f} MB/s "
        f"({size / 1e6 / busy:.0f} by processor time); orjson.loads alone {size / 1e6 / plain:.0f} MB/s; "
        f"peak {(peak - before) / size:.2f} x the file's size",
        flush=True,
    )


def _preview(path: Path) -> None:
    start = time.perf_counter()
    subprocess.run(_command("preview", path), check=True, stdout=subprocess.DEVNULL)
    print(f"preview of 1,000,000 records ({path.stat().st_size / 1e6:,.0f} MB): {time.perf_counter() - start:.2f} s")


def _parquet(folder: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(1)
    chats = [_chat(rng, place, words=3) for place in range(count // 3)]
    pairs = [_short(rng, place, words=4) for place in range(count - len(chats))]
    for kind, of_kind in (("chats", chats), ("pairs", pairs)):
        (folder / f"{kind}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in of_kind))
        pq.write_table(pa.Table.from_pylist(of_kind), folder / f"{kind}.parquet")
    subsets, caches = {}, {}
    for form in ("jsonl", "parquet"):
        cache, subset = folder / f"{form}.delift", folder / f"{form}-subset.jsonl"
        sources = [folder / f"{kind}.{form}" for kind in ("chats", "pairs")]
        start = time.perf_counter()
        _run("score", *sources, "-o", cache, "-m", model(), *QUICK, "--budget", str(5 * count), "--quiet")
        _run("select", cache, "-k", "30%", "-o", subset, "--quiet")
        seconds = time.perf_counter() - start
        print(f"{form}: {count:,} records, {5 * count:,} pairs scored, 30 % selected: {seconds:.0f} s", flush=True)
        subsets[form] = [orjson.loads(line)["id"] for line in subset.read_bytes().splitlines()]
        caches[form] = {
            str(path.relative_to(cache)): np.load(path) for path in sorted(cache.rglob("*.npy")) if path.stem in ARRAYS
        }
    same = [name for name, values in caches["jsonl"].items() if values.tobytes() == caches["parquet"][name].tobytes()]
    print(
        f"arrays with the same bytes: {len(same)} of {len(caches['jsonl'])}; the same subset: "
        f"{subsets['jsonl'] == subsets['parquet']} ({len(subsets['jsonl']):,} records)"
    )


def _pair(rng: random.Random, place: int) -> dict[str, Any]:
    return {"id": f"p{place}", "task": rng.choice(WORDS), "prompt": _text(rng, 60), "response": _text(rng, 12)}


def _short(rng: random.Random, place: int, words: int = 30) -> dict[str, Any]:
    return {"id": f"p{place}", "prompt": _text(rng, words), "response": _text(rng, words // 4)}


def _chat(rng: random.Random, place: int, words: int = 25) -> dict[str, Any]:
    roles = ("user", "assistant") * rng.randint(1, 3)
    return {"id": f"c{place}", "messages": [{"role": role, "content": _text(rng, words)} for role in roles]}


def _text(rng: random.Random, words: int) -> str:
    start = rng.randrange(len(TEXT) - 40 * words)
    return TEXT[start : start + rng.randint(3 * words, 8 * words)].strip() or "word"


_rng = random.Random(0)
WORDS = ["".join(_rng.choices("abcdefghijklmnopqrstuvwxyzäöé", k=_rng.randint(2, 9))) for _ in range(5000)]
TEXT = " ".join(_rng.choices([*WORDS, "\n", '"quoted"', "3.14"], k=300_000))


def _rows(make: Any, size: int | None, count: int | None) -> Iterator[bytes]:
    rng, written, place = random.Random(2), 0, 0
    while (size is None or written < size) and (count is None or place < count):
        line = orjson.dumps(make(rng, place)) + b"\n"
        written += len(line)
        place += 1
        yield line


def _write(path: Path, make: Any, size: int | None, count: int | None = None) -> None:
    with path.open("wb") as stream:
        stream.writelines(_rows(make, size, count))


def _python(program: str, path: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    return done.stdout.split()


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "delift_cli", *map(str, arguments)]


def _run(*arguments: object) -> None:
    subprocess.run(_command(*arguments), check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})


if __name__ == "__main__":
    main()
