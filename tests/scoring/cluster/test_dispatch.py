"""Which worker gets what: time is a number here, workers are names."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("distributed")

from delift_cli.errors import RunError
from delift_cli.scoring.cluster.dispatch import GROUP_SECONDS, LEAST_SECONDS, PATIENCE, SLACK, Dispatch, Group
from delift_cli.scoring.measures import Measures
from delift_cli.scoring.pairs import Unit

RESULT = Measures(np.zeros(1, np.float32), np.zeros(1, np.float32))


def units(count: int, tokens: int = 100) -> list[tuple[Unit, int]]:
    return [(Unit(at, np.zeros(1, np.int64)), tokens) for at in range(count)]


def joined(dispatch: Dispatch, *workers: str, rate: float = 1000.0) -> None:
    for worker in workers:
        dispatch.join(worker, f"worker {worker}", rate, 1, 0.0)


def examples(group: Group | None) -> list[int]:
    assert group is not None
    return [item.unit.example for item in group.items]


def answered(dispatch: Dispatch, group: Group, now: float, seconds: float | None = None) -> list[int]:
    taken = group.tokens / 1000.0 if seconds is None else seconds
    return [unit.example for unit, _ in dispatch.answer(group, [RESULT] * len(group.items), taken, now)]


def failed(dispatch: Dispatch, group: Group, now: float) -> list[int]:
    return [unit.example for unit, _ in dispatch.answer(group, ["no number"] * len(group.items), 0.1, now)]


def simulate(count: int, speeds: dict[str, float], tokens: int = 100) -> tuple[float, Counter[str], list[int]]:
    """When the last unit comes in, units measured by each worker, and what came in; every worker was let in as 1,000
    tokens/s."""
    dispatch, now, done = Dispatch(units(count, tokens)), 0.0, []
    joined(dispatch, *speeds)
    coming: list[tuple[float, int, Group]] = []
    free, measured = dict.fromkeys(speeds, 0.0), Counter[str]()
    while not dispatch.finished:
        for worker, speed in speeds.items():
            while (group := dispatch.next_group(worker, now)) is not None:
                free[worker] = max(free[worker], now) + group.tokens / speed
                heapq.heappush(coming, (free[worker], len(coming) + 10_000 * len(done), group))
        if not coming:
            break
        at, _, group = heapq.heappop(coming)
        if at > now + 1.0:  # what a client looks at now and then
            heapq.heappush(coming, (at, -1, group))
            now += 1.0
            continue
        now = max(now, at)
        done += answered(dispatch, group, now, group.tokens / speeds[group.worker])
        measured[group.worker] += len(group.items)
        dispatch.useless()
    return now, measured, done


def test_every_unit_once_and_all_end_together() -> None:
    end, measured, done = simulate(1000, {"a": 1000.0, "b": 1000.0, "c": 500.0})
    assert sorted(done) == list(range(1000))
    assert end < 1.03 * 1000 * 100 / 2500
    assert measured["c"] < 0.25 * 1000


def test_a_worker_far_slower_than_it_seemed_holds_nobody_back() -> None:
    end, _, done = simulate(100, {"a": 1000.0, "b": 1.0})
    assert sorted(done) == list(range(100))
    assert end < 14.0  # 10 s for all of them by a alone; one unit takes b 100 s


def test_groups_take_about_as_long_as_they_should() -> None:
    dispatch = Dispatch(units(4000, 10))
    joined(dispatch, "a", "b")
    assert len(examples(dispatch.next_group("a", 0.0))) == GROUP_SECONDS * 1000 / 10
    dispatch = Dispatch(units(4, 100_000))
    joined(dispatch, "a")
    assert examples(dispatch.next_group("a", 0.0)) == [0]
    assert examples(dispatch.next_group("a", 0.0)) == [1]
    assert dispatch.next_group("a", 0.0) is None  # one is measured and one waits


def test_groups_at_the_end_are_not_so_short_that_they_keep_the_client_busy() -> None:
    dispatch = Dispatch(units(4 * 80, 10))
    joined(dispatch, *"abcd")
    taken = [examples(dispatch.next_group("a", 0.0)), examples(dispatch.next_group("b", 0.0))]
    assert [len(group) for group in taken] == [LEAST_SECONDS * 1000 / 10] * 2


def test_what_a_lost_worker_held_goes_elsewhere_one_by_one() -> None:
    dispatch = Dispatch(units(40))
    joined(dispatch, "a", "b")
    lost = examples(dispatch.next_group("a", 0.0))
    assert len(lost) > 1
    dispatch.lose("a", died=True)
    taken = []
    while len(taken) < len(lost):
        group = dispatch.next_group("b", 0.0)
        assert group is not None
        taken += examples(group)
        assert len(group.items) == 1
        answered(dispatch, group, 0.0)
    assert taken == lost


def test_a_unit_that_kills_three_workers_stops_the_run() -> None:
    dispatch = Dispatch(units(1))
    joined(dispatch, *"abcd")
    for worker in "abc":  # the first time nobody knows which unit it was
        assert examples(dispatch.next_group(worker, 0.0)) == [0]
        dispatch.lose(worker, died=True)
    assert examples(dispatch.next_group("d", 0.0)) == [0]
    with pytest.raises(RunError, match=r"example 1 failed 3 times.*worker b, worker c, worker d.*lost"):
        dispatch.lose("d", died=True)


def test_workers_that_leave_in_peace_are_no_failure() -> None:
    dispatch = Dispatch(units(1))
    for worker in "abcdef":
        joined(dispatch, worker)
        assert examples(dispatch.next_group(worker, 0.0)) == [0]
        dispatch.lose(worker, died=False)


def test_a_failed_unit_goes_to_another_worker_and_three_failures_stop_the_run() -> None:
    dispatch = Dispatch(units(2, 2000))
    joined(dispatch, "a", "b")
    group = dispatch.next_group("a", 0.0)
    assert group is not None
    assert failed(dispatch, group, 0.0) == []
    assert examples(dispatch.next_group("a", 0.0)) == [1]  # not the one that failed here
    group = dispatch.next_group("b", 0.0)
    assert examples(group) == [0]
    assert group is not None
    failed(dispatch, group, 0.0)
    group = dispatch.next_group("b", 0.0)
    assert examples(group) == [0]  # it failed on all there are
    assert group is not None
    with pytest.raises(RunError, match=r"example 1 failed 3 times.*no number"):
        failed(dispatch, group, 0.0)


def test_what_came_with_the_last_failure_is_not_lost() -> None:
    dispatch = Dispatch(units(6, 500))
    joined(dispatch, "a", "b")
    for worker in "ab":  # a second time for the first unit, alone
        group = dispatch.next_group(worker, 0.0)
        assert group is not None
        failed(dispatch, group, 0.0)
    joined(dispatch, "c")
    group = dispatch.next_group("c", 0.0)
    assert group is not None
    group.items += dispatch.next_group("c", 0.0).items  # type: ignore[union-attr]
    answers = dispatch.answer(group, ["no number", RESULT], 0.1, 0.0)
    assert next(answers)[0].example == group.items[1].unit.example
    with pytest.raises(RunError, match="example 1 failed"):
        next(answers)


def test_a_worker_on_which_everything_fails_is_known() -> None:
    dispatch = Dispatch(units(9, 2000))
    joined(dispatch, "a", "b")
    for _ in range(3):
        assert not dispatch.failing("a")
        group = dispatch.next_group("a", 0.0)
        assert group is not None
        failed(dispatch, group, 0.0)
    assert dispatch.failing("a")


def test_a_worker_that_hangs_is_overdue_once_and_welcome_back() -> None:
    dispatch = Dispatch(units(2, 1000))
    joined(dispatch, "a", "b")
    group = dispatch.next_group("a", 0.0)
    assert group is not None
    late = SLACK + PATIENCE * 1.0
    assert dispatch.overdue(late) == []
    assert dispatch.overdue(late + 0.1) == ["a"]
    assert dispatch.overdue(late + 9.0) == []
    assert dispatch.next_group("a", late) is None
    assert examples(dispatch.next_group("b", late)) == [0]
    assert answered(dispatch, group, late + 9.0) == [0]  # it answers after all, and first
    assert examples(dispatch.next_group("a", late + 9.0)) == [1]


def test_the_second_answer_to_a_unit_does_not_count() -> None:
    dispatch = Dispatch(units(1, 1000))
    joined(dispatch, "a", "b")
    first = dispatch.next_group("a", 0.0)
    assert dispatch.next_group("b", 0.5) is None  # a will be done sooner
    second = dispatch.next_group("b", 2.5)
    assert first is not None
    assert second is not None
    assert answered(dispatch, second, 3.5) == [0]
    assert dispatch.finished
    assert answered(dispatch, first, 4.0) == []
