"""Caches to report on, made without a model: records hostile to a page, complete and partly measured blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_runs

from delift_cli.budget.measured import HELD_OUT, NEIGHBOUR, RANDOM
from delift_cli.cache.sparse import open_sparse_for_scoring
from delift_cli.cache.stored_round import Asked

HOSTILE = (
    "<script>document.title = 'ran'</script>",
    "</script><script>document.title = 'ran'</script>",
    "<img src=x onerror=\"document.title = 'ran'\">",
    "<!-- --> {{ 7 * 7 }} ${7 * 7} {% raw %} <%= 7 * 7 %>",
    "\u202ereversed\u202c \u2066isolated\u2069 \u200b",
    "\x1b[31mred\x1b]0;title\x07 \x9b2J \x00",
    "]]> &amp; &lt; \"quotes\" 'single' `tick` \\u003cb\\u003e",
    "\u2028line\u2029 separator \ufeff",
    "=1+1",
    "עברית and العربية with 日本語 and 👩‍👩‍👧",
)


def hostile_pool(count: int = 40) -> bytes:
    """Records whose ids, tasks, prompts and responses carry the texts of HOSTILE, each with a word of its own."""
    return tiny_runs.jsonl(
        [
            {
                "id": "=39" if number == 39 else f"{number} {HOSTILE[number % len(HOSTILE)]}",
                "task": HOSTILE[number % 4],
                "prompt": f"ask {number} {HOSTILE[(number + 3) % len(HOSTILE)]}",
                "response": f"say {number} {HOSTILE[(number + 5) % len(HOSTILE)]}\n\nand more",
            }
            for number in range(count)
        ]
    )


def plain_pool(count: int) -> bytes:
    return tiny_runs.jsonl([{**tiny_runs.pair(number), "task": f"kind {number % 3}"} for number in range(count)])


def sparse_cache(path: Path, data: bytes, per_example: int = 12, seed: int = 0) -> Path:
    """Some pairs of a pool against itself, with utilities that a low-rank estimate can learn."""
    records = tiny_runs.records(data)
    n = len(records.records)
    rng = np.random.default_rng(seed)
    left, right = rng.uniform(0, 0.4, (n, 2)), rng.uniform(0, 1, (2, n))
    base = np.full(n, 0.9, np.float32)
    targets = [np.sort(rng.choice(n, per_example, replace=False)).astype(np.int32) for _ in range(n)]
    source = rng.choice(np.array([NEIGHBOUR, RANDOM, HELD_OUT], np.uint8), (n, per_example), p=[0.5, 0.3, 0.2])
    lengths = tiny_runs.tokens(records)
    with open_sparse_for_scoring(
        path, tiny_runs.DESCRIPTION, records, None, example_tokens=lengths, response_tokens=[5] * n
    ) as cache:
        cache.write_base(0, base, np.full(n, -1.5, np.float32))
        asked = Asked("12 a record", n * per_example, 1, 0)
        indptr = np.arange(n + 1, dtype=np.int64) * per_example
        part = cache.begin_round(asked, indptr, np.concatenate(targets), source.reshape(-1))
        for example, own in enumerate(targets):
            distance = (base[own] - left[example] @ right[:, own]).astype(np.float32)
            cache.write_pairs(part, example, distance, -distance)
        cache.sync()
    return path
