"""A run that is far slower than it was is told so once; threads within what the system lets this process use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from delift_cli.model import processor
from delift_cli.model.llama import Settings
from delift_cli.scoring.load import Watch
from delift_cli.scoring.pairs import Work


@pytest.fixture(autouse=True)
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how many processes want a processor, seven at first."""

    def put(value: float) -> None:
        monkeypatch.setattr(os, "getloadavg", lambda: (value, value, value))

    put(7.0)
    return put


def seen(expected: float | None, *rates: float) -> list[str]:
    said: list[str] = []
    watch = Watch(Settings(threads=4), expected, said.append)
    tokens, seconds = 0, 0.0
    for rate in rates:
        tokens, seconds = tokens + int(30 * rate), seconds + 30.0
        watch.see(Work(tokens=tokens, seconds=seconds))
    return said


def test_said_once_with_what_helps() -> None:
    (line,) = seen(300.0, 290.0, 33.0, 20.0)
    assert line.startswith("33 tokens/s, where 300 were seen")
    assert line.endswith("--threads 2")


def test_the_runs_own_best_counts_where_nothing_was_measured_before() -> None:
    assert len(seen(0.0, 300.0, 33.0)) == 1
    assert seen(0.0, 33.0, 33.0) == []
    assert seen(300.0, 150.0, 200.0) == []
    assert seen(None, 300.0, 3.0) == []


def test_what_is_slow_alone_is_slow_for_another_reason(load: Callable[[float], None]) -> None:
    load(4.2)
    assert seen(300.0, 33.0, 33.0) == []
    load(4.8)
    assert len(seen(300.0, 33.0, 33.0)) == 1


def test_a_short_time_says_nothing() -> None:
    said: list[str] = []
    Watch(Settings(threads=1), 300.0, said.append).see(Work(tokens=10, seconds=5.0))
    assert said == []


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V2 = {"proc/self/cgroup": "0::/user/run\n"}
V1 = {"proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/docker/x\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/user/run/cpu.max": "max 100000\n"}, None),
        ({**V2, "sys/fs/cgroup/user/run/cpu.max": "250000 100000\n"}, 2.5),
        # the tightest one counts, also one further up, and what is mounted at the root in a container
        ({**V2, "sys/fs/cgroup/user/run/cpu.max": "max 100000", "sys/fs/cgroup/user/cpu.max": "150000 100000"}, 1.5),
        ({**V2, "sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        ({**V2, "sys/fs/cgroup/cpu.max": "nonsense"}, None),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        ({**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        ({**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 2.0),
    ],
)
def test_limits_of_cgroups(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    write(tmp_path, files)
    assert processor.cpu_limit(tmp_path) == limit


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux")
def test_hyperthreads_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3, 4, 5, 6})
    siblings = {0: "0,4", 4: "0,4", 1: "1,5", 5: "1,5", 2: "2,6", 6: "2,6", 3: "3,7"}
    for cpu, text in siblings.items():
        write(tmp_path, {f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": text})
    assert processor.usable_threads(tmp_path) == 4
    write(tmp_path, {**V2, "sys/fs/cgroup/cpu.max": "250000 100000"})
    assert processor.usable_threads(tmp_path) == 2
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "10000 100000"})
    assert processor.usable_threads(tmp_path) == 1
    assert processor.usable_threads(tmp_path / "nothing") == 7
