"""How much memory there is for this process, and how much of it it may still take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .cgroups import group_folders


class _Group(NamedTuple):
    """A control group with a limit: bytes that it allows, and that its processes hold and cannot be taken back."""

    limit: int
    held: int


def all_memory(root: Path = Path("/")) -> int:
    """Bytes that the machine has, or that the tightest control group of this process (container, batch job) allows.

    Args:
        root: where /proc and /sys are.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(group.limit for group in _groups(root))])


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that are free, or as good as free; no more than the control groups of this process leave."""
    try:
        fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if ":" in line)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = all_memory(root)
    return min([free, *(max(0, group.limit - group.held) for group in _groups(root))])


def _groups(root: Path) -> list[_Group]:
    """Those of this process that have a limit."""
    found = []
    for folder in group_folders("memory", root):
        for file in (folder / "memory.max", folder / "memory.limit_in_bytes"):  # of version 2, of version 1
            with suppress(OSError, ValueError):  # `max`: no limit
                found.append(_Group(int(file.read_text()), _held(folder)))
    return found


def _held(folder: Path) -> int:
    """Memory of processes, not the copies of files that the kernel gives up for them."""
    with suppress(OSError, ValueError):
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(stat.get("anon") or stat.get("total_rss") or 0)
    return 0
