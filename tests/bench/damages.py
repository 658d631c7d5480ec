"""Damage one file of a cache at a time, let `delift verify --repair` mend it, and compare every array.

    python -m tests.bench.damages [--damages 100] [--seed 0]

A bit is turned over, a file cut short, a page or all of it zeroed, removed, or put back as it was earlier; in caches of
all pairs and of some, made in one go and grown. What is mended in a cache that grew was measured among other pairs
than at first, and may differ in the last digits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from damaged import OTHER, RUNS, SILENT, damages, outcome, subject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--damages", type=int, default=100, help="of each kind of cache; what changes nothing is left out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--said", action="store_true", help="show every damage with what was said of it")
    options = parser.parse_args()
    total = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for kind in RUNS:
            whole, counted = subject(Path(folder), kind), Counter[str]()
            for damage in damages(whole, options.damages, options.seed):
                what, said = outcome(whole, damage, Path(folder) / "damaged")
                counted[what] += 1
                if options.said or what in (SILENT, OTHER):
                    print(f"  {damage.file}, {damage.how}: {what}: {said}", flush=True)
            print(
                f"{kind}: {counted.total()} damages",
                *(f"{n:5} {what}" for what, n in counted.items()),
                sep="\n",
                flush=True,
            )
            total += counted
    print(f"all: {total.total()} damages", *(f"{n:5} {what}" for what, n in total.items()), sep="\n")
    sys.exit(bool(total[SILENT] or total[OTHER]))


if __name__ == "__main__":
    main()
