"""Bits of a cache's files turned over, one at a time: is what is read ever something else, without a word?"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from delift_cli.cache.dense import Cache
from delift_cli.cache.sidecar import kept_arrays, read_kept
from delift_cli.cache.sparse import open_cache
from delift_cli.errors import DeliftError

NOT_READ = ("lock", "llama.cpp.log")


def files(cache: Path) -> list[Path]:
    """Every file of a cache that is ever read."""
    return sorted(file for file in cache.rglob("*") if file.is_file() and file.name not in NOT_READ)


def used(cache: Path) -> str:
    """A digest of all that the tool uses of a cache; DeliftError where it refuses.

    A kept array that is damaged is made again from the rest, so it counts as what it was or as nothing.
    """
    opened = open_cache(cache)
    opened.check_rows()
    digest = hashlib.sha256()
    digest.update(orjson.dumps(opened.manifest, option=orjson.OPT_SORT_KEYS))
    for records in (opened.examples(), opened.targets()):
        for record in records.records:
            digest.update(f"{record.id} {record.line} ".encode() + record.raw)
    shared = opened.base_distance, opened.base_logprob, opened.example_tokens, opened.response_tokens
    for array in shared:
        digest.update(array.tobytes())
    digest.update(f"{opened.complete} ".encode() + opened.state)
    if isinstance(opened, Cache):
        for example, targets, distance in opened.measured():
            digest.update(targets.tobytes() + distance.tobytes() + opened.logprob[example, targets].tobytes())
    else:
        for array in opened.pairs():
            digest.update(array.tobytes())
        for part in opened.rounds:
            digest.update(f"{part.asked} {part.ended} {part.indptr.tobytes()!r}".encode())
    return digest.hexdigest()


def kept(cache: Path) -> dict[str, bytes | None]:
    """Every kept array's values, None where it is not taken."""
    found = {}
    for file in kept_arrays(cache):
        array = read_kept(file, (-1,), np.uint8)
        found[file.name] = None if array is None else array.tobytes()
    return found


def flips(cache: Path, count: int, seed: int) -> Iterator[tuple[Path, int, int]]:
    """File, byte and bit: files in turn, the place at random; every other one in the first 256 bytes."""
    rng, every = random.Random(seed), files(cache)
    for number in range(count):
        file = every[number % len(every)]
        size = file.stat().st_size
        yield file, rng.randrange(min(size, 256) if number // len(every) % 2 else size), rng.randrange(8)


def silently_used(cache: Path, file: Path, place: int, bit: int, clean: tuple[str, dict[str, bytes | None]]) -> bool:
    """With this bit turned over: is anything else used than before? The file is as it was afterwards."""
    data = file.read_bytes()
    damaged = bytearray(data)
    damaged[place] ^= 1 << bit
    file.write_bytes(damaged)
    try:
        now = kept(cache)
        if any(array not in (None, clean[1][name]) for name, array in now.items()):
            return True
        return used(cache) != clean[0]
    except DeliftError:
        return False
    finally:
        file.write_bytes(data)
