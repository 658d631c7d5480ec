"""The control groups of this process: what a container or a batch job limits it by, in version 1 and version 2."""

from __future__ import annotations

from pathlib import Path


def group_folders(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders of the groups that limit this process's `memory` or `cpu`, and of those above; some may not exist.

    Args:
        root: where /proc and /sys are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        controllers, _, place = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        groups = root / "sys/fs/cgroup"
        # in a container the place may lie outside of what is mounted; then the mount itself is this process's group
        for mount in (groups / controllers, groups / controller) if controllers else (groups,):
            own = mount / place.strip("/")
            folders += [own, *own.parents][: len(own.parts) - len(mount.parts) + 1]
    return list(dict.fromkeys(folders))
