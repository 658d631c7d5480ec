"""How much memory there is for this process, and how much of it it may still take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")


class _Group(NamedTuple):
    """A control group with a limit: bytes that it allows, and that its processes hold and cannot be taken back."""

    limit: int
    held: int


def all_memory() -> int:
    """Bytes that the machine has, or that the tightest control group of this process (container, batch job) allows."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(group.limit for group in _groups())])


def free_memory() -> int:
    """Bytes that are free, or as good as free; no more than the control groups of this process leave."""
    try:
        fields = dict(line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines() if ":" in line)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = all_memory()
    return min([free, *(max(0, group.limit - group.held) for group in _groups())])


def _groups() -> list[_Group]:
    """Those of this process that have a limit, of version 2 and version 1, and those above."""
    found = []
    with suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top, file = (_GROUPS / "memory", "memory.limit_in_bytes") if controllers else (_GROUPS, "memory.max")
            own = top / name.strip("/")
            for folder in (own, *own.parents):
                with suppress(OSError, ValueError):  # `max`: no limit
                    found.append(_Group(int((folder / file).read_text()), _held(folder)))
                if folder == top:
                    break
    return found


def _held(folder: Path) -> int:
    """Memory of processes, not the copies of files that the kernel gives up for them."""
    with suppress(OSError, ValueError):
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(stat.get("anon") or stat.get("total_rss") or 0)
    return 0
