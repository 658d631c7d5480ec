"""How long a report takes and how large its page is, on made-up caches: `delift report` in a process of its own.

    python -m tests.bench.report                     # 5,000 records with all pairs, 50,000 with 150 pairs each
    python -m tests.bench.report --sizes 5000        # that one alone
    python -m tests.bench.report --profile           # where the time goes, as cProfile has it
    python -m tests.bench.report --browser           # how long Chromium takes to put the page together
    python -m tests.bench.report --estimates off     # pairs that are not measured count as nothing

Texts are made of words whose frequencies fall as in a language, in 200 tasks, of 400 characters on average; utilities
have a rank, noise and tasks. The caches stay in the work folder, a second run takes them from there. A time runs from
the start of the process to its end; beside it peak memory. A line of JSON for each size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tiny_runs

from delift_cli.budget.measured import HELD_OUT, NEIGHBOUR, RANDOM
from delift_cli.cache.sparse import open_sparse_for_scoring
from delift_cli.cache.stored_round import Asked

ALL_PAIRS_UP_TO = 10_000
PAIRS = 150  # of each record in a larger pool
TASKS, WORDS, RANK = 200, 20_000, 6
HELD_OUT_SHARE = 0.05  # of the pairs drawn at random


def made_up_records(n: int) -> tuple[bytes, np.ndarray]:
    """Records as JSONL, and the task of each."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, WORDS)]
    often = 1 / np.arange(10, WORDS + 10)
    drawn = rng.choice(WORDS, 60 * n, p=often / often.sum())
    openings = [" ".join(words[word] for word in rng.integers(0, WORDS, 6)) for _ in range(TASKS)]
    task = rng.integers(0, TASKS, n)
    records = []
    for number in range(n):
        own = [words[word] for word in drawn[60 * number : 60 * (number + 1)].tolist()]
        asked = int(rng.integers(15, 55))
        prompt = f"{openings[task[number]]}: {' '.join(own[:asked])}"
        records.append(
            {"id": f"r{number}", "task": f"task {task[number]}", "prompt": prompt, "response": " ".join(own[asked:])}
        )
    return tiny_runs.jsonl(records), task


def make_cache(path: Path, n: int) -> None:
    data, task = made_up_records(n)
    rng = np.random.default_rng(1)
    of_task = rng.standard_normal((TASKS, RANK)).astype(np.float32)
    own = of_task[task] + 0.1 * rng.standard_normal((n, RANK)).astype(np.float32)
    base = rng.uniform(0.3, 0.9, n).astype(np.float32)

    def distances(example: int, targets: np.ndarray) -> np.ndarray:
        noise = 0.03 * rng.standard_normal(len(targets), np.float32)
        return np.asarray((base[targets] - 0.02 * (own[targets] @ own[example]) + noise).clip(0, 1), np.float32)

    if n <= ALL_PAIRS_UP_TO:
        with tiny_runs.open_cache(path, data) as cache:
            cache.write_base(0, base, -3 * base)
            cache.sync()
            for example in range(n):
                distance = distances(example, np.arange(n))
                cache.write_row(example, distance, -3 * distance)
        return
    records = tiny_runs.records(data)
    lengths = tiny_runs.tokens(records)
    members = [np.flatnonzero(task == number) for number in range(TASKS)]
    rows = []
    for example in range(n):
        kin = members[task[example]]
        near = rng.choice(kin, min(PAIRS // 2, len(kin)), replace=False)
        targets = np.unique(np.concatenate([near, rng.integers(0, n, PAIRS - len(near))])).astype(np.int32)
        drawn = np.where(rng.random(len(targets)) < HELD_OUT_SHARE, HELD_OUT, RANDOM)
        rows.append((targets, np.where(np.isin(targets, near), NEIGHBOUR, drawn).astype(np.uint8)))
    with open_sparse_for_scoring(
        path, tiny_runs.DESCRIPTION, records, None, example_tokens=lengths, response_tokens=[5] * n
    ) as cache:
        cache.write_base(0, base, -3 * base)
        indptr = np.concatenate([[0], np.cumsum([len(targets) for targets, _ in rows])]).astype(np.int64)
        asked = Asked(f"{indptr[-1] / n**2:.2%}", int(indptr[-1]), 1, 0)
        part = cache.begin_round(asked, indptr, *(np.concatenate(side) for side in zip(*rows, strict=True)))
        for example, (targets, _) in enumerate(rows):
            distance = distances(example, targets)
            cache.write_pairs(part, example, distance, -3 * distance)


def measure(cache: Path, page: Path, profile: Path | None, estimates: str = "auto") -> dict[str, Any]:
    """One report, in its own process."""
    program = ["-m", "cProfile", "-o", str(profile)] if profile else []
    command = [sys.executable, *program, "-m", "delift_cli", "report", str(cache), "-o", str(page), "--quiet"]
    command += ["--estimates", estimates]
    began = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - began
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": round(took, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "page_mb": round(page.stat().st_size / 1e6, 2),
        "peak_mb": used.ru_maxrss // 1024,
    }


def in_browser(page: Path) -> dict[str, float]:
    """Seconds until the page is put together, until a table of all records is sorted, and until a record is open."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page()
        times = [time.perf_counter()]
        opened.goto(page.as_uri())
        opened.wait_for_selector("html[data-ready=yes]", timeout=120_000)
        times.append(time.perf_counter())
        table = opened.locator("#table-records")
        table.locator("th", has_text="mean utility").get_by_role("button").click()
        table.locator("th[aria-sort]").wait_for()
        times.append(time.perf_counter())
        table.locator("tbody tr").first.get_by_role("button").click()
        opened.get_by_role("dialog").get_by_role("heading").first.wait_for()
        times.append(time.perf_counter())
        browser.close()
    steps = np.diff(times).round(2).tolist()
    return dict(zip(("ready_s", "sorted_s", "opened_s"), steps, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--work", type=Path, help="where caches and pages stay (default: a temporary folder)")
    parser.add_argument("--make", action="store_true", help="make the caches, measure nothing")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--estimates", choices=("auto", "on", "off"), default="auto")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for n in args.sizes:
            cache, page, profile = (work / f"{n}{end}" for end in (".delift", ".html", ".profile"))
            if not cache.exists():
                make_cache(cache, n)
            if args.make:
                continue
            found = measure(cache, page, profile if args.profile else None, args.estimates)
            if args.browser:
                found |= in_browser(page)
            print(json.dumps({"records": n, **found}), flush=True)


if __name__ == "__main__":
    main()
