"""A long run, and a large one: memory, file handles and speed over 200,000 pairs; a million records planned.

    python -m tests.bench.long_load [--records 450] [--million]

The run is of a tiny model, in this process: resident memory and open files are looked at as rows are finished, after a
tenth of them as warm-up, and the time of the last tenth is held against the first's behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_runs import model, pair

import delift_cli
from delift_cli.model.llama import Settings
from delift_cli.progress import Step


def long_run(records: int, folder: Path) -> None:
    pool = folder / "pool.jsonl"
    pool.write_text("".join(json.dumps(pair(number)) + "\n" for number in range(records)))
    seen: list[tuple[int, float, int, int]] = []  # rows, seconds, resident bytes, open files

    def look(step: Step) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if step.stage == "scoring":
            seen.append((step.done, time.perf_counter(), resident, len(os.listdir("/proc/self/fd"))))

    delift_cli.score(
        str(pool),
        model=str(model()),
        output=folder / "pool.delift",
        weights="as-is",
        settings=Settings(threads=1),
        progress=look,
    )
    tenth = len(seen) // 10
    warm = seen[tenth:]
    took = [after[1] - before[1] for before, after in ((warm[0], warm[tenth]), (warm[-tenth - 1], warm[-1]))]
    grown = max(at[2] for at in warm) - warm[0][2]
    files = sorted({at[3] for at in warm})
    print(
        f"{records**2:,} pairs in {seen[-1][1] - seen[0][1]:.0f} s: memory grew by {grown / 1e6:.1f} MB after a tenth, "
        f"open files {files[0]} to {files[-1]}; the last tenth took {took[1] / took[0]:.3f} of the second's time"
    )


def million(folder: Path) -> None:
    pool = folder / "million.jsonl"
    with pool.open("w") as lines:
        for number in range(1_000_000):
            text = f"word{number % 977} of {number}"
            lines.write(json.dumps({"prompt": f"say {text}", "response": text}) + "\n")
    for arguments in (
        ("preview", pool),
        ("score", pool, "-m", model(), "--weights", "as-is", "--threads", "1", "--budget", "5M", "--dry-run"),
    ):
        start = time.perf_counter()
        command = [sys.executable, "-m", "delift_cli", *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"1,000,000 records, {arguments[0]}: {time.perf_counter() - start:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=450)
    parser.add_argument("--million", action="store_true", help="plan a budget of a million records as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        long_run(options.records, Path(name))
        if options.million:
            million(Path(name))


if __name__ == "__main__":
    main()
