"""Selection against apricot-select and submodlib-py: the same kernel, the same k, each library in its own process.

    python tests/bench/selection.py                          # n = 5,000 and 10,000, both kinds of kernel
    python tests/bench/selection.py --sizes 30000 --kinds utilities --memory-limit 12 --timeout 600

Needs `pip install delift-cli[bench]`. Facility location, k = 30 %, lazy greedy. A time runs from before the
library's import to the result in memory: import, set-up (conversion of the kernel, compilation or its loading
from a cache) and selection; the kernel lies in the page cache. `again` is delift's second selection in the same
process: what is left when everything is loaded. Memory: peak resident set, and for delift the peak
of the anonymous part (the rest is the memory map). A table goes to stderr, JSON to stdout; what a library cannot do
is recorded in its own words.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("delift", "apricot", "submodlib")
HERE = Path(__file__).resolve()


def make_kernel(path: Path, kind: str, n: int, seed: int = 0) -> None:
    """An n x n float32 similarity matrix, written in blocks: `random` (uniform) or `utilities`.

    `utilities` has the make-up of a measured block (200 records, SmolLM2-135M): mean 0.022, 47 % negative, variance
    10 % from examples, 24 % from targets, 66 % interaction of which rank 4 holds 79 %, diagonal 0.38; clipped at 0.
    """
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, n))
    deviation = 0.1
    example = rng.standard_normal(n) * deviation * 0.10**0.5
    target = rng.standard_normal(n) * deviation * 0.24**0.5
    left = rng.standard_normal((n, 4)) * (deviation**2 * 0.66 * 0.79 / 4) ** 0.5
    right = rng.standard_normal((n, 4))
    for first in range(0, n, 500):
        rows = slice(first, min(n, first + 500))
        shape = (rows.stop - first, n)
        if kind == "random":
            out[rows] = rng.random(shape, dtype=np.float32)
            continue
        noise = rng.standard_normal(shape, dtype=np.float32) * deviation * (0.66 * 0.21) ** 0.5
        block = 0.022 + example[rows, None] + target + left[rows] @ right.T + noise
        block[np.arange(shape[0]), np.arange(first, rows.stop)] = 0.38
        out[rows] = np.maximum(0.0, block)
    out.flush()


def run_delift(path: Path, k: int) -> dict[str, Any]:
    # scipy is here for the other libraries; where it is installed, Numba imports it.
    sys.modules["scipy"] = None  # type: ignore[assignment]
    began = time.perf_counter()
    from delift_cli import select

    imported = time.perf_counter()
    selection = select(np.load(path, mmap_mode="r"), k)
    done = time.perf_counter()
    select(np.load(path, mmap_mode="r"), k)
    return {
        "clock": (began, imported, done),
        "again_s": time.perf_counter() - done,
        "indices": selection.indices,
        "evaluations": selection.evaluations,
        "saturated_at": selection.saturated_at,
        "share_of_bound": selection.value / (selection.optimum_bound or np.nan),
    }


def run_apricot(path: Path, k: int) -> dict[str, Any]:
    began = time.perf_counter()
    from apricot import FacilityLocationSelection

    imported = time.perf_counter()
    selector = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy")
    selector.fit(np.load(path))
    return {"clock": (began, imported, time.perf_counter()), "indices": selector.ranking}


def run_submodlib(path: Path, k: int) -> dict[str, Any]:
    # Theirs is [represented, representative]; turning the matrix around is not charged to them.
    kernel = np.ascontiguousarray(np.load(path, mmap_mode="r").T)
    began = time.perf_counter()
    from submodlib import FacilityLocationFunction

    imported = time.perf_counter()
    f = FacilityLocationFunction(n=kernel.shape[0], mode="dense", separate_rep=False, sijs=kernel)
    chosen = f.maximize(
        budget=k, optimizer="LazyGreedy", stopIfZeroGain=False, stopIfNegativeGain=False, show_progress=False
    )
    return {"clock": (began, imported, time.perf_counter()), "indices": [j for j, _ in chosen]}


def child(library: str, path: Path, k: int, memory_limit: float) -> None:
    """Run one library; its result goes to stdout as JSON, its indices beside the kernel."""
    if memory_limit:
        limit = int(memory_limit * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    runner = {"delift": run_delift, "apricot": run_apricot, "submodlib": run_submodlib}[library]
    result = runner(path, k)
    np.save(path.with_name(f"{library}.npy"), np.asarray(result.pop("indices"), dtype=np.int64))
    began, imported, ended = result.pop("clock")
    times = {"import_s": imported - began, "select_s": ended - imported, "total_s": ended - began}
    print(json.dumps(result | times))


def measure(library: str, path: Path, k: int, args: argparse.Namespace, cache: str) -> dict[str, Any]:
    """Run a child and watch its memory from outside (compiled code holds the interpreter's lock inside)."""
    command = [sys.executable, str(HERE), "--child", library, str(path), str(k), str(args.memory_limit)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(HERE.parents[2])}
    before = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=path.parent)
        anonymous, resident, timed_out = 0, 0, False
        while process.poll() is None:
            status = _status(process.pid)
            anonymous = max(anonymous, status.get("RssAnon", 0))
            resident = max(resident, status.get("VmHWM", 0))
            if time.perf_counter() - before > args.timeout:
                timed_out = True
                process.kill()
                process.wait()
            time.sleep(0.01)
        out.seek(0)
        err.seek(0)
        lines, complaint = out.read().strip().splitlines(), err.read().strip().splitlines()
    result: dict[str, Any] = {
        "library": library,
        "process_s": time.perf_counter() - before,
        "peak_rss_mb": resident / 1024,
        "peak_anonymous_mb": anonymous / 1024,
    }
    if timed_out:
        result["failure"] = f"not done after {args.timeout} s"
    elif process.returncode != 0:
        result["failure"] = complaint[-1] if complaint else f"exit code {process.returncode}"
    else:
        result |= json.loads(lines[-1])
    return result


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}


def sweep_seconds(path: Path) -> float:
    """One plain parallel sweep over the file in the page cache: the second of two."""
    from delift_cli.submodular.greedy import initial_gains
    from delift_cli.submodular.kernel import dense_kernel
    from delift_cli.submodular.objectives import fl

    objective = fl(dense_kernel(np.load(path, mmap_mode="r")))
    initial_gains(objective)
    began = time.perf_counter()
    initial_gains(objective)
    return time.perf_counter() - began


def compare(path: Path, kind: str, n: int, args: argparse.Namespace, cache: str) -> dict[str, Any]:
    from delift_cli.submodular.kernel import dense_kernel
    from delift_cli.submodular.objectives import fl, value

    make_kernel(path, kind, n)
    k = round(args.share * n)
    sweep = sweep_seconds(path)
    rows = [measure(library, path, k, args, cache) for library in args.libraries]
    objective = fl(dense_kernel(np.load(path, mmap_mode="r")))
    ours = rows[0]
    for row in rows:
        if "failure" not in row:
            indices = np.load(path.with_name(f"{row['library']}.npy"))
            reference = np.load(path.with_name("delift.npy"))
            row["value"] = value(objective, indices)
            row["same_sequence_for"] = int(np.argmin(np.append(indices == reference, False)))
            row["times_ours"] = row["total_s"] / ours["total_s"]
            row["times_ours_without_import"] = row["select_s"] / ours["select_s"]
            row["times_ours_again"] = row["select_s"] / ours["again_s"]
        print(_line(kind, n, k, row), file=sys.stderr, flush=True)
    print(f"{'':10} {n:7,} one sweep: {sweep:.3f} s, {n * n * 4 / sweep / 1e9:.1f} GB/s", file=sys.stderr)
    return {"kind": kind, "n": n, "k": k, "sweep_s": sweep, "runs": rows}


def _line(kind: str, n: int, k: int, row: dict[str, Any]) -> str:
    head = f"{kind:10} {n:7,} {k:6,} {row['library']:10} {row['peak_rss_mb']:8,.0f} {row['peak_anonymous_mb']:8,.0f}"
    if "failure" in row:
        return f"{head}  failed after {row['process_s']:.1f} s: {row['failure']}"
    return (
        f"{head} {row['import_s']:7.2f} {row['select_s']:8.3f} {row['total_s']:8.3f} {row['times_ours']:7.1f} "
        f"{row['times_ours_without_import']:9.1f} {row['times_ours_again']:8.1f} {row['same_sequence_for']:7,} "
        f"{row['value']:.6f}"
    )


HEADER = (
    f"{'kernel':10} {'n':>7} {'k':>6} {'library':10} {'RSS MB':>8} {'anon MB':>8} {'import':>7} {'select s':>8} "
    f"{'total s':>8} {'x total':>7} {'x select':>9} {'x again':>8} {'same':>7} value"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10000])
    parser.add_argument("--kinds", nargs="+", default=["utilities", "random"], choices=["utilities", "random"])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES, help="delift first")
    parser.add_argument("--share", type=float, default=0.3, help="k / n")
    parser.add_argument("--folder", type=Path, help="where the kernels are written (default: a temporary folder)")
    parser.add_argument("--memory-limit", type=float, default=0.0, help="GiB of address space per library")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds per library")
    args = parser.parse_args()
    sys.path.insert(0, str(HERE.parents[2]))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        small, cache = Path(folder) / "small.npy", str(Path(folder) / "numba")
        make_kernel(small, "utilities", 300)
        cold, warm = (measure("delift", small, 90, args, cache) for _ in range(2))
        print(f"n = 300: cold {cold['process_s']:.2f} s, warm {warm['process_s']:.2f} s", file=sys.stderr)
        print(HEADER, file=sys.stderr)
        results = []
        for n in args.sizes:
            for kind in args.kinds:
                path = Path(folder) / "kernel.npy"
                results.append(compare(path, kind, n, args, cache))
                path.unlink()
    print(json.dumps({"cold": cold, "warm": warm, "results": results}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        main()
