"""What the processor can do that decides how fast each type of weights is, as the build of llama.cpp reports it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import llama_cpp

from ..machine.cgroups import group_folders

GPU = "GPU"  # among the features where layers can be offloaded


def features() -> frozenset[str]:
    """Instruction sets that llama.cpp was built for and uses here, in its own names: AVX2, AVX512_BF16, NEON, …

    A prebuilt wheel knows less than the processor: what it was not compiled for does not count.
    """
    said = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    found = {name for name, value in re.findall(r"(\w+) = (\d+)", said) if value != "0"}
    if llama_cpp.llama_supports_gpu_offload():
        found.add(GPU)
    return frozenset(found)


def name() -> str:
    """The processor as the system calls it."""
    import platform

    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
        if model:
            return model
    return platform.processor() or platform.machine()


def usable_threads(root: Path = Path("/")) -> int:
    """Physical cores that this process may use, within its affinity and its cgroup's CPU limit; at least 1.

    Two hyperthreads of one core share the units that multiply: a second one adds nothing and waits at every barrier.

    Args:
        root: where /proc and /sys are.
    """
    if sys.platform != "linux":
        return _physical_cores_elsewhere()
    allowed = os.sched_getaffinity(0)
    cores = {_siblings(root, processor) for processor in allowed}
    limit = cpu_limit(root)
    return max(1, min(len(cores), len(cores) if limit is None else int(limit)))


def _siblings(root: Path, processor: int) -> str:
    """The hyperthreads of this one's core, as text; of its own where the system does not say."""
    try:
        return (root / f"sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(processor)


def _physical_cores_elsewhere() -> int:
    count = os.cpu_count() or 1
    if sys.platform == "darwin":
        import subprocess

        for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):  # performance cores, where there are two kinds
            done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.strip().isdigit():
                return int(done.stdout)
    return count


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the cgroups of this process allow (cpu.max, or cfs_quota of version 1), or None.

    The tightest of all cgroups up to the root counts.
    """
    limits = [limit for folder in group_folders("cpu", root) if (limit := _limit_of(folder)) is not None]
    return min(limits, default=None)


def _limit_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota == "max" or int(quota) <= 0 or int(period) <= 0:
            return None
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None
