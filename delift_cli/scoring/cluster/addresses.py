"""What `--cluster` means: a scheduler's address, a batch system's queue, processes or GPUs of this machine.

A cluster is trusted: dask sends Python objects as pickles, and whoever can reach its scheduler can run code.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import dask
import yaml

from ...errors import InputError, RunError
from ...model.llama import Settings, gpus

CONNECT_SECONDS = 30.0  # to reach a scheduler, at first and each time that it is lost; then dask gives it up
QUIET = logging.CRITICAL  # what matters of dask's log, delift says itself
LOCAL_PATIENCE = 300.0  # seconds that none of this machine's processes has come to work, until they are given up
CONTEXTS = 2  # of a GPU, each with a thread
VISIBLE = "CUDA_VISIBLE_DEVICES"
FILES = (".yaml", ".yml")
AGAIN = "10s"  # how often jobs that have ended are asked for again
SYSTEMS = ("HTCondorCluster", "LSFCluster", "MoabCluster", "OARCluster", "PBSCluster", "SGECluster", "SLURMCluster")

NO_PROCESS = (
    "--cluster local: the processes end before they can work: is memory short? A Python script that asks for them must "
    'do so under if __name__ == "__main__":'
)

_LOGS = ("distributed", "asyncio", "tornado", "tornado.application")
dask.config.set({"logging": dict.fromkeys(_LOGS, "critical")})
from distributed import Client, Nanny, Scheduler, SpecCluster  # noqa: E402, its log is set up when it is imported


def _jobqueue() -> Any:
    """dask-jobqueue, which takes Ctrl-C and SIGTERM for its own when it is imported: they are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import dask_jobqueue

    for number, handler in before.items():
        signal.signal(number, handler)
    return dask_jobqueue


class Connection(NamedTuple):
    """A client of a scheduler, how many threads llama.cpp gets on a worker (None: as many as it has cores), and for how
    many seconds a run goes on without workers (None: as for a queue, until there are some)."""

    client: Client
    threads: int | None
    patience: float | None = None


@contextmanager
def connect(where: str, *, threads: int | None = None) -> Iterator[Connection]:
    """The cluster that `where` names; one that is started here ends here.

    Args:
        where: `local:N` (processes of this machine), `local:cuda` (one for each GPU), the address of a scheduler
            (`tcp://host:8786`, `host:8786`, `tls://…`), or a YAML file for dask-jobqueue (see `from_file`).
        threads: of llama.cpp on each worker.

    Raises:
        InputError: `where` is none of these, or its file says something that dask-jobqueue does not understand.
        RunError: no scheduler answers there, or no process can be started here.
    """
    check(where)
    warnings.filterwarnings("ignore", module="distributed")
    cluster: Any = where
    patience = None
    if where.startswith("local:"):
        count = where.removeprefix("local:")
        if count == "cuda":
            environments = [{VISIBLE: device} for device in cuda_devices()]
        else:
            threads = threads or max(1, Settings().resolved_threads() // int(count))
            environments = [{"NUMBA_NUM_THREADS": str(threads)}] * int(count)
        cluster, patience = local_cluster(environments), LOCAL_PATIENCE
    elif where.endswith(FILES):
        cluster = from_file(Path(where))
    try:
        client = Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise RunError(f"no dask scheduler answers at {where}: {error}; start one with: dask scheduler") from None
    try:
        yield Connection(client, threads, patience)
    finally:
        with suppress(RuntimeError):  # of a connection to a lost scheduler that dask is just making anew
            client.close()
        if not isinstance(cluster, str):
            _close(cluster)


def _close(cluster: Any) -> None:
    with suppress(AssertionError):  # dask's, of jobs that the batch system did not take
        cluster.close()


def check(where: str) -> None:
    """InputError where this names no cluster.

    A process of a local cluster first runs the script that asked for it, all but what stands behind the guard that
    `NO_PROCESS` speaks of. Should it come here, it ends without a word: the script's own process will say what is
    missing.
    """
    if where.startswith("local:"):
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            sys.exit(1)
        if not re.fullmatch(r"local:([1-9]\d{0,3}|cuda)", where):
            raise InputError(f"--cluster {where}: give the number of processes, as in local:4, or local:cuda")
    elif where.endswith(FILES):
        _read(Path(where))
    elif not re.fullmatch(r"(\w+://)?([^\s/:\[\]]+|\[[^\s/\]]+\]):\d{1,5}", where):
        raise InputError(
            f"--cluster {where}: give the address of a dask scheduler (tcp://host:8786), a .yaml file for "
            "dask-jobqueue, local:N or local:cuda"
        )


def local_cluster(environments: list[dict[str, str]]) -> SpecCluster:
    """A process of this machine for each environment; one that dies is started again.

    Raises:
        RunError: they end before they can work.
    """
    # a run that is told to end may not wait for its processes, which Python's tracker of them would comment on
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    common: dict[str, Any] = {"nthreads": CONTEXTS, "memory_limit": None, "silence_logs": QUIET}
    common |= {"dashboard_address": None, "preload": [f"{__package__}.preload"]}
    try:
        return SpecCluster(
            workers={
                number: {"cls": Nanny, "options": {**common, "env": environment}}
                for number, environment in enumerate(environments)
            },
            scheduler={
                "cls": Scheduler,
                "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"},
            },
            silence_logs=QUIET,
        )
    except RuntimeError:
        raise RunError(NO_PROCESS) from None


def cuda_devices() -> list[str]:
    """The GPUs that this process may use, as $CUDA_VISIBLE_DEVICES names them; InputError where there is none."""
    count = len(gpus())
    if count == 0:
        raise InputError("--cluster local:cuda: this build of llama.cpp sees no GPU; use --cluster local:N")
    named = os.environ.get(VISIBLE)
    names = named.split(",") if named else map(str, range(count))
    return [name.strip() for name in names][:count]  # CUDA leaves out the first that there is not, and all behind it


def from_file(path: Path) -> Any:
    """A batch system's queue: what dask-jobqueue makes of `jobqueue: {slurm: {…}}`, with `jobs` of them.

    A job that ends is asked for again. Any of dask-jobqueue's systems may stand in place of slurm.

    Raises:
        InputError: the file cannot be read, or says something else.
        RunError: the batch system is not there, or refuses a job.
    """
    name, options, jobs = _read(path)
    dask.config.update(dask.config.config, {"jobqueue": options})
    try:
        cluster = getattr(_jobqueue(), name)()
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"--cluster {path}: {' '.join(str(error).split())}") from None
    try:
        cluster.sync(_asked_for, cluster, jobs)
    except (OSError, RuntimeError) as error:
        _close(cluster)
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else " ".join(str(error).split())
        raise RunError(f"--cluster {path}: the batch system takes no job: {said}") from None
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs, interval=AGAIN)
    return cluster


async def _asked_for(cluster: Any, jobs: int) -> None:
    """Left to itself dask would only log what the batch system says, and wait."""
    cluster.scale(jobs=jobs)
    await cluster


def _read(path: Path) -> tuple[str, dict[str, Any], int]:
    """Of a file for dask-jobqueue: the class that it means, options by system, and how many jobs."""
    try:
        given = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise InputError(f"--cluster {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--cluster {path} is not YAML: {' '.join(str(error).split())}") from None
    classes = {name.removesuffix("Cluster").lower(): name for name in SYSTEMS}
    options: Any = given.get("jobqueue") if isinstance(given, dict) else None
    system, *others = options if isinstance(options, dict) and options else [None]
    if others or system not in classes or not isinstance(options[system], dict):
        raise InputError(
            f"--cluster {path}: it must say jobqueue: and under it one of {', '.join(sorted(classes))}, "
            "as dask-jobqueue's documentation has it"
        )
    jobs = given.get("jobs", 1)
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise InputError(f"--cluster {path}: jobs is how many to ask for, not {jobs!r}")
    return classes[system], options, jobs
