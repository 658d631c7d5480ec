"""Fuzz every place where somebody else's bytes are read, a process a kind, and count what ends in a traceback.

    pip install "delift-cli[fuzz]"
    python -m tests.bench.fuzz [--inputs 1000000] [--only KIND] [--record FILE] [--found FOLDER]

The fuzzer is guided by coverage (atheris, of libFuzzer). An input that is neither read nor refused, or that takes more
than five seconds of the processor, is kept in FOLDER; the record has a line for every kind that was done. What a kind
of file needs of memory is measured by `python -m tests.bench.large_inputs`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

LONG = 5.0  # seconds
WARM = 1000  # inputs, before memory is looked at
SAID_EVERY = 10_000  # inputs: what is counted until a process dies is not lost
LONGEST = 1 << 14  # bytes of an input
KINDS = ("amounts", "headers", "ids", "arrays", "tunings", "manifest", "plans", "templates", "records", "containers")


def fuzz(kind: str, inputs: int, found: Path, seed: int) -> None:
    """Never returns: libFuzzer ends the process, with what was counted as the last line."""
    import atheris

    with atheris.instrument_imports(include=["delift_cli"]):
        from fuzzed import TARGETS

    from delift_cli.errors import DeliftError

    run = TARGETS[kind].run
    counted = {"kind": kind, "inputs": 0, "read": 0, "refused": 0, "tracebacks": 0, "long": 0, "longest": 0.0}
    seen: set[str] = set()
    memory = 0

    def keep(data: bytes, what: str) -> None:
        name = f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
        (found / name).write_bytes(data)
        (found / f"{name}.txt").write_text(what)
        print(f"{kind}: {what.splitlines()[-1][:200]} ({name})", flush=True)

    def one(data: bytes) -> None:
        nonlocal memory
        started = time.process_time()
        try:
            run(data)
            counted["read"] += 1
        except DeliftError:
            counted["refused"] += 1
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} {place.filename}:{place.lineno}"
            counted["tracebacks"] += 1
            if key not in seen:
                seen.add(key)
                keep(data, traceback.format_exc())
        took = time.process_time() - started
        counted["longest"] = max(counted["longest"], took)
        if took > LONG:
            counted["long"] += 1
            keep(data, f"took {took:.1f} s")
        counted["inputs"] += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if counted["inputs"] == WARM:
            memory = peak
        over = counted["inputs"] >= inputs
        if over or counted["inputs"] % SAID_EVERY == 0:
            print(json.dumps({**counted, "grown_mb": round(peak - (memory or peak), 1)}), flush=True)
        if over:
            os._exit(0)

    found.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="seeds-"))
    for number, data in enumerate(TARGETS[kind].seeds()):
        (folder / str(number)).write_bytes(data)
    options = [f"-seed={seed}", f"-max_len={LONGEST}", "-timeout=3600", "-rss_limit_mb=4096", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *options, "-verbosity=0", f"-artifact_prefix={found}/", str(folder)], one)
    atheris.Fuzz()


def watched(command: list[str]) -> tuple[int, dict[str, Any], str]:
    """Run a kind and show what it says: its exit code, what it counted last, and the end of its errors."""
    counted: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace") as child:
            assert child.stdout is not None
            for line in child.stdout:
                print(line, end="", flush=True)
                if line.startswith("{"):
                    counted = json.loads(line)
        errors.seek(0)
        return child.returncode, counted, errors.read()[-1500:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all kinds together")
    parser.add_argument("--only", action="append", choices=KINDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", type=Path, help="append what was counted of each kind here")
    parser.add_argument("--found", type=Path, default=Path("fuzzed"), help="where inputs go that are a fault")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        fuzz(options.kind, options.inputs, options.found, options.seed)
    from fuzzed import TARGETS

    total = {"inputs": 0, "tracebacks": 0, "long": 0}
    for kind in options.only or KINDS:
        share = max(1, options.inputs * TARGETS[kind].share // 100)
        command = [sys.executable, "-m", "tests.bench.fuzz", "--kind", kind, "--inputs", str(share)]
        command += ["--seed", str(options.seed), "--found", str(options.found)]
        code, counted, said = watched(command)
        if code:
            print(f"{kind}: the process ended with {code}\n{said}", flush=True)
            counted["tracebacks"] = counted.get("tracebacks", 0) + 1
        for name in total:
            total[name] += counted.get(name, 0)
        if options.record:
            with options.record.open("a") as record:
                record.write(json.dumps(counted) + "\n")
    print(f"all: {total['inputs']:,} inputs, {total['tracebacks']} tracebacks, {total['long']} over {LONG:.0f} s")
    sys.exit(bool(total["tracebacks"] or total["long"]))


if __name__ == "__main__":
    main()
