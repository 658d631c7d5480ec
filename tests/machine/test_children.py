"""Processes that delift starts of itself."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import delift_cli
from delift_cli.machine.children import ending, run_child, said_lines

ROOT = Path(delift_cli.__file__).parents[1]
CHILD = """
import os, sys, time
from delift_cli.machine.children import end_with_parent
end_with_parent()
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""


def test_what_a_child_gets_and_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "import sys, delift_cli; print(delift_cli.__file__, sys.argv[1], sys.stdin.read()); sys.exit('why')"
    done = run_child("-c", code, 3, seconds=60, given=b"more")
    assert said_lines(done.stdout) == [f"{delift_cli.__file__} 3 more"]
    assert (said_lines(done.stderr), ending(done.returncode)) == (["why"], "exit code 1")
    assert ending(run_child("-c", "import os; os.abort()", seconds=60).returncode) == "SIGABRT"
    with pytest.raises(subprocess.TimeoutExpired):
        run_child("-c", "import time; time.sleep(60)", seconds=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child does not hear of its parent's end")
def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    starting = (
        f"from delift_cli.machine.children import run_child; run_child('-c', {CHILD!r}, {str(pid)!r}, seconds=60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", starting], cwd=ROOT)
    until = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while runs(pid.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not runs(pid.read_text())


def runs(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
