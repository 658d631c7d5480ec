"""Turn over bits of every file of both kinds of cache and count those that are used without a word.

    python -m tests.bench.flips [--flips 500] [--every-byte]

Run from the repository's root, where `tests` holds the tiny model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bit_flips import files, flips, kept, silently_used, used
from tiny_runs import delift, pairs, score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=500, help="of each kind of cache")
    parser.add_argument("--every-byte", action="store_true", help="one bit of every byte instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool.jsonl"
        pool.write_bytes(pairs(*range(24)))
        total = Counter[str]()
        for kind, budget in (("all pairs", ()), ("some pairs", ("--budget", "45%"))):
            cache = Path(folder) / kind.replace(" ", "-")
            assert score(pool, "-o", cache, "-q", *budget).code == 0
            assert delift("select", cache, "-k", "5", "-q").code == 0
            clean = used(cache), kept(cache)
            places = [*flips(cache, options.flips, options.seed)]
            if options.every_byte:
                every = ((file, at) for file in files(cache) for at in range(file.stat().st_size))
                places = [(file, at, (at * 5 + 3) % 8) for file, at in every]
            silent = [place for place in places if silently_used(cache, *place, clean)]
            total.update(tried=len(places), silent=len(silent))
            print(f"{kind}: {len(places):,} bits in {len(files(cache))} files, {len(silent)} used silently", flush=True)
            for file, at, bit in silent[:20]:
                print(f"  {file.relative_to(cache)} byte {at} bit {bit}")
        print(f"all: {total['tried']:,} bits turned over, {total['silent']} used silently")


if __name__ == "__main__":
    main()
