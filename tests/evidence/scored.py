"""From pools to caches and subsets, the way a user would go: `delift score` and `delift select` as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np

from delift_cli.errors import RunError
from tests.evidence.harder import CHANGED
from tests.evidence.pools import Pool
from tests.evidence.variants import Variant

# Shares of the pairs that fit half an hour on two cores; the stages' blocks are smaller and have longer records.
BUDGETS = {"p3": "15%", "p3-1000": "3%", "spoiled-1000": "3%"}
BUDGET = "10%"  # of the others
BLOCK_BUDGET = "10%"


def score(pool: Pool, wanted: Collection[str], budget: str | None = None, weights: str = "bf16") -> None:
    """Measure blocks of a pool, each to the end; what is done already is not done again.

    Args:
        wanted: of "POOL", "TARGET" and "EXISTING", what the choices go by.
        budget: share of the pairs of every block, in place of BUDGETS.
        weights: what the model's weights are converted to.
    """
    records = str(pool.path("pool"))
    sets = {
        "POOL": (BUDGETS.get(pool.name, BUDGET), records),
        "TARGET": (BLOCK_BUDGET, records, "--targets", str(pool.path("target"))),
        "EXISTING": (BLOCK_BUDGET, "--examples", str(pool.path("existing")), "--targets", records),
    }
    for block, (share, *given) in sets.items():
        if block in wanted:
            _delift("score", *given, "-o", str(cache(pool, block)), "--weights", weights, "--budget", budget or share)


def cache(pool: Pool, block: str) -> Path:
    """Where a block ("POOL", "TARGET", "EXISTING") lies."""
    return pool.folder / f"{block.lower()}.delift"


def select(pool: Pool, variant: Variant, size: str, seed: int) -> list[str]:
    """The ids of the records that a variant chooses, in order; the subset is written once, and read after that."""
    path = subset(pool, variant, size, seed)
    if not path.exists():
        arguments = [str(cache(pool, a)) if a in ("POOL", "TARGET", "EXISTING") else a for a in variant.arguments]
        path.parent.mkdir(exist_ok=True)
        if variant.never:
            never = path.with_suffix(".never")
            never.write_text("".join(f"{name}\n" for name in left_out(pool, variant, seed)), encoding="utf-8")
            arguments += ["--never", str(never)]
        _delift("select", *arguments, "-k", size, "--seed", str(seed), "-o", str(path), "--quiet")
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]


def left_out(pool: Pool, variant: Variant, seed: int) -> list[str]:
    """The ids of what a variant may not choose."""
    ids = [record["id"] for record in pool.records("pool")]
    if variant.never == "changed":
        return [name for name in ids if CHANGED in name]
    drawn = np.random.default_rng(1000 + seed).choice(len(ids), round(0.25 * len(ids)), replace=False)
    return [ids[place] for place in drawn.tolist()]


def subset(pool: Pool, variant: Variant, size: str, seed: int) -> Path:
    """The file of a variant's choice."""
    chance = f"-{seed}" if variant.chance else ""
    return pool.folder / "subsets" / f"{variant.name}-{size.rstrip('%')}{chance}.jsonl"


def _delift(*arguments: str) -> None:
    command = [sys.executable, "-m", "delift_cli", *arguments]
    if (code := subprocess.run(command, stdout=subprocess.DEVNULL).returncode) != 0:
        raise RunError(f"delift {' '.join(arguments)} ended with exit code {code}; its message is above")
