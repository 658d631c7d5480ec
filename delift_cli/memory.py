"""How much memory this process may still take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that are free, or as good as free; no more than a control group (container, batch job) leaves."""
    try:
        fields = dict(line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines() if ":" in line)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *_limits()])


def _limits() -> list[int]:
    """What the control groups of this process allow in all: version 2 and version 1 of them, and those above."""
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
                    found.append(int((folder / file).read_text()))
                if folder == top:
                    break
    return found
