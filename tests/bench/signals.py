"""Tell `delift score` to end, at a random moment of all that it does: does it end in time, in words, and go on then?

    python -m tests.bench.signals [--moments 60] [--signal TERM]

From the start of the process on: imports, conversion, tuning, scoring, saving, and the way out. Before Python has come
to the first line of delift nothing can be said, so such ends are counted apart.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_runs import environment, model, pairs, start

from delift_cli.machine.kept import cache_directory

NUMBERS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}
IN_TIME = 2.0  # seconds
TOO_EARLY = "before the first line of delift"


class End(NamedTuple):
    code: int
    said: str
    took: float  # seconds from the signal on, on a machine that may be busy


def run(folder: Path, options: tuple[str, ...], number: signal.Signals | None = None, after: float = 0.0) -> End:
    """A run from nothing, with nothing but compiled code kept, that gets the signal after so many seconds."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for file in (folder / "kept").glob("*"):
        if file.is_file():
            file.unlink()
    command = "score", folder / "pool.jsonl", "-o", folder / "cache", "-m", model(), "--threads", "1", *options
    process = start(*command, env=environment(DELIFT_CACHE=str(folder / "kept")))
    time.sleep(after)
    if number is not None:
        process.send_signal(number)
    told = time.monotonic()
    said = process.communicate()[1].decode(errors="replace")
    return End(process.returncode, said, time.monotonic() - told)


def outcome(end: End, number: signal.Signals) -> str:
    last = end.said.splitlines()[-1:] or [""]
    if end.code == 0:
        return "was done already"
    if end.code == -number and not end.said:
        return TOO_EARLY
    if end.code != 128 + number or "the same command goes on from there" not in last[0] or "Traceback" in end.said:
        return "wrong"
    return "ended in words" if end.took < IN_TIME else "ended in words, late"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=60, help="of each signal")
    parser.add_argument("--signal", choices=NUMBERS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for number in NUMBERS.values():  # a child of nohup, or of a shell's background job, would ignore some of them
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    rng, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pool.jsonl").write_bytes(pairs(*range(20)))
        for compiled in cache_directory().glob("compiled-*"):  # what was compiled before need not be again
            shutil.copytree(compiled, folder / "kept" / compiled.name)
        kinds: list[tuple[str, ...]] = [(), ("--budget", "45%")]
        run(folder, kinds[1])  # compiled now, where it was not
        lasts = []
        for kind in kinds:
            begun = time.monotonic()
            assert (end := run(folder, kind)).code == 0, end
            lasts.append(time.monotonic() - begun)
        print("a run lasts", *(f"{seconds:.1f} s" for seconds in lasts), flush=True)
        for word in options.signal or NUMBERS:
            number, counted, longest, latest_early = NUMBERS[word], Counter[str](), 0.0, 0.0
            for moment in range(options.moments):
                kind, seconds = kinds[moment % 2], lasts[moment % 2]
                after = rng.random() * seconds * 1.02
                end = run(folder, kind, number, after)
                what = outcome(end, number)
                counted[what] += 1
                if what == TOO_EARLY:
                    latest_early = max(latest_early, after)
                elif what != "was done already":
                    longest = max(longest, end.took)
                if what in ("wrong", "ended in words, late"):
                    print(f"  {word} after {after:.2f} s: {what}: {end}", flush=True)
            wrong += counted["wrong"]
            said = ", ".join(f"{count} {what}" for what, count in sorted(counted.items()))
            print(
                f"{word}: {said}; the slowest end took {longest:.2f} s; too early at most {latest_early:.2f} s",
                flush=True,
            )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
