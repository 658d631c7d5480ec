"""What large inputs take of memory and processor time, a process each: the growth of its peak over the input's size.

    python -m tests.bench.large_inputs [--mb 30] [--only NAME]

Of a compressed file the input is what it holds.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_runs import jsonl, pair

TIMES = 3  # what is in bounds


def _lines(size: int, record: Callable[[int], object]) -> bytes:
    one = json.dumps(record(0)).encode() + b"\n"
    return b"".join(json.dumps(record(number)).encode() + b"\n" for number in range(size // len(one)))


def _turns(count: int) -> dict[str, object]:
    return {
        "messages": [{"role": ("user", "assistant")[n % 2], "content": f"turn {n} " + "x " * 40} for n in range(count)]
    }


def _long(number: int) -> dict[str, str]:
    return {"prompt": f"prompt {number} " + "some words " * 30, "response": f"response {number} " + "other words " * 10}


def _array(size: int) -> bytes:
    return b"[" + _lines(size, _long).replace(b"\n", b",")[:-1] + b"]"


def _csv(size: int) -> bytes:
    row = "prompt {} " + "some words " * 30 + ",response {}\n"
    return ("prompt,response\n" + "".join(row.format(n, n) for n in range(size // len(row)))).encode()


def _parquet(size: int) -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet

    out = io.BytesIO()
    table = arrow.Table.from_pylist([_long(number) for number in range(size // 470)])
    arrow.parquet.write_table(table, out, compression="none", use_dictionary=False)
    return out.getvalue()


INPUTS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "pairs": ("pool.jsonl", lambda size: _lines(size, _long)),
    "short pairs": ("pool.jsonl", lambda size: _lines(size, pair)),
    "an array": ("pool.json", _array),
    "chats": ("pool.jsonl", lambda size: _lines(size, lambda number: _turns(6))),
    "a chat of many turns": ("pool.jsonl", lambda size: jsonl([_turns(size // 130)])),
    "a prompt": ("pool.jsonl", lambda size: jsonl([{"prompt": "word " * (size // 5), "response": "r"}])),
    "deep lists": ("pool.jsonl", lambda size: b"[" * (size // 2) + b"]" * (size // 2)),
    "many fields": ("pool.jsonl", lambda size: jsonl([{f"f{n}": n for n in range(size // 16)}])),
    "no records": ("pool.jsonl", lambda size: b"1\n" * (size // 2)),
    "a list in an object": ("pool.json", lambda size: b'{"meta": {"by": "x"}, "data": ' + _array(size) + b"}"),
    "bytes": ("pool.jsonl", lambda size: bytes((at * 197 + 31) % 256 for at in range(size))),
    "a table of text": ("pool.csv", _csv),
    "Parquet": ("pool.parquet", _parquet),
    "gzip": ("pool.jsonl.gz", lambda size: gzip.compress(_lines(size, _long), 1)),
    "a gzip bomb": ("pool.jsonl.gz", lambda size: gzip.compress(b" " * size, 6)),
    "a gzip bomb of records": (
        "pool.jsonl.gz",
        lambda size: gzip.compress(b'{"prompt":"p","response":"r"}\n' * (size // 30), 6),
    ),
    "a template": ("template.jinja", lambda size: b"{{ messages }}" + b"x" * size),
    "a model's header": ("model.gguf", lambda size: b"GGUF" + b"\xff" * size),
    "ids": ("ids.txt", lambda size: b"r1\n" * (size // 3)),
}


def use(file: Path) -> object:
    """What the tool does with such a file; the imports that it takes are done."""
    from delift_cli.data.limits import named_indices
    from delift_cli.data.options import Reading
    from delift_cli.data.reading import parse_records, read_records
    from delift_cli.model.header import check_model, read_header
    from delift_cli.prompt.jinja import Jinja

    if file.suffix == ".jinja":
        return Jinja(file.read_text(), "template")
    if file.suffix == ".gguf":
        return check_model(file, read_header(file))
    if file.suffix == ".txt":
        return named_indices(file, parse_records(jsonl([pair(1)]), "pool", Reading()).records)
    return read_records(str(file), Reading(skip_invalid=True))


def peak() -> int:
    """Bytes of this process alone: what getrusage says begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def child(file: Path) -> None:
    import pyarrow.parquet  # noqa: F401  (else its size counts as the input's)

    from delift_cli.errors import DeliftError

    small = file.with_name("small" + "".join(file.suffixes))
    for one in (small, file):
        before, begun = peak(), time.process_time()
        try:
            use(one)
            said = "read"
        except DeliftError as error:
            said = f"refused: {error}"[:100]
    print(json.dumps({"grown": peak() - before, "seconds": time.process_time() - begun, "said": said}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=30)
    parser.add_argument("--only", choices=INPUTS, action="append")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        child(options.file)
        return
    over = 0
    for kind in options.only or INPUTS:
        name, make = INPUTS[kind]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            data = make(options.mb * 1_000_000)
            file.write_bytes(data)
            file.with_name("small" + "".join(file.suffixes)).write_bytes(make(2000))
            size = len(gzip.decompress(data)) if name.endswith(".gz") else len(data)
            del data
            command = [sys.executable, "-m", "tests.bench.large_inputs", "--file", str(file)]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{kind}: the process ended with {done.returncode}: {done.stderr[-500:]}", flush=True)
            over += 1
            continue
        found = json.loads(done.stdout)
        times = found["grown"] / size
        over += times >= TIMES
        print(
            f"{kind}: {size / 1e6:.0f} MB, memory {times:.2f} x that, {found['seconds']:.1f} s: {found['said']}",
            flush=True,
        )
    print(f"{over} of {len(options.only or INPUTS)} not under {TIMES} x")
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
