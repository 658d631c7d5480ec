"""What `--cluster` means: a scheduler's address, a batch system's queue, processes or GPUs of this machine.

A cluster is trusted: dask sends Python objects as pickles, and whoever can reach its scheduler can run code.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dask
import yaml

from ...errors import InputError, RunError
from ...model.llama import Settings, gpus

CONNECT_SECONDS = 30.0
QUIET = logging.CRITICAL  # what matters of dask's log, delift says itself
CONTEXTS = 2  # of a GPU, each with a thread
VISIBLE = "CUDA_VISIBLE_DEVICES"

dask.config.set({"logging": {"distributed": "critical", "asyncio": "critical", "tornado": "critical"}})
from distributed import Client, Nanny, Scheduler, SpecCluster  # noqa: E402, its log is set up when it is imported


class Connection(NamedTuple):
    """A client of a scheduler, and how many threads llama.cpp gets on a worker (None: as many as it has cores)."""

    client: Client
    threads: int | None


@contextmanager
def connect(where: str, *, threads: int | None = None) -> Iterator[Connection]:
    """The cluster that `where` names; one that is started here ends here.

    Args:
        where: `local:N` (processes of this machine), `local:cuda` (one for each GPU), the address of a scheduler
            (`tcp://host:8786`, `host:8786`, `tls://…`), or a YAML file for dask-jobqueue (see `from_file`).
        threads: of llama.cpp on each worker.

    Raises:
        InputError: `where` is none of these, or its file says something that dask-jobqueue does not understand.
        RunError: no scheduler answers there.
    """
    warnings.filterwarnings("ignore", module="distributed")
    count = re.fullmatch(r"local:(\d+)", where)
    if where.startswith("local:"):
        if count and int(count[1]) > 0:
            number = int(count[1])
            threads = threads or max(1, Settings().resolved_threads() // number)
            environments = [{"NUMBA_NUM_THREADS": str(threads)}] * number
        elif where == "local:cuda":
            environments = [{VISIBLE: device} for device in cuda_devices()]
        else:
            raise InputError(f"--cluster {where}: give the number of processes, as in local:4, or local:cuda")
        cluster: Any = local_cluster(environments)
    elif where.endswith((".yaml", ".yml")):
        cluster = from_file(Path(where))
    elif re.fullmatch(r"(\w+://)?[^\s/:]+:\d+|(\w+://)\[[^\s/]+\]:\d+", where):
        cluster = where
    else:
        raise InputError(
            f"--cluster {where}: give the address of a dask scheduler (tcp://host:8786), a .yaml file for "
            "dask-jobqueue, local:N or local:cuda"
        )
    try:
        client = Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise RunError(f"no dask scheduler answers at {where}: {error}; start one with: dask scheduler") from None
    try:
        yield Connection(client, threads)
    finally:
        client.close()
        if not isinstance(cluster, str):
            cluster.close()


def local_cluster(environments: list[dict[str, str]]) -> SpecCluster:
    """A process of this machine for each environment; one that dies is started again."""
    common = {"nthreads": CONTEXTS, "memory_limit": None, "silence_logs": QUIET, "dashboard_address": None}
    return SpecCluster(
        workers={
            number: {"cls": Nanny, "options": {**common, "env": environment}}
            for number, environment in enumerate(environments)
        },
        scheduler={"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}},
        silence_logs=QUIET,
    )


def cuda_devices() -> list[str]:
    """The GPUs that this process may use, as $CUDA_VISIBLE_DEVICES names them; InputError where there is none."""
    count = len(gpus())
    if count == 0:
        raise InputError("--cluster local:cuda: this build of llama.cpp sees no GPU; use --cluster local:N")
    named = os.environ.get(VISIBLE)
    return [name.strip() for name in named.split(",")] if named else [str(number) for number in range(count)]


def from_file(path: Path) -> Any:
    """A batch system's queue: what dask-jobqueue makes of `jobqueue: {slurm: {…}}`, with `jobs` of them.

    `jobs` is a number, or `{minimum: 0, maximum: 16}` for as many as there is work for. Any of dask-jobqueue's systems
    may stand in place of slurm.

    Raises:
        InputError: the file cannot be read, or says something else.
    """
    try:
        import dask_jobqueue
    except ImportError:
        raise InputError(f"--cluster {path} needs dask-jobqueue: pip install 'delift-cli[dask]'") from None
    try:
        given = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--cluster {path} cannot be read: {' '.join(str(error).split())}") from None
    systems = given.get("jobqueue") if isinstance(given, dict) else None
    classes = {name.removesuffix("Cluster").lower(): name for name in dask_jobqueue.__all__ if name.endswith("Cluster")}
    if not isinstance(systems, dict) or len(systems) != 1 or next(iter(systems)) not in classes:
        raise InputError(
            f"--cluster {path}: it must say jobqueue: and under it one of {', '.join(sorted(classes))}, "
            "as dask-jobqueue's documentation has it"
        )
    jobs = given.get("jobs", 1)
    adapt = isinstance(jobs, dict) and jobs.keys() <= {"minimum", "maximum"} and "maximum" in jobs
    if not adapt and not (isinstance(jobs, int) and jobs > 0):
        raise InputError(f"--cluster {path}: jobs is a number, or minimum and maximum")
    ((system, _),) = systems.items()
    dask.config.update(dask.config.config, {"jobqueue": systems})
    try:
        cluster = getattr(dask_jobqueue, classes[system])()
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"--cluster {path}: {' '.join(str(error).split())}") from None
    if adapt:
        cluster.adapt(minimum_jobs=jobs.get("minimum", 0), maximum_jobs=jobs["maximum"])
    else:
        cluster.scale(jobs=jobs)
    return cluster
