"""What `pairs.Scoring` does on one machine, done by the workers of a cluster: the same units, the same results."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from distributed import Client

from ...cache.stored import Writing
from ...errors import RunError
from ...model.gguf import ModelFile
from ...prompt.encoding import EncodedExamples
from ...prompt.trie import build_trie
from ..job import Engine, Inputs
from ..measures import Measures
from ..pairs import TargetTokens, Unit, Work, lacking, lay_out_of, write_base
from ..row_scorer import LayOut
from ..tuning import TOLERANCE, machine
from .content import content_of
from .crew import Broken, Check, Crew, Event, Joined, Left, Returned, Sent
from .dispatch import Dispatch, Group
from .worker import ALONE, Answer, Job, OpenScorings, open_scorings

CHECK_EXAMPLES, CHECK_TARGETS = 2, 8  # pairs that every worker measures to be let in
EXACT_TOLERANCE = 2e-3  # contract of unquantized weights: mean |difference of distances|; of others `TOLERANCE`
UNQUANTIZED = ("F32", "F16", "BF16")
TICK_SECONDS = 0.5
HOPELESS = 3  # workers that die without one that comes to work in between
WAITING_SECONDS = 60.0  # how often a run without workers says so; it ends if all that are there were refused


Measured: TypeAlias = tuple[Unit, Measures]


class ClusterScoring:
    """`pairs.Scoring` on the workers of a crew.

    Args:
        crew: the workers.
        targets, examples: as for `pairs.Scoring`, here to count tokens.
        lay_out: as for `Scoring`.
        together: what is written inside it goes to the disk together.
        took_part: is told the kind of each machine, and how far its distances are off the client's at most, before
            anything that it measured is written.
        patience: seconds without a worker, none of them getting ready or one after the other dying, after which no
            other is waited for; None: there is always hope.
        say: is told what goes on.

    Raises:
        RunError: a unit failed for the last time, the scheduler is gone, no worker comes, or the disk is full.
    """

    def __init__(
        self,
        crew: Crew,
        examples: EncodedExamples,
        targets: TargetTokens,
        *,
        lay_out: LayOut = build_trie,
        took_part: Callable[[str, float], None],
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
        patience: float | None = None,
        say: Callable[[str], None],
    ) -> None:
        self.lay_out = lay_out
        self._crew = crew
        self._together = together
        self._examples = examples
        self._targets = targets
        self._took_part = took_part
        self._patience = patience
        self._died = 0  # workers since one was let in
        self._say = say
        self._total = Work()
        self._busy = 0.0
        self._machine = machine()
        self._kinds: set[str] = set()

    @property
    def work(self) -> Work:
        """What was done so far; of the time, `decode_seconds` and `reduce_seconds` are the share of a worker's."""
        seconds = time.perf_counter() - self._total.started
        share = seconds / self._busy if self._busy else 0.0
        total = self._total
        return replace(
            total,
            seconds=seconds,
            decode_seconds=share * total.decode_seconds,
            reduce_seconds=share * total.reduce_seconds,
        )

    def wait_for(self, workers: int) -> None:
        """Until so many workers are let in."""
        nothing = Dispatch()
        while len(self._crew.members) < workers:
            for event in self._crew.wait(TICK_SECONDS):
                list(self._taken(event, nothing, {}))

    def base(self, cache: Writing) -> Iterator[Work]:
        """Measure the targets that `cache` lacks without an example."""
        chunks = (Unit(ALONE, missing) for missing in lacking(cache.base_distance))
        for done in self._measured(list(chunks)):
            for unit, measured in done:
                write_base(cache, unit.targets, measured)
            yield self.work
        cache.sync()

    def units(self, units: Iterable[Unit], write: Callable[[Unit, Measures], None]) -> Generator[Work, None, None]:
        """Measure `units`; each one's results, in the order of its targets, go to `write` in this thread."""
        for done in self._measured(units):
            with self._together():
                for unit, measured in done:
                    write(unit, measured)
                    self._total.count(unit, self._examples, self._targets)
            yield self.work

    def _measured(self, units: Iterable[Unit]) -> Generator[list[Measured], None, None]:
        """What has come since the last step; before it is given out, the workers have got something to do."""
        crew, dispatch = self._crew, Dispatch((unit, self._cost(unit)) for unit in units)
        out: dict[Group, Sent] = {}
        for member in crew.members.values():
            dispatch.join(member.key, member.name, member.rate, member.contexts, time.monotonic())
        last_worker = told = time.monotonic()
        failure: RunError | None = None
        try:
            while not dispatch.finished:
                self._keep_busy(dispatch, out)
                if crew.members:
                    last_worker = told = time.monotonic()
                done: list[Measured] = []
                try:
                    for event in crew.wait(TICK_SECONDS):
                        done += self._taken(event, dispatch, out)
                except RunError as error:
                    failure = error
                if done:
                    if not failure:
                        self._keep_busy(dispatch, out)
                    yield done
                if failure:
                    raise failure
                for key in dispatch.overdue(time.monotonic()):
                    self._say(f"worker {crew.members[key].name} does not answer; its units go to others")
                    crew.start_again(key)
                if time.monotonic() - told > WAITING_SECONDS:
                    told = time.monotonic()
                    if crew.refusal:
                        raise RunError(f"no worker is left; {crew.refusal}")
                    self._check_patience(told - last_worker)
                    self._say(f"waiting for workers ({crew.joining} getting ready)")
        finally:
            if out:
                crew.drop(out.values())
                crew.end_run()

    def _keep_busy(self, dispatch: Dispatch, out: dict[Group, Sent]) -> None:
        """Send the workers what they have room for, a group to each before anyone gets another."""
        dispatch.expecting = self._crew.joining > 0
        hungry = list(self._crew.members)
        while hungry:
            groups = [(key, dispatch.next_group(key, time.monotonic())) for key in hungry]
            out |= {group: self._crew.send(group) for _, group in groups if group is not None}
            hungry = [key for key, group in groups if group is not None]

    def _check_patience(self, seconds: float) -> None:
        """RunError where there was no worker for so long that none will come."""
        if self._patience is None or seconds < self._patience or (self._crew.joining and self._died < HOPELESS):
            return
        raise RunError(
            f"no process of this machine has come to work for {seconds:.0f} seconds, {self._died} died meanwhile: is "
            "memory short? What was scored is safe, the same command goes on from there"
        )

    def _taken(self, event: Event, dispatch: Dispatch, out: dict[Group, Sent]) -> Iterator[Measured]:
        crew = self._crew
        match event:
            case Joined(member):
                if member.machine != self._machine and member.machine not in self._kinds:
                    self._kinds.add(member.machine)
                    self._say(
                        f"worker {member.name} is of another kind than this machine ({member.machine}): its distances "
                        f"of the check pairs differ by {member.deviation:.1g} at most"
                    )
                self._took_part(member.machine, member.deviation)
                self._died = 0
                crew.members[member.key] = member
                dispatch.join(member.key, member.name, member.rate, member.contexts, time.monotonic())
            case Left(key, died):
                self._died += died
                crew.members.pop(key, None)
                crew.drop([out.pop(group) for group in list(out) if group.worker == key])
                dispatch.lose(key, died=died)
            case Returned(group, answer) if out.pop(group, None) is not None:
                yield from self._returned(dispatch, group, answer)
                if dispatch.failing(group.worker):
                    crew.put_aside(group.worker, "one unit after the other fails on it")
                crew.drop([out.pop(other) for other in dispatch.useless() if other in out])
            case Broken(reason):
                raise RunError(f"{reason}; what was scored is safe, the same command goes on from there")

    def _returned(self, dispatch: Dispatch, group: Group, arrived: Future[Answer | None]) -> Iterator[Measured]:
        try:
            answer = arrived.result()
        except CancelledError:
            dispatch.give_up(group)
            return
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            yield from dispatch.answer(group, [reason] * len(group.items), 0.0, time.monotonic())
            return
        if answer is None:  # the process is another one than was let in
            dispatch.give_up(group)
            self._crew.forget(group.worker)
            return
        self._busy += answer.work.seconds
        self._total.tokens += answer.work.tokens
        self._total.decode_seconds += answer.work.decode_seconds
        self._total.reduce_seconds += answer.work.reduce_seconds
        measured = [_sound(item.unit, given) for item, given in zip(group.items, answer.measured, strict=True)]
        yield from dispatch.answer(group, measured, answer.work.seconds, time.monotonic())

    def _cost(self, unit: Unit) -> int:
        return unit_tokens(self._examples, self._targets, unit)


def unit_tokens(examples: EncodedExamples, targets: TargetTokens, unit: Unit) -> int:
    """About how many tokens a unit takes: what targets share is counted for each."""
    prefix = 0 if unit.example == ALONE else len(examples.prefixes[unit.example])
    return prefix + int(targets.lengths[unit.targets].sum())


def _sound(unit: Unit, given: Measures | str) -> Measures | str:
    """What came over the network, or why it cannot be what was measured."""
    if isinstance(given, str):
        return given
    if any(array.shape != unit.targets.shape or not np.isfinite(array).all() for array in given):
        return "the worker gave something that is not a number for each target"
    return given


def check_pairs(engine: Engine, inputs: Inputs) -> Check:
    """A few pairs spread over the block, measured here."""
    n, m = inputs.shape
    targets = np.unique(np.linspace(0, m - 1, CHECK_TARGETS).astype(np.int64))
    units = [
        Unit(int(example), targets) for example in np.unique(np.linspace(0, n - 1, CHECK_EXAMPLES).astype(np.int64))
    ]
    expected: list[Measures] = []
    with open_scorings(engine.file, engine.settings, inputs.encoded_examples, inputs.encoded_targets) as scorings:
        for _ in scorings[0].units(units, lambda _, measured: expected.append(measured)):
            pass
    exact = engine.file.quantization() in UNQUANTIZED
    return Check(units, expected, EXACT_TOLERANCE if exact else TOLERANCE)


@contextmanager
def at_work_on(
    client: Client,
    source: ModelFile,
    sha256: str,
    engine: Engine,
    inputs: Inputs,
    targets: TargetTokens,
    *,
    threads: int | None,
    took_part: Callable[[str, float], None],
    say: Callable[[str], None],
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
    patience: float | None = None,
    opening: OpenScorings = open_scorings,
) -> Iterator[ClusterScoring]:
    """The workers of a cluster, ready to score; what `job.at_work` is for this machine alone.

    Args:
        source, sha256: the model as it is; `engine.weights` says what workers make of it.
        threads: of a worker; None for all cores that it may use.
        took_part, say, together, patience: see `ClusterScoring`.
        opening: makes what measures on a worker.
    """
    content = content_of(source.path, sha256)
    places = [Path(adapter.path) for adapter in engine.settings.adapters]
    adapters = [content_of(path, each.sha256) for path, each in zip(places, engine.settings.adapters, strict=True)]
    examples = inputs.encoded_examples
    settings = replace(engine.settings, threads=threads)
    crew = Crew(
        client,
        {content: source.parts} | {adapter: [path] for adapter, path in zip(adapters, places, strict=True)},
        lambda records: Job(content, tuple(adapters), engine.weights, settings, records, opening),
        (examples, inputs.encoded_targets),
        check_pairs(engine, inputs),
        cost=lambda unit: unit_tokens(examples, targets, unit),
        say=say,
    )
    with crew:
        yield ClusterScoring(
            crew,
            examples,
            targets,
            lay_out=lay_out_of(settings),
            took_part=took_part,
            together=together,
            patience=patience,
            say=say,
        )
