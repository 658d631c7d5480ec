"""Kill `delift score` a thousand times, in every kind of run, and compare what it comes to with an uninterrupted one.

    python -m tests.bench.kills [--kills 1000] [--seed 0] [--record FILE]

More than half of the kills are before a chosen file operation (write, sync, rename, link, …), the others SIGKILL at a
random moment. A record has a line for every run: what stands in it is counted and not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["NUMBA_THREADING_LAYER"] = "workqueue"  # the one that survives a fork
sys.path.insert(0, str(Path(__file__).parents[1]))

from killed_runs import SCENARIOS, Bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--only", action="append", choices=[scenario.name for scenario in SCENARIOS], help="these runs")
    parser.add_argument("--steps", type=int, help="kill within so many file operations; default all, counted first")
    parser.add_argument("--record", type=Path, help="append every run here, and begin behind those in it")
    options = parser.parse_args()
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in (options.only or [scenario.name])]
    started = time.monotonic()
    kills, runs, wrong = Counter[str](), Counter[str](), 0
    if options.record and options.record.exists():
        for line in options.record.read_text().splitlines():
            run = json.loads(line)
            kills[run["scenario"]] += run["kills"]
            runs[run["scenario"]] += 1
            wrong += bool(run["fault"])
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), scenarios, options.steps)
        for scenario in scenarios:
            name = scenario.name
            print(f"{name}: {bench.steps[name]} file operations, {bench.seconds[name]:.2f} s uninterrupted", flush=True)
        while kills.total() < options.kills and time.monotonic() - started < options.seconds:
            scenario = scenarios[runs.total() % len(scenarios)]
            killed, fault = bench.trial(scenario, random.Random(f"{options.seed} {runs.total()}"))
            kills[scenario.name] += killed
            runs[scenario.name] += 1
            if fault:
                wrong += 1
                print(f"{scenario.name}: {fault}", flush=True)
            if options.record:
                with options.record.open("a") as record:
                    record.write(json.dumps({"scenario": scenario.name, "kills": killed, "fault": fault}) + "\n")
    for name, count in kills.items():
        print(f"{name}: {runs[name]} runs killed {count} times")
    print(f"all: {kills.total()} kills in {runs.total()} runs, {wrong} runs that came to anything else")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
