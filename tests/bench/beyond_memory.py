"""Selection from a kernel larger than memory, and from many records before few targets: time, memory, value.

    python tests/bench/beyond_memory.py                                     # 200,000 x 2,000 (1.6 GB), no limit
    python tests/bench/beyond_memory.py --limit 0.5 --parts 8               # all ways under half a GiB

Each way runs in its own process on the same file: partitioned (two rounds; a part's rows are in memory at a time),
exact, and stochastic. `--limit` is a memory cgroup (version 1) that counts the page cache too, which needs root; what a
process maps it reads again from disk when it comes back to it, so that under a limit exact may not end: it is given up
after `--timeout`. A line of JSON for each way.
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

import numpy as np

HERE = Path(__file__).resolve()
GROUP = Path("/sys/fs/cgroup/memory/delift-bench")

COMPILED = "import numpy as np; from delift_cli import select; select(np.eye(40, dtype=np.float32), 5)"


def make_kernel(path: Path, n: int, m: int) -> None:
    """A float32 kernel with the make-up of measured utilities, in 50 tasks, written in blocks."""
    rng = np.random.default_rng(0)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, m))
    example, target = rng.integers(50, size=n), rng.integers(50, size=m)
    tasks = (0.03 * rng.standard_normal((50, 50)) + np.diag(rng.uniform(0, 0.3, 50))).astype(np.float32)
    for first in range(0, n, 2000):
        rows = slice(first, min(n, first + 2000))
        noise = rng.standard_normal((rows.stop - first, m), np.float32)
        out[rows] = np.maximum(0, tasks[example[rows]][:, target] + 0.05 * noise)
    out.flush()


def child(path: Path, method: str, k: int, parts: int, limit: float) -> None:
    if limit:
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(int(limit * 2**30)))
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    from delift_cli import select

    select(np.eye(40, dtype=np.float32), 5)  # compiled, or its code loaded
    kernel = np.load(path, mmap_mode="r")
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    chosen = select(kernel, k, method=method, parts=parts, bound=False)  # type: ignore[arg-type]
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found = {
        "method": method,
        "shape": kernel.shape,
        "k": k,
        "seconds": round(took, 2),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "value": chosen.value,
        "evaluations": chosen.evaluations,
        "saturated_at": chosen.saturated_at,
        "anonymous_mb": int(status["RssAnon"].split()[0]) // 1024,
        "peak_resident_mb": int(status["VmHWM"].split()[0]) // 1024,
        "read_from_disk_mb": (after.ru_inblock - before.ru_inblock) // 2048,
        "guarantee": chosen.guarantee_note,
    }
    print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--targets", type=int, default=2_000)
    parser.add_argument("-k", type=int, default=2_000)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--limit", type=float, default=0.0, help="GiB for each process")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for each way")
    parser.add_argument("--methods", nargs="+", default=["partitioned", "exact", "stochastic"])
    parser.add_argument("--folder", type=Path, help="where the kernel is written (default: a temporary folder)")
    parser.add_argument("--keep", type=Path, help="write the kernel here, or take what is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = args.keep or Path(folder) / "kernel.npy"
        if not path.exists():
            make_kernel(path, args.examples, args.targets)
        compiled = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE.parents[2])!r}); {COMPILED}"]
        subprocess.run(compiled, check=True)  # which takes more memory than selecting
        for method in args.methods:
            with path.open("rb") as file:  # out of the page cache, so that each way begins alike
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            arguments = [str(path), method, str(args.k), str(args.parts), str(args.limit)]
            command = [sys.executable, str(HERE), "--child", *arguments]
            environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
            try:
                ended = subprocess.run(command, check=False, env=environment, timeout=args.timeout).returncode
                if ended:
                    print(json.dumps({"method": method, "ended with": ended}), flush=True)
            except subprocess.TimeoutExpired:
                print(json.dumps({"method": method, "given up after": args.timeout}), flush=True)
    if args.limit:
        GROUP.rmdir()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
    else:
        main()
