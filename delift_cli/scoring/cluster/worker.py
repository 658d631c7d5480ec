"""What runs on a worker: find or take in the model, open it once, measure units. dask calls these functions by name."""

from __future__ import annotations

import hashlib
import pickle
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from distributed import Worker, get_worker

from ...errors import DeliftError, RunError
from ...model.converted import converted
from ...model.gguf import ModelFile
from ...model.llama import Settings, open_models
from ...prompt.encoding import EncodedExamples, EncodedTargets
from ...version import __version__
from ..measures import Measures
from ..pairs import Scoring, TargetTokens, Unit, Work, cells_needed
from ..tuning import machine
from .content import Content, find

ALONE = -1  # in place of a unit's example: its targets are measured without one
IDLE_SECONDS = 60.0  # a model that another client left open stays so long


class Greeting(NamedTuple):
    """What a worker says of itself: delift's version, its kind (processor, GPUs, build of llama.cpp) and host, and
    which of the files that it was asked for are not there, by their places."""

    version: str
    machine: str
    host: str
    lacking: tuple[int, ...]


OpenScorings: TypeAlias = Callable[
    [ModelFile, Settings, EncodedExamples, EncodedTargets], AbstractContextManager[list[Scoring]]
]


class Job(NamedTuple):
    """What a worker needs besides the files of the model and its adapters to score: see `Engine` for weights and
    settings, whose adapters are those of `adapters`, in the same order.

    `records` is the SHA-256 of the pickled `EncodedExamples` and `EncodedTargets`, sent before. `open_scorings` makes
    what measures, one for each context.
    """

    content: Content
    adapters: tuple[Content, ...]
    weights: str
    settings: Settings
    records: str
    open_scorings: OpenScorings


class Answer(NamedTuple):
    """Of each unit what was measured, or why it was not; and the work that it took, of which `seconds` at work."""

    measured: list[Measures | str]
    work: Work


@contextmanager
def open_scorings(
    file: ModelFile, settings: Settings, examples: EncodedExamples, targets: EncodedTargets
) -> Iterator[list[Scoring]]:
    """One `Scoring` for each context of this process: two for a GPU, so that none waits for the host."""
    tokens = TargetTokens(targets)
    cells = cells_needed(examples.prefixes, tokens, settings.batch)
    with ExitStack() as stack:
        models = [stack.enter_context(model) for model in open_models(file, settings, cells=cells)]
        yield [Scoring([model], examples, tokens) for model in models]


@dataclass
class _Opened:
    """A job with its model loaded; `free` holds what is not measuring, of `count`. Runs before `run` are over."""

    stack: ExitStack
    free: queue.SimpleQueue[Scoring]
    count: int
    run: int = 0
    used: float = field(default_factory=time.monotonic)


@dataclass
class _State:
    """What a worker holds: jobs that are open, records that arrive, and a lock for opening one at a time."""

    opened: dict[str, _Opened] = field(default_factory=dict)
    arriving: dict[str, bytearray] = field(default_factory=dict)
    opening: threading.Lock = field(default_factory=threading.Lock)


def _state(worker: Worker | None = None) -> _State:
    worker = worker or get_worker()
    state: _State = worker.__dict__.setdefault("delift", _State())
    return state


def greet(contents: Sequence[Content]) -> Greeting:
    """Who this worker is, and which of these files it lacks."""
    lacking = tuple(place for place, content in enumerate(contents) if find(content) is None)
    return Greeting(__version__, machine(), socket.gethostname(), lacking)


def take_records(sha256: str, size: int, offset: int, part: bytes) -> None:
    """A part of a job's encoded records, kept in memory until the job is opened."""
    data = _state().arriving.setdefault(sha256, bytearray(size))
    data[offset : offset + len(part)] = part


def open_job(key: str, job: Job) -> int:
    """Load the model, converted if need be, and get ready to measure; how many units at a time this worker can.

    Raises:
        DeliftError: the model is not there or cannot be loaded, or the records did not arrive.
    """
    state = _state()
    with state.opening:
        data = bytes(state.arriving.pop(job.records, b""))
        for other, opened in list(state.opened.items()):
            if other == key:
                return opened.count
            if time.monotonic() - opened.used > IDLE_SECONDS:
                _close(state, other)
        if hashlib.sha256(data).hexdigest() != job.records:
            raise RunError("the records arrived damaged")
        examples, targets = pickle.loads(data)
        path, *adapters = (_there(content) for content in (job.content, *job.adapters))
        given = zip(job.settings.adapters, adapters, strict=True)
        settings = replace(job.settings, adapters=tuple(replace(each, path=str(place)) for each, place in given))
        threads = settings.resolved_threads()
        file = converted(ModelFile(path), job.content.sha256, job.weights, threads=threads)
        stack = ExitStack()
        scorings = stack.enter_context(job.open_scorings(file, settings, examples, targets))
        free: queue.SimpleQueue[Scoring] = queue.SimpleQueue()
        for scoring in scorings:
            free.put(scoring)
        state.opened[key] = _Opened(stack, free, len(scorings))
        return len(scorings)


def _there(content: Content) -> Path:
    path = find(content)
    if path is None:
        raise RunError(f"{content.name} is not there")
    return path


def close_job(key: str, dask_worker: Worker) -> None:
    """Free what a job holds, as soon as nothing is measured with it."""
    _close(_state(dask_worker), key)


def _close(state: _State, key: str) -> None:
    opened = state.opened.pop(key, None)
    if opened is None:
        return
    opened.run = sys.maxsize

    def close() -> None:
        for _ in range(opened.count):
            opened.free.get()
        opened.stack.close()

    threading.Thread(target=close, daemon=True).start()


def end_run(key: str, run: int, dask_worker: Worker) -> None:
    """Nobody waits any more for what belongs to this run or to an earlier one."""
    opened = _state(dask_worker).opened.get(key)
    if opened is not None:
        opened.run = max(opened.run, run + 1)


def measure(key: str, run: int, units: Sequence[Unit]) -> Answer | None:
    """Measure units one after the other; None where the job is not open, as in a process that was started again."""
    opened = _state().opened.get(key)
    if opened is None:
        return None
    scoring = opened.free.get()
    try:
        before, started = scoring.work, time.perf_counter()
        measured: list[Measures | str] = []
        while len(measured) < len(units) and run >= opened.run:
            try:
                for _ in _measure(scoring, units[len(measured) :], measured):
                    if run < opened.run:
                        break
            except DeliftError as error:
                measured.append(str(error))
            except Exception as error:  # whatever it is, the client decides what becomes of the unit
                measured.append(f"{type(error).__name__}: {error}")
        after = scoring.work
        return Answer(
            measured,
            Work(
                tokens=after.tokens - before.tokens,
                seconds=time.perf_counter() - started,
                decode_seconds=after.decode_seconds - before.decode_seconds,
                reduce_seconds=after.reduce_seconds - before.reduce_seconds,
            ),
        )
    finally:
        opened.used = time.monotonic()
        opened.free.put(scoring)


def _measure(scoring: Scoring, units: Sequence[Unit], measured: list[Measures | str]) -> Iterator[None]:
    """Append what is measured to `measured`, a unit at each step. Units are of one kind."""
    if units[0].example == ALONE:
        measured.append(scoring.without_example(units[0].targets))
        return
    with closing(scoring.units(units, lambda _, results: measured.append(results))) as steps:
        for _ in steps:
            yield
