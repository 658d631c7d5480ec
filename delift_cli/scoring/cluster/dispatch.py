"""Which worker measures what, when, and what becomes of what fails. Knows no network and no clock: time is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import RunError
from ..measures import Measures
from ..pairs import Unit

GROUP_SECONDS = 2.0  # units are sent in groups that take about so long, so that sending them costs next to nothing
TAIL = 3  # a group is at most this part of what is still to be sent to one worker, so that all end together
LEAST_SECONDS = 0.5  # … unless that were shorter than this: many that end at once keep the client from sending more
ATTEMPTS = 3  # workers on which a unit may fail, and units that may fail in a row on a worker
SLACK = 30.0  # seconds that a worker may be late before its units go to another one …
PATIENCE = 5.0  # … beside so many times what they should take


@dataclass(eq=False)
class Item:
    """A unit, about how many tokens it takes, and what became of it."""

    unit: Unit
    tokens: int
    failed_on: list[str] = field(default_factory=list)
    sent_to: list[str] = field(default_factory=list)
    alone: bool = False  # a worker was lost with it
    done: bool = False


@dataclass(eq=False)
class Group:
    """Items that are sent to a worker together."""

    worker: str
    items: list[Item]
    sent: float

    @property
    def tokens(self) -> int:
        """About how many all of its items take."""
        return sum(item.tokens for item in self.items)


@dataclass(eq=False)
class _Worker:
    """What is known of a worker.

    Attributes:
        rate: tokens/s, all its contexts together.
        room: groups that it may hold: one for each context, and one that waits.
        since: when it last had something to show, or got something while it had nothing.
        failures: units that failed on it in a row.
    """

    rate: float
    room: int
    since: float
    groups: list[Group] = field(default_factory=list)
    failures: int = 0
    stuck: bool = False


class Dispatch:
    """One list of units on its way through workers that come, go, hang and fail.

    A unit that comes back from nowhere goes to another worker. When nothing is left to send, what is out goes to a
    second worker that would be done sooner: the first answer counts, so that a slow worker holds nobody back.
    """

    def __init__(self, units: Iterable[tuple[Unit, int]] = ()) -> None:
        self._fresh = deque(Item(unit, max(1, tokens)) for unit, tokens in units)
        self._again: deque[Item] = deque()
        self._left = len(self._fresh)
        self._fresh_tokens = sum(item.tokens for item in self._fresh)
        self._workers: dict[str, _Worker] = {}
        self._names: dict[str, str] = {}
        self.expecting = False  # are there workers that get ready?

    @property
    def finished(self) -> bool:
        """Is every unit measured?"""
        return self._left == 0

    def join(self, worker: str, name: str, rate: float, contexts: int, now: float) -> None:
        """A worker is there, called `name` to people, that measures about `rate` tokens/s with so many contexts."""
        self._names[worker] = name
        self._workers[worker] = _Worker(rate, contexts + 1, now)

    def lose(self, worker: str, *, died: bool) -> None:
        """A worker is gone: what it held goes to others, one by one, so that a unit that kills workers is found.

        Raises:
            RunError: a unit was alone on every one of `ATTEMPTS` workers that died.
        """
        gone = self._workers.pop(worker, None)
        groups = gone.groups if gone else []
        suspects = [group.items[0] for group in groups[:1] if group.items[0].alone and len(group.items) == 1]
        for group in groups:
            for item in group.items:
                item.alone = True
            self._take_back(group)
        for item in suspects:
            if died and not item.done:
                self._fail(item, worker, "the worker was lost")

    def next_group(self, worker: str, now: float) -> Group | None:
        """What to send to a worker now: None while it has enough, hangs, or nothing is left for it."""
        here = self._workers.get(worker)
        if here is None or here.stuck or len(here.groups) >= here.room:
            return None
        items = self._choose(worker, here) or self._second(worker, here, now)
        if not items:
            return None
        for item in items:
            item.sent_to.append(worker)
        group = Group(worker, items, now)
        if not here.groups:
            here.since = now
        here.groups.append(group)
        return group

    def answer(
        self, group: Group, measured: Sequence[Measures | str], seconds: float, now: float
    ) -> Iterator[tuple[Unit, Measures]]:
        """What a group came to, a reason in place of what failed; yields what was not known before.

        Raises:
            RunError: a unit failed for the last time, with its reason.
        """
        here = self._workers.get(group.worker)
        if here is not None and group in here.groups:
            here.groups.remove(group)
            here.since, here.stuck = now, False
            if seconds > 0 and not any(isinstance(result, str) for result in measured):  # what fails may be quick
                contexts = here.room - 1
                here.rate += 0.5 * (contexts * group.tokens / seconds - here.rate)
        results = list(zip(group.items, measured, strict=True))
        for item, _ in results:
            _forget(item, group.worker)
        for item, result in results:
            if not isinstance(result, str) and not item.done:
                item.done = True
                self._left -= 1
                yield item.unit, result
        for item, result in results:
            if here is not None:
                here.failures = here.failures + 1 if isinstance(result, str) else 0
            if isinstance(result, str) and not item.done:
                self._again.append(item)
                self._fail(item, group.worker, result)

    def give_up(self, group: Group) -> None:
        """A group was dropped before it was measured, by nobody's fault."""
        here = self._workers.get(group.worker)
        if here is not None and group in here.groups:
            here.groups.remove(group)
        self._take_back(group)

    def failing(self, worker: str) -> bool:
        """Does everything fail on this worker?"""
        here = self._workers.get(worker)
        return here is not None and here.failures >= ATTEMPTS

    def overdue(self, now: float) -> list[str]:
        """Workers that hang, as of now; what they hold goes to others as well."""
        late = []
        for name, here in self._workers.items():
            if here.stuck or not here.groups:
                continue
            expected = here.groups[0].tokens / here.rate
            if now > here.since + SLACK + PATIENCE * expected:
                here.stuck = True
                late.append(name)
                for group in here.groups:
                    self._take_back(group)
        return late

    def useless(self) -> list[Group]:
        """Groups that wait on a worker while others have measured all that is in them: dropped."""
        dropped = []
        for here in self._workers.values():
            for group in here.groups[here.room - 1 :]:
                if all(item.done for item in group.items):
                    here.groups.remove(group)
                    dropped.append(group)
        return dropped

    def _take_back(self, group: Group) -> None:
        for item in group.items:
            _forget(item, group.worker)
            if not item.done and not item.sent_to and item not in self._again:
                self._again.append(item)

    def _choose(self, worker: str, here: _Worker) -> list[Item]:
        """Units that nobody is at: those that failed elsewhere one by one, of the others a group."""
        while self._again and self._again[0].done:
            self._again.popleft()
        able = [name for name, other in self._workers.items() if not other.stuck]
        for item in self._again:
            others = self.expecting or any(name not in item.failed_on for name in able)
            if not item.done and not (worker in item.failed_on and others):
                self._again.remove(item)
                return [item]
        seconds = self._fresh_tokens / (TAIL * sum(other.rate for other in self._workers.values()))
        room = min(GROUP_SECONDS, max(LEAST_SECONDS, seconds)) * here.rate / (here.room - 1)
        items: list[Item] = []
        while self._fresh and (not items or room >= self._fresh[0].tokens):
            items.append(self._fresh.popleft())
            room -= items[-1].tokens
        self._fresh_tokens -= sum(item.tokens for item in items)
        return items

    def _second(self, worker: str, here: _Worker, now: float) -> list[Item]:
        """A unit that another worker is at and that this one would have done sooner."""
        if here.groups:
            return []
        best, gain = [], 0.0
        for name, other in self._workers.items():
            if name == worker:
                continue
            ready = other.since
            for group in other.groups:
                ready += group.tokens / other.rate
                for item in group.items:
                    if item.done or len(item.sent_to) > 1 or worker in item.failed_on:
                        continue
                    expected = ready if ready > now else 2 * now - ready  # who is late will be as late again
                    saved = expected - (now + item.tokens / here.rate)
                    if saved > gain:
                        best, gain = [item], saved
        return best

    def _fail(self, item: Item, worker: str, reason: str) -> None:
        item.failed_on.append(worker)
        if len(item.failed_on) >= ATTEMPTS:
            where = ", ".join(dict.fromkeys(self._names[name] for name in item.failed_on))
            example = f"example {item.unit.example + 1}" if item.unit.example >= 0 else "targets without an example"
            raise RunError(
                f"{example} failed {ATTEMPTS} times (worker {where}): {reason}; everything else that was scored is "
                "safe, and the same command goes on from there"
            )


def _forget(item: Item, worker: str) -> None:
    """The worker has the item no longer."""
    if worker in item.sent_to:
        item.sent_to.remove(worker)
