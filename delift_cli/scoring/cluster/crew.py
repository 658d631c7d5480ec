"""The workers of a dask cluster: who comes and goes, who is let in, what is sent to them and what comes back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import pickle
import queue
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from distributed import Client, Future

from ...errors import RunError
from ...prompt.encoding import EncodedExamples, EncodedTargets
from ...version import __version__
from ..measures import Measures
from ..pairs import Unit
from . import addresses
from . import worker as remote
from .content import Content, keep, take_part
from .dispatch import Group

PART = 4 << 20  # bytes of a file or of records sent at a time
WINDOW = 4  # parts on their way to a worker at one time
POLL_SECONDS = 0.5
TELL_SECONDS = 2.0


class Check(NamedTuple):
    """A handful of pairs that the client measured itself, and how far a worker's mean distance may be off."""

    units: list[Unit]
    expected: list[Measures]
    tolerance: float


@dataclass
class Member:
    """A worker that was let in.

    Attributes:
        key: its address and what tells it from an earlier process there.
        name: what people call it.
        machine: its kind; see `worker.Greeting`.
        deviation: largest |difference of distances| from the client's on the check pairs.
        rate: tokens/s there, in tokens as `Dispatch` counts them. contexts: units that it measures at one time.
    """

    key: str
    address: str
    name: str
    machine: str
    deviation: float
    rate: float
    contexts: int


class Joined(NamedTuple):
    """A worker was let in."""

    member: Member


class Left(NamedTuple):
    """A worker is gone, whether it died or was put aside."""

    key: str
    died: bool


class Returned(NamedTuple):
    """A group came back: `answer` holds what it came to, or what went wrong."""

    group: Group
    answer: concurrent.futures.Future[remote.Answer | None]


class Broken(NamedTuple):
    """Nothing will come any more, and why."""

    reason: str


Event: TypeAlias = "Joined | Left | Returned | Broken"


class Sent(NamedTuple):
    """What was asked of a worker: the task there, and what arrives here when it is done."""

    task: Future
    arrives: concurrent.futures.Future[Any]


@dataclass
class _Known:
    """A worker that was seen: `state` is joining, in, or out for good; `waiting` is what it was asked meanwhile."""

    address: str
    name: str
    state: str = "joining"
    waiting: set[Sent] = field(default_factory=set)


class Crew:
    """Lets workers in, in threads of its own; `events` tells what happens, `members` is for its readers.

    A worker is let in when it runs the same delift, has the files (by SHA-256; else they are sent), and measures the
    check pairs as the client does. One that does not is refused by name.

    Args:
        client: connected to the scheduler.
        files: the model and its adapters, and where their files are here.
        make_job: from the SHA-256 of the pickled records; see `worker.Job`.
        cost: about how many tokens a unit takes.
        say: told who comes and goes.
    """

    def __init__(
        self,
        client: Client,
        files: Mapping[Content, Sequence[Path]],
        make_job: Callable[[str], remote.Job],
        records: tuple[EncodedExamples, EncodedTargets],
        check: Check,
        *,
        cost: Callable[[Unit], int],
        say: Callable[[str], None],
    ) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.members: dict[str, Member] = {}
        self._client = client
        self._files = files
        self._contents = tuple(files)
        self._records = pickle.dumps(records, protocol=5)
        self._job = make_job(hashlib.sha256(self._records).hexdigest())
        self._job_key = uuid.uuid4().hex
        self._run = 0
        self._last_refusal = ""
        self._check = check
        self._cost = cost
        self._say = say
        self._known: dict[str, _Known] = {}
        self._host_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._closed = threading.Event()
        self._letting_in = ThreadPoolExecutor(32, "delift-join")
        self._watching = threading.Thread(target=self._watch, name="delift-watch", daemon=True)
        self._watching.start()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: object, *_exception: object) -> None:
        self._closed.set()
        self._letting_in.shutdown(wait=False, cancel_futures=True)
        with suppress(Exception):  # a worker that does not hear it forgets the job when another one comes
            telling = self._tell(remote.close_job, self._job_key)
            if kind is None:
                telling.result(timeout=TELL_SECONDS)

    @property
    def joining(self) -> int:
        """Workers that are getting ready."""
        return sum(known.state == "joining" for known in list(self._known.values()))

    @property
    def refusal(self) -> str | None:
        """Why there is nobody to wait for: the last worker's reason, where all that are there were turned away."""
        states = [known.state for known in list(self._known.values())]
        return self._last_refusal if states and all(state == "out" for state in states) else None

    def wait(self, seconds: float) -> Iterator[Event]:
        """Everything that has happened, once anything has or the time is up."""
        with suppress(queue.Empty):
            yield self.events.get(timeout=seconds)
            while True:
                yield self.events.get_nowait()

    def send(self, group: Group) -> Sent:
        """Have a group measured; `events` will tell."""
        member = self.members[group.worker]
        sent = self._submit(
            member.address, remote.measure, self._job_key, self._run, [item.unit for item in group.items]
        )
        sent.arrives.add_done_callback(lambda answer: self.events.put(Returned(group, answer)))
        return sent

    def drop(self, sent: Iterable[Sent]) -> None:
        """Nobody waits for these any more; what has not begun never will."""
        tasks = [one.task for one in sent]
        if tasks:
            with suppress(Exception):
                self._client.cancel(tasks)

    def end_run(self) -> None:
        """What is still measured is of no use: the workers leave it."""
        self._tell(remote.end_run, self._job_key, self._run)
        self._run += 1

    def put_aside(self, key: str, reason: str) -> None:
        """Send nothing more to a worker."""
        known = self._known.get(key)
        if known is not None and known.state != "out":
            known.state = "out"
            self._last_refusal = f"worker {known.name} is left out: {reason}"
            self._say(self._last_refusal)
            self.events.put(Left(key, died=False))

    def start_again(self, key: str) -> None:
        """Have a worker that hangs started again, where it has a nanny to do it."""
        member = self.members.get(key)
        if member is not None:
            restart = partial(self._client.restart_workers, [member.address], timeout=30, raise_for_error=False)
            self._letting_in.submit(_quietly, restart)

    def forget(self, key: str) -> None:
        """A worker has lost the job: let it in once more."""
        self._known.pop(key, None)
        self.events.put(Left(key, died=False))

    def _tell(self, function: Callable[..., None], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Call a function on all members now, whatever they are at."""
        addresses = [member.address for member in self.members.values()]
        telling = self._client.run(function, *arguments, workers=addresses, on_error="ignore", asynchronous=True)
        return asyncio.run_coroutine_threadsafe(telling, self._client.loop.asyncio_loop)

    def _submit(self, address: str, function: Callable[..., Any], *arguments: Any) -> Sent:
        task = self._client.submit(function, *arguments, workers=[address], pure=False)
        gathering = self._client.gather(task, asynchronous=True)
        return Sent(task, asyncio.run_coroutine_threadsafe(gathering, self._client.loop.asyncio_loop))

    def _watch(self) -> None:
        seen = time.monotonic()
        while not self._closed.is_set():
            try:
                present = self._client.scheduler_info(n_workers=-1)["workers"]
                if self._client.status != "running":
                    raise OSError("not connected")
                seen = time.monotonic()
                self._compare(present)
            except Exception as error:
                if self._closed.is_set():
                    return
                if time.monotonic() - seen > addresses.CONNECT_SECONDS or self._client.status in ("closing", "closed"):
                    self.events.put(Broken(f"the dask scheduler is gone ({error})"))
                    return
            self._closed.wait(POLL_SECONDS)

    def _compare(self, present: dict[str, dict[str, Any]]) -> None:
        """Workers that are there against those that were."""
        now = {f"{address} {about['id']}": (address, about) for address, about in present.items()}
        for key in self._known.keys() - now.keys():
            known = self._known.pop(key)
            self.drop(list(known.waiting))
            if known.state == "in":
                self._say(f"worker {known.name} is gone")
            self.events.put(Left(key, died=True))
        for key in now.keys() - self._known.keys():
            address, about = now[key]
            self._known[key] = _Known(address, str(about.get("name", address)))
            self._letting_in.submit(self._let_in, key, self._known[key])

    def _let_in(self, key: str, known: _Known) -> None:
        try:
            member = self._examine(key, known)
        except Exception as error:
            if self._closed.is_set() or self._known.get(key) is not known:
                return  # it is gone, which is no news
            known.state = "out"
            self._last_refusal = f"worker {known.name} is refused: {_brief(error)}"
            self._say(self._last_refusal)
            return
        if self._known.get(key) is known:
            known.state = "in"
            self.events.put(Joined(member))

    def _examine(self, key: str, known: _Known) -> Member:
        """Everything that a worker must have and show, or an error that says what it lacks."""

        def ask(function: Callable[..., Any], *arguments: Any) -> Any:
            return self._ask(key, known, function, *arguments).arrives.result()

        greeting: remote.Greeting = ask(remote.greet, self._contents)
        known.name = f"{known.name} on {greeting.host}"
        if greeting.version != __version__:
            raise RunError(f"it has delift {greeting.version}, this is {__version__}")
        with self._host_locks[greeting.host]:  # the workers of a host share what is sent to one
            for place in ask(remote.greet, self._contents).lacking if greeting.lacking else ():
                self._send_file(key, known, self._contents[place])
        records = (self._job.records, len(self._records))
        self._send_parts(key, known, self._records, partial(remote.take_records, *records))
        contexts = ask(remote.open_job, self._job_key, self._job)
        ask(remote.measure, self._job_key, self._run, self._check.units)  # warms up
        answer: remote.Answer = ask(remote.measure, self._job_key, self._run, self._check.units)
        deviation = self._compare_numbers(answer)
        tokens = sum(map(self._cost, self._check.units))
        rate = contexts * tokens / max(answer.work.seconds, 1e-6)
        return Member(key, known.address, known.name, greeting.machine, deviation, rate, contexts)

    def _compare_numbers(self, answer: remote.Answer) -> float:
        apart = []
        for measured, expected in zip(answer.measured, self._check.expected, strict=True):
            if isinstance(measured, str):
                raise RunError(measured)
            apart.append(np.abs(measured.distance.astype(np.float64) - expected.distance))
        off = np.concatenate(apart)
        if not off.mean() <= self._check.tolerance:
            raise RunError(
                f"its numbers are not the client's: distances of {len(off)} pairs differ by {off.mean():.4f} on "
                f"average, more than {self._check.tolerance}; does it run another build of llama.cpp?"
            )
        return float(off.max())

    def _send_file(self, key: str, known: _Known, content: Content) -> None:
        self._say(f"worker {known.name} does not have {content.name}: sending {content.bytes / 1e9:.2f} GB")
        for number, file in enumerate(self._files[content]):
            data = np.memmap(file, np.uint8, "r")
            self._send_parts(key, known, data, partial(take_part, content, number))
        self._ask(key, known, keep, content).arrives.result()

    def _send_parts(self, key: str, known: _Known, data: Any, take: Callable[[int, bytes], None]) -> None:
        """`take` is called there with the offset and the bytes of every part, a few of them at a time."""
        underway: deque[Sent] = deque()
        for start in range(0, len(data), PART):
            underway.append(self._ask(key, known, take, start, bytes(data[start : start + PART])))
            if len(underway) >= WINDOW:
                underway.popleft().arrives.result()
        for sent in underway:
            sent.arrives.result()

    def _ask(self, key: str, known: _Known, function: Callable[..., Any], *arguments: Any) -> Sent:
        sent = self._submit(known.address, function, *arguments)
        known.waiting.add(sent)
        sent.arrives.add_done_callback(lambda _: known.waiting.discard(sent))
        if self._known.get(key) is not known or self._closed.is_set():
            self.drop([sent])
        return sent


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"


def _quietly(function: Callable[[], object]) -> None:
    with suppress(Exception):
        function()
