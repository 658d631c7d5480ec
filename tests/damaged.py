"""A cache with one of its files damaged: what `delift verify` says of it, and what `--repair` makes of it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bit_flips import NOT_READ, kept, used
from tiny_runs import delift, model, pairs, score, tree

from delift_cli.cache.sidecar import BASELINES, GAINS
from delift_cli.errors import DeliftError

HOWS = ("flip", "cut", "zeroed", "removed", "older")
SILENT = "used silently"
SAME = "mended: the same bytes"
NEAR = "mended: the same values"  # within the tolerance
FEWER = "mended: a round is gone, which is said"
OTHER = "mended: other values"
REFUSED = "named, the repair refused in a line"
HARMLESS = "not named: all that is used is as before"
MADE_AGAIN = "not named: a kept array that is made again"
UNFINISHED = "not named: counts as not scored yet, which is said"
TOLERANCE = 1e-4  # of distances and log-probabilities, between a pair scored among these and among other ones


class Damage(NamedTuple):
    """A file of a cache with other bytes; None where it is gone."""

    file: str
    how: str
    data: bytes | None


class Subject(NamedTuple):
    """A cache with everything kept beside it, and what its files held at earlier times."""

    path: Path
    earlier: list[dict[str, bytes]]


SHARE, MORE = ("--budget", "50%"), ("--continue", "--budget", "+20%")
RUNS = {  # how many records, and with which options
    "all pairs": [(12, ())],
    "all pairs, grown": [(9, ()), (12, ())],
    "some pairs": [(12, SHARE), (12, MORE)],
    "some pairs, grown": [(9, SHARE), (12, SHARE)],
}


def subject(folder: Path, kind: str) -> Subject:
    """A cache of one of the kinds of RUNS, with first gains, embeddings and losses kept beside it."""
    cache, earlier = folder / kind.replace(", ", "-").replace(" ", "-"), []
    for count, options in RUNS[kind]:
        pool = folder / f"{count}.jsonl"
        pool.write_bytes(pairs(*range(count)))
        if cache.exists():
            earlier.append(tree(cache))
        assert (done := score(pool, "-o", cache, "-q", *options)).code == 0, done
    for method in ("delift", "ifd", "embedding"):
        needs = () if method == "delift" else ("-m", model(), "--threads", "1")
        assert (done := delift("select", cache, "-k", "5", "-q", "--method", method, *needs)).code == 0, done
    return Subject(cache, earlier)


def damages(subject: Subject, count: int, seed: int) -> Iterator[Damage]:
    """Files and kinds of damage in turn, places at random; what changes nothing is left out."""
    rng, files = random.Random(seed), tree(subject.path)
    names = [name for name in files if Path(name).name not in NOT_READ]
    for number in range(count):
        name, how = names[number % len(names)], HOWS[number // len(names) % len(HOWS)]
        for data in _damaged(files[name], how, [state.get(name) for state in subject.earlier], rng):
            if data != files[name]:
                yield Damage(name, how, data)


def _damaged(data: bytes, how: str, earlier: list[bytes | None], rng: random.Random) -> list[bytes | None]:
    at = rng.randrange(max(1, len(data)))
    if how == "flip":
        return [data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]] if data else []
    if how == "cut":
        return [data[:at]]
    if how == "zeroed":  # a page that the disk never got, as it may look after a power cut
        start = at // 512 * 512 if rng.random() < 0.5 else 0
        return [data[:start] + bytes(len(data) - start)]
    if how == "removed":
        return [None]
    return [state for state in earlier if state is not None]


def outcome(subject: Subject, damage: Damage, place: Path) -> tuple[str, str]:
    """What comes of it, at `place`: one of the words above, and what is to be said of it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(subject.path, place)
    file = place / damage.file
    file.unlink() if damage.data is None else file.write_bytes(damage.data)
    found = delift("verify", place, "--json")
    if found.code == 0:
        return _unnamed(subject, damage, place)
    if found.code == 2:
        return REFUSED, found.refusal()
    said = "; ".join(f"{one['file']}: {one['what']}" for one in found.json["damages"])
    mended = delift("verify", place, "--repair", "-m", model(), "--threads", "1", "--json")
    if mended.code:
        return REFUSED, mended.refusal(mended.code)
    assert delift("verify", place).code == 0
    return _mended(subject, place, said)


def _unnamed(subject: Subject, damage: Damage, place: Path) -> tuple[str, str]:
    if damage.data is None and Path(damage.file).parts[0] in (GAINS, BASELINES):
        return MADE_AGAIN, ""
    try:
        if (used(place), kept(place)) == (used(subject.path), kept(subject.path)):
            return HARMLESS, ""
    except DeliftError as error:
        return SILENT, f"verify says nothing, readers refuse: {error}"
    told = delift("inspect", place, "--json").json
    if told["complete"] is False or told["pairs"] != told["pairs_known"]:
        return UNFINISHED, ""
    return SILENT, str(told)[:300]


def _mended(subject: Subject, place: Path, said: str) -> tuple[str, str]:
    want, got = ({n: d for n, d in tree(p).items() if Path(n).name not in NOT_READ} for p in (subject.path, place))
    gone = {name for name in want if name not in got and not _can_go(name)}
    different = [name for name in got if got[name] != want.get(name)]
    if any(Path(name).name == "plan.json" for name in gone):
        return FEWER, said
    if gone:
        return OTHER, f"{said}: {sorted(gone)} is gone"
    if not different:
        return SAME, said
    off = max(_off(place / name, subject.path / name) for name in different)
    return NEAR if 0 < off <= TOLERANCE else OTHER, f"{said}: {', '.join(different)}, at most {off:.1e} off"


def _can_go(name: str) -> bool:
    """A kept array is made again when it is asked for; a round that does not say that it ended is gone on with."""
    return Path(name).parts[0] in (GAINS, BASELINES) or Path(name).name == "ended"


def _off(one: Path, other: Path) -> float:
    """How far two arrays are apart at most; checksums are no numbers, but what they count is."""
    if one.suffix != ".npy" or not other.exists():
        return np.inf
    a, b = np.load(one), np.load(other)
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if a.dtype.names is not None:
        counts = (a["done"], b["done"]) if "done" in a.dtype.names else (a["distance"] == 0, b["distance"] == 0)
        return 0.0 if np.array_equal(*counts) else np.inf
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    return float(np.nanmax(np.abs(a.astype(float) - b)))
