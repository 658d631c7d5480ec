"""A handful of the thousand kills of tests/bench/kills.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_killed_runs_come_to_what_uninterrupted_ones_do() -> None:
    scenarios = ("--only", "more of a budget", "--only", "edited in part")
    command = [sys.executable, "-m", "tests.bench.kills", "--kills", "4", "--steps", "90", "--seed", "3", *scenarios]
    run = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 runs that came to anything else" in run.stdout
