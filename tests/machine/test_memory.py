"""Free memory as the kernel and the control groups have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from delift_cli.machine import memory


@pytest.mark.parametrize(
    ("group", "file", "found"),
    [
        ("0::/job/step", "job/memory.max", 3_000_000),  # version 2, set above
        ("4:memory:/job", "memory/job/memory.limit_in_bytes", 3_000_000),
        ("4:memory:/outside/job", "memory/memory.limit_in_bytes", 3_000_000),  # what a container has mounted
        ("0::/job", "job/memory.high", 8_000_000),  # no limit of that kind
        ("4:cpu:/job", "memory/job/memory.limit_in_bytes", 8_000_000),
    ],
)
def test_a_limit_of_the_group_counts(group: str, file: str, found: int, tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16000 kB\nMemAvailable: 7812 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{group}\n")
    limit = tmp_path / "sys/fs/cgroup" / file
    limit.parent.mkdir(parents=True)
    limit.write_text("3000000\n")
    assert memory.free_memory(tmp_path) == pytest.approx(found, rel=1e-3)
    limited = found == 3_000_000
    assert (memory.all_memory(tmp_path) == 3_000_000) == limited
    name = "anon" if limit.name == "memory.max" else "total_rss"
    (limit.parent / "memory.stat").write_text(f"cache 900000\n{name} 1000000\nfile 500000\n")
    assert memory.free_memory(tmp_path) == pytest.approx(
        found - 1_000_000 * limited, rel=1e-3
    )  # files are given up for it


def test_this_machine() -> None:
    assert memory.all_memory() > memory.free_memory() > 1 << 20
