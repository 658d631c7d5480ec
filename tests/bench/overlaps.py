"""`delift select` and `delift inspect`, over and over, while `delift score --budget` fills the cache.

    python -m tests.bench.overlaps [--trials 30] [--records 80]

In the end the cache, and what is chosen from it, must be what they are where nobody looked.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_runs import QUICK, delift, model, pairs, start, tree

CHOICES = (("select", "-k", "30%"), ("select", "-k", "10%", "--objective", "topm"), ("inspect", "--json"))


def look(cache: Path) -> list[tuple[int, bytes]]:
    """Exit code and output of every choice."""
    return [(found.code, found.out) for name, *rest in CHOICES for found in (delift(name, cache, *rest),)]


def kept(cache: Path) -> dict[str, bytes]:
    """What is in the cache, but for what is of one process; gains of a state that is no more may lie beside these."""
    return {name: data for name, data in tree(cache).items() if name not in ("lock", "llama.cpp.log")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--records", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    order = random.Random(options.seed)
    codes: Counter[int] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        cache, pool = Path(folder, "pool.delift"), Path(folder, "pool.jsonl")
        pool.write_bytes(pairs(*range(options.records)))
        scoring = ("score", pool, "-o", cache, "-m", model(), *QUICK, "--quiet")
        for number in range(options.trials + 1):  # first alone
            shutil.rmtree(cache, ignore_errors=True)
            for budget in (("--budget", "15%"), ("--continue", "--budget", "+15%")):
                process = start(*scoring, *budget)
                while number and process.poll() is None:
                    if cache.joinpath("manifest.json").exists():
                        name, *rest = order.choice(CHOICES)
                        found = delift(name, cache, *rest)
                        codes[found.code] += 1
                        if "Traceback" in found.err or "damaged" in found.err:
                            wrong += 1
                            print(f"{name}: {found.err}", flush=True)
                said = process.communicate()[1]
                if process.returncode:
                    sys.exit(f"score ended with {process.returncode}: {said.decode()}")
            got = look(cache), kept(cache)
            if not number:
                want = got
                continue
            different = sorted(name for name, data in want[1].items() if got[1].get(name) != data)
            more = [name for name in got[1] if name not in want[1] and not name.startswith("gains/")]
            if got[0] != want[0] or different or more:
                wrong += 1
                chosen = "the same" if got[0] == want[0] else "other records"
                print(f"trial {number}: {chosen} chosen; different {different}, more {more}", flush=True)
    looks = ", ".join(f"{count} ended with {code}" for code, count in sorted(codes.items()))
    print(f"{options.trials} trials, looked at {codes.total()} times meanwhile ({looks}), {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
