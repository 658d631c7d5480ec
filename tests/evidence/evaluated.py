"""What `delift evaluate` says of the subsets that were trained on: one line for each, to compare with the losses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from delift_cli.errors import RunError
from tests.evidence import scored
from tests.evidence.pools import Pool
from tests.evidence.runs import Line, Run, append_result, read_results


def evaluate(runs: Sequence[Run], pool: Pool, path: Path) -> None:
    """Ask it about the subsets of a pool's instruction tuning that exist, and append its answers to `path`."""
    known = {(line["pool"], line["subset"]) for line in read_results(path)}
    subsets: dict[Path, Run] = {}
    for run in runs:
        if run.stage == "instruction" and run.pool == pool.name and run.variant is not None:
            file = scored.subset(pool, run.variant, run.size, run.selection_seed)
            if file.exists() and (pool.name, file.name) not in known:
                subsets.setdefault(file, run)
    if not subsets:
        return
    command = [sys.executable, "-m", "delift_cli", "evaluate", str(pool.path("heldout")), *map(str, subsets)]
    options = ("--weights", "bf16", "--json")
    asked = subprocess.run([*command, *options], stdout=subprocess.PIPE)
    if asked.returncode != 0:
        raise RunError(f"delift evaluate ended with exit code {asked.returncode}; its message is above")
    loss = {row["shown"]: -row["logprob"]["mean"] for row in json.loads(asked.stdout)["rows"]}
    for file, run in subsets.items():
        line: Line = {
            "pool": pool.name,
            "subset": file.name,
            "method": run.method,
            "size": run.size,
            "selection_seed": run.selection_seed,
            "loss": loss[str(file)],  # of the held-out records behind an example, nats per token
        }
        append_result(path, line)
