"""`delift score --budget` and what `select`, `inspect` and `explain` make of a cache of some of the pairs."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_runs import QUICK, WORDS, delift, jsonl, model, pair, score, start, tree

from delift_cli.amount import Budget, parse_budget
from delift_cli.budget import measured, partial_block, plan, rounds
from delift_cli.budget import run as run_module
from delift_cli.budget.measured import ADAPTIVE, HELD_OUT, NEIGHBOUR, RANDOM, SELF, Scored, settled
from delift_cli.budget.trust import Quality
from delift_cli.cache import sparse
from delift_cli.cache.dense import Cache
from delift_cli.cache.sparse import SparseCache, SparseWriter, open_cache
from delift_cli.errors import InputError, RunError
from delift_cli.scoring import pairs
from delift_cli.selection.blocks import KernelOptions, as_block, kernels
from delift_cli.submodular.sweeps import similarities

N = 24
SHARE, PAIRS = "30%", 173


def record(number: int, words: int = 5) -> dict[str, str]:
    rng = random.Random(number)
    prompt, response = (" ".join(rng.choices(WORDS, k=k)) for k in (4, words))
    return {"id": f"r{number}", "prompt": prompt, "response": response}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool scored in part (`part`) and whole (`whole`), and a target set scored in part (`dev`)."""
    folder = tmp_path_factory.mktemp("budget")
    (folder / "pool.jsonl").write_bytes(jsonl([record(i) for i in range(N)]))
    # one of the targets is a record of the pool, up to case
    copy = {"id": "copy", "prompt": record(3)["prompt"].upper(), "response": record(3)["response"]}
    (folder / "dev.jsonl").write_bytes(jsonl([*(record(i) for i in range(100, 109)), copy]))
    pool, dev = folder / "pool.jsonl", folder / "dev.jsonl"
    for arguments in (
        (pool, "-o", folder / "part", "--budget", SHARE),
        (pool, "-o", folder / "whole"),
        (pool, "--targets", dev, "-o", folder / "dev", "--budget", "40%"),
    ):
        assert score(*arguments, "-q") == (0, b"", "")
    return folder


def rounds_of(path: Path) -> dict[str, bytes]:
    """Every byte of the rounds, and the measurements without an example."""
    return {name: data for name, data in tree(path).items() if name.startswith(("round-", "base_"))}


# ---- what is asked for


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5%", Budget("5%", 0.05, None, None, False)),
        ("+2.5 %", Budget("+2.5%", 0.025, None, None, True)),
        ("2M", Budget("2M", None, 2_000_000, None, False)),
        ("20,000", Budget("20000", None, 20_000, None, False)),
        ("500k", Budget("500k", None, 500_000, None, False)),
        ("8h", Budget("8h", None, None, 28_800.0, False)),
        ("+90min", Budget("+90min", None, None, 5_400.0, True)),
        ("1.5d", Budget("1.5d", None, None, 129_600.0, False)),
    ],
)
def test_amounts(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-5%", "5m", "5 percent", "h", "1e5"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(InputError, match=r"5%.*2M.*8h"):
        parse_budget(text)


def test_goal() -> None:
    assert parse_budget("5%").goal(1000, 30) == 50
    assert parse_budget("+5%").goal(1000, 30) == 80
    assert parse_budget("2M").goal(1000, 0) == 1000


def test_too_little(folder: Path, tmp_path: Path) -> None:
    refused = score(folder / "pool.jsonl", "-o", tmp_path / "c", "--budget", "10%").refusal()
    assert "58 of 576 pairs" in refused
    assert "at least 96 pairs (17%)" in refused
    assert not (tmp_path / "c").exists()


def test_all_pairs_beyond_the_limit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "ALL_PAIRS_SECONDS", 1e-3)
    arguments = (folder / "pool.jsonl", "-o", tmp_path / "c")
    refused = score(*arguments).refusal()
    assert refused.startswith("all 576 pairs would take ")
    assert "--budget 5%" in refused
    assert "--budget 100%" in refused
    assert not (tmp_path / "c").exists()
    assert score(*arguments, "--dry-run", "--json").json["pairs"] == 576
    assert score(*arguments, "--budget", "100%", "-q").code == 0
    assert Cache(tmp_path / "c").complete


def test_what_does_not_go_with_what_is_there(folder: Path, tmp_path: Path) -> None:
    pool = folder / "pool.jsonl"
    assert "nothing to --continue" in score(pool, "-o", tmp_path / "c", "--continue", "--budget", "5%").refusal()
    assert "add --continue" in score(pool, "-o", folder / "part", "--budget", "+5%").refusal()
    assert "a cache of all pairs" in score(pool, "-o", folder / "whole", "--budget", "5%").refusal()
    assert "a cache of all pairs" in score(pool, "-o", folder / "whole", "--continue").refusal()
    assert score(pool, "-o", folder / "whole", "--budget", "100%", "--json").json["pairs_scored"] == 0
    others = tmp_path / "others.jsonl"
    others.write_bytes(jsonl([record(i + N - 3) for i in range(N)]))
    refused = score(others, "-o", folder / "part", "--budget", SHARE).refusal()
    assert "only 3 of its 24 examples are among the 24 given now" in refused
    assert "settings.kv_type" in score(pool, "-o", folder / "part", "--kv-type", "f32").refusal()


def test_more_that_was_interrupted_at_its_end_is_not_spent_twice(folder: Path, tmp_path: Path) -> None:
    """The last pair was scored, but the run did not come to its end: repeated, it scores nothing; then it is more."""
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)
    more = (folder / "pool.jsonl", "-o", path, "--continue", "--budget", "+10%", "--json")
    first = score(*more)
    assert first.code == 0, first
    assert first.json["pairs_scored"] == 58
    last = SparseCache(path).rounds[-1]
    assert last.ended
    (last.path / "ended").unlink()
    assert score(*more).json["pairs_scored"] == 0
    assert SparseCache(path).rounds[-1].ended
    first = score(*more)
    assert first.code == 0, first
    assert first.json["pairs_scored"] == 58


def test_dry_run_says_pairs_rounds_and_share(folder: Path, tmp_path: Path) -> None:
    result = score(folder / "pool.jsonl", "-o", tmp_path / "c", "--budget", SHARE, "--dry-run", "--json").json
    assert (result["pairs"], result["pairs_all"], result["rounds"]) == (PAIRS, N * N, plan.ROUNDS)
    assert result["share"] == pytest.approx(PAIRS / N**2)
    assert not (tmp_path / "c").exists()
    more = ("-o", folder / "part", "--continue", "--budget", "+10%", "--dry-run")
    assert score(folder / "pool.jsonl", *more, "--json").json["pairs"] == 58
    assert "58 of 576 (10.07%), in at most 8 rounds" in score(folder / "pool.jsonl", *more).err


def test_pairs_are_planned_for_the_pool(folder: Path, tmp_path: Path) -> None:
    """For the best targets of its records before a target set, for its best examples behind existing data."""
    assert all(part.asked.for_examples for part in SparseCache(folder / "dev").rounds)
    assert not any(part.asked.for_examples for part in SparseCache(folder / "part").rounds)
    path = tmp_path / "old"
    existing = ("--examples", folder / "dev.jsonl", "--targets", folder / "pool.jsonl")
    assert score(*existing, "-o", path, "--budget", "40%", "-q").code == 0
    assert not any(part.asked.for_examples for part in SparseCache(path).rounds)
    for stage in (("--target", folder / "dev"), ("--existing", path)):
        assert len(delift("select", folder / "part", *stage, "-k", "5").out.splitlines()) == 5


def test_so_few_pairs_that_none_are_held_out(tmp_path: Path) -> None:
    """Of 30 records 3 pairs each go to neighbours alone; with a few more some are random."""
    pool, path = tmp_path / "pool.jsonl", tmp_path / "c"
    pool.write_bytes(jsonl([pair(number) for number in range(30)]))
    alone = "up to 10 pairs for each record, but 10% of all at most, go to its nearest neighbours alone"
    for budget, said in (("120", True), ("300", False)):
        dry = score(pool, "-o", path, "--budget", budget, "--dry-run", "--json")
        assert dry.json["neighbours_alone"] == said
        assert (alone in score(pool, "-o", path, "--budget", budget, "--dry-run").err) == said
    run = score(pool, "-o", path, "--budget", "120")
    assert f"no pair is held out at random, so how good they are cannot be said: {alone}" in run.err
    found = score(pool, "-o", path, "--budget", "120", "--json").json
    assert found["neighbours_alone"]
    assert [found["sources"][name] for name in ("self", "neighbours", "random", "held out")] == [30, 90, 0, 0]
    more = score(pool, "-o", path, "--continue", "--budget", "300", "--json").json
    assert not more["neighbours_alone"]
    assert more["sources"]["held out"] > 0


def test_dry_run_of_an_interrupted_run(folder: Path, tmp_path: Path) -> None:
    """Only what is left counts: the pairs of the round that was begun, and the rounds after it."""
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)
    last = max(path.glob("round-*"), key=lambda round: int(round.name.split("-")[1]))
    rows = np.load(last / "rows.npy", mmap_mode="r+")
    rows["done"][np.flatnonzero(rows["done"])[:2]] = 0
    rows.flush()
    lost = PAIRS - SparseCache(path).pairs_done
    result = score(folder / "pool.jsonl", "-o", path, "--dry-run", "--json").json
    assert (result["pairs"], result["rounds"]) == (lost, 1)
    assert "in at most 1 round\n" in score(folder / "pool.jsonl", "-o", path, "--dry-run").err


# ---- what is scored


def test_cache_of_some_pairs(folder: Path) -> None:
    cache, whole = SparseCache(folder / "part"), Cache(folder / "whole")
    assert cache.complete
    pairs = cache.pairs()
    assert len(pairs.example) == cache.planned == PAIRS
    assert len({*zip(pairs.example.tolist(), pairs.target.tolist(), strict=True)}) == PAIRS
    own = pairs.example == pairs.target
    assert own.sum() == N
    assert (pairs.source[own] == SELF).all()
    assert {NEIGHBOUR, RANDOM, HELD_OUT, ADAPTIVE} <= {*pairs.source.tolist()}
    # a pair's number does not depend on what is scored beside it
    at = pairs.example, pairs.target
    np.testing.assert_allclose(pairs.distance, whole.distance[at], atol=2e-3)
    np.testing.assert_allclose(pairs.logprob, whole.logprob[at], atol=2e-2)
    assert (folder / "part" / "base_distance.npy").read_bytes() == (folder / "whole" / "base_distance.npy").read_bytes()
    # no more on disk than the pairs take
    assert not (folder / "part" / "distance.npy").exists()


def test_numpy_alone_reads_a_round(folder: Path) -> None:
    first = folder / "part" / "round-1"
    indptr, targets = np.load(first / "indptr.npy"), np.load(first / "targets.npy")
    distance, rows = np.load(first / "distance.npy"), np.load(first / "rows.npy")
    assert len(indptr) == N + 1
    assert indptr[-1] == len(targets) == len(distance) == rows["done"].sum()
    for begin, end in pairwise(indptr):
        assert (np.diff(targets[begin:end]) > 0).all()


def test_same_run_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pool = folder / "pool.jsonl"
    assert score(pool, "-o", tmp_path / "again", "--budget", SHARE, "-q").code == 0
    assert rounds_of(tmp_path / "again") == rounds_of(folder / "part")
    assert score(pool, "-o", tmp_path / "other", "--budget", SHARE, "--seed", "1", "-q").code == 0
    assert rounds_of(tmp_path / "other") != rounds_of(folder / "part")
    gone_on = score(pool, "-o", tmp_path / "other", "--budget", SHARE)
    assert "were chosen with --seed 1; 0 counts for new ones alone" in gone_on.err
    assert "--seed" not in score(pool, "-o", tmp_path / "again", "--budget", SHARE).err


def test_summary(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "part", tmp_path / "c")
    result = score(folder / "pool.jsonl", "-o", tmp_path / "c", "--budget", SHARE, "--json").json
    assert result["pairs_scored"] == 0
    assert (result["pairs_all"], result["pairs_planned"], result["pairs_measured"]) == (N * N, PAIRS, PAIRS)
    assert sum(result["sources"].values()) == PAIRS
    assert [round_["pairs"] for round_ in result["rounds"]] == [len(r) for r in SparseCache(tmp_path / "c").rounds]
    assert result["rounds"][0]["budget"] == SHARE
    assert result["stopped"] == "budget"
    assert result["held_out"]["pairs"] == result["sources"]["held out"]
    shown = score(folder / "pool.jsonl", "-o", tmp_path / "c").err  # without --budget: what it was to do
    assert "nothing to do" in shown
    assert "--budget 100% scores the others" in shown
    assert "173 of 576 pairs (30.03%)" in shown


def test_continue(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)
    before = rounds_of(path)
    arguments = (folder / "pool.jsonl", "-o", path, "--continue", "--budget", "+10%", "--json")
    assert score(*arguments).json["pairs_scored"] == 58
    after = rounds_of(path)
    assert {name: after[name] for name in before} == before  # what was scored is not touched
    assert SparseCache(path).planned == PAIRS + 58
    assert score(*arguments).json["pairs_measured"] == PAIRS + 2 * 58
    total = score(folder / "pool.jsonl", "-o", path, "--budget", "60%", "--json").json
    assert total["pairs_measured"] == round(0.6 * N * N)


def test_all_pairs_round_by_round_select_as_the_dense_cache_does(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)
    assert score(folder / "pool.jsonl", "-o", path, "--continue", "--budget", "100%", "-q").code == 0
    told = delift("select", path, "-k", "30%").err
    assert "576 of 576 pairs" in told
    assert "estimates" not in told
    assert "unmeasured" not in told
    sparse, dense = (
        similarities(kernels([as_block(open_cache(cache))], KernelOptions())[0]) for cache in (path, folder / "whole")
    )
    np.testing.assert_allclose(sparse, dense, atol=2e-3)
    for estimates in ("on", "off"):
        chosen = delift("select", path, "-k", "30%", "--ids-only", "--estimates", estimates)
        assert chosen.out == delift("select", folder / "whole", "-k", "30%", "--ids-only").out


# ---- new records


@pytest.fixture(scope="module")
def more(folder: Path) -> Path:
    """The pool with four records appended, and `grown`, where `part` went on with them."""
    file = folder / "more.jsonl"
    file.write_bytes((folder / "pool.jsonl").read_bytes() + jsonl([record(i) for i in range(200, 204)]))
    shutil.copytree(folder / "part", folder / "grown")
    assert score(file, "-o", folder / "grown", "--budget", SHARE, "-q") == (0, b"", "")
    return file


def test_new_records_are_scored_beside_what_there_is(folder: Path, more: Path) -> None:
    before, after = rounds_of(folder / "part"), rounds_of(folder / "grown")
    rounds_before = {name: data for name, data in before.items() if name.startswith("round-")}
    assert {name: after[name] for name in rounds_before} == rounds_before
    cache = SparseCache(folder / "grown")
    assert cache.complete
    assert cache.shape == cache.known == (N + 4, N + 4)
    pairs = cache.pairs()
    assert len(pairs.example) == round(0.3 * (N + 4) ** 2)
    assert len({*zip(pairs.example.tolist(), pairs.target.tolist(), strict=True)}) == len(pairs.example)
    assert (pairs.example == pairs.target).sum() == N + 4
    first = cache.rounds[len(SparseCache(folder / "part").rounds)].pairs()
    drawn = np.isin(first.source, [RANDOM, HELD_OUT])
    assert drawn.any()
    assert ((first.example >= N) | (first.target >= N))[drawn].all()  # known records have had theirs
    assert np.bincount(pairs.example)[N:].min() > 1
    assert np.bincount(pairs.target)[N:].min() > 1
    chosen = delift("select", folder / "grown", "-k", "24", "--ids-only").out.decode().split()
    assert {*chosen} & {f"r{i}" for i in range(200, 204)}


def test_new_records_get_the_share_that_the_others_had(folder: Path, more: Path, tmp_path: Path) -> None:
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)
    expected = score(more, "-o", path, "--dry-run", "--json").json
    result = score(more, "-o", path, "--json").json
    assert result["pairs_scored"] == expected["pairs"] == round(0.3 * (N + 4) ** 2) - PAIRS
    assert rounds_of(path) == rounds_of(folder / "grown")
    assert score(more, "-o", path, "--budget", SHARE, "--json").json["pairs_scored"] == 0


def test_too_little_for_new_records(folder: Path, more: Path, tmp_path: Path) -> None:
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)
    kept = tree(path)
    refused = score(more, "-o", path, "--budget", str(PAIRS)).refusal()
    assert "too few for 4 new examples and 4 new targets: give at least 189 pairs" in refused
    assert tree(path) == kept
    assert score(folder / "pool.jsonl", "-o", path, "--continue", "--budget", "+10%", "-q").code == 0
    assert "say how many pairs to score" in score(more, "-o", path).refusal()


def test_growing_is_interrupted(folder: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)

    def fail(*_arguments: object, **_options: object) -> None:
        raise RunError("the power went out")

    for place, name in ((pairs.Scoring, "base"), (rounds.Rounds, "rounds")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, fail)
            assert score(more, "-o", path, "--budget", SHARE).code == 1
        known = delift("select", path, "-k", "4")
        assert known.code == (2 if name == "base" else 0)
        assert ("new records" in known.err) == (name == "base")
    assert score(more, "-o", path, "--budget", SHARE, "-q").code == 0
    assert rounds_of(path) == rounds_of(folder / "grown")


def test_targets_alone_may_come(folder: Path, tmp_path: Path) -> None:
    path, dev = tmp_path / "dev", tmp_path / "dev.jsonl"
    shutil.copytree(folder / "dev", path)
    dev.write_bytes((folder / "dev.jsonl").read_bytes() + jsonl([record(i) for i in range(110, 114)]))
    result = score(folder / "pool.jsonl", "--targets", dev, "-o", path, "--budget", "40%", "--json").json
    assert result["pairs_measured"] == round(0.4 * N * 14)
    assert np.bincount(SparseCache(path).pairs().target)[10:].min() > 0


# ---- interruptions


@pytest.fixture(scope="module")
def slow_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen records with responses long enough to be interrupted in."""
    file = tmp_path_factory.mktemp("slow") / "slow.jsonl"
    file.write_bytes(jsonl([record(i, words=60) for i in range(16)]))
    return file


@pytest.fixture(scope="module")
def uninterrupted(slow_pool: Path) -> Path:
    path = slow_pool.parent / "whole"
    assert score(slow_pool, "-o", path, "--budget", "50%", "-q").code == 0
    return path


def stop_at(process: subprocess.Popen[bytes], path: Path, number: int) -> None:
    """Kill a run (SIGKILL) that has just scored some of a round."""
    rows = path / f"round-{number}" / "rows.npy"
    give_up = time.monotonic() + 120
    while not rows.exists() or np.load(rows)["done"].max() == 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [1, 2])
def test_kill_and_resume(slow_pool: Path, uninterrupted: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / "killed"
    arguments = ("score", slow_pool, "-o", path, "--budget", "50%", "-m", model(), *QUICK)
    stop_at(start(*arguments), path, number)
    killed = SparseCache(path)
    assert len(killed.rounds) == number
    done = killed.pairs_done
    assert 0 < done < 128
    shown = delift("select", path, "-k", "4")  # what is scored can be selected from at any time
    assert shown.code == 0
    assert ("more were planned" in shown.err) == (done < killed.planned)
    resumed = score(slow_pool, "-o", path, "--budget", "50%", "--json")
    assert resumed.json["pairs_scored"] == 128 - done
    assert rounds_of(path) == rounds_of(uninterrupted)


def test_half_made_round_is_removed(slow_pool: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """A kill while a plan was written down leaves a draft; the next run plans that round again."""
    path = tmp_path / "c"
    shutil.copytree(uninterrupted, path)
    last = len(SparseCache(path).rounds)
    (path / f"round-{last}").rename(path / f".round-{last}")
    (path / f".round-{last}" / "rows.npy").unlink()
    assert score(slow_pool, "-o", path, "--budget", "50%", "-q").code == 0
    assert rounds_of(path) == rounds_of(uninterrupted)
    assert not list(path.glob(".round-*"))


def test_a_cache_that_goes_away_ends_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, elsewhere, write = tmp_path / "c", tmp_path / "elsewhere", SparseWriter.write_pairs

    def moved_away(cache: SparseWriter, *results: Any) -> None:
        if path.exists():
            path.rename(elsewhere)
        write(cache, *results)

    with monkeypatch.context() as patched:
        patched.setattr(sparse, "SYNC_SECONDS", -1.0)
        patched.setattr(SparseWriter, "write_pairs", moved_away)
        result = score(folder / "pool.jsonl", "-o", path, "--budget", "50%", "-q")
    assert "was moved or removed" in result.refusal(1)
    elsewhere.rename(path)
    assert score(folder / "pool.jsonl", "-o", path, "--budget", "50%", "-q").code == 0
    assert score(folder / "pool.jsonl", "-o", tmp_path / "fresh", "--budget", "50%", "-q").code == 0
    assert rounds_of(path) == rounds_of(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["distance", "logprob", "targets", "source", "rows"])
def test_damage_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "c"
    shutil.copytree(folder / "part", path)
    file = path / "round-1" / f"{name}.npy"
    data = bytearray(file.read_bytes())
    data[-1 if name == "source" else -2] ^= 1
    file.write_bytes(data)
    for result in (delift("select", path), delift("inspect", path), score(folder / "pool.jsonl", "-o", path)):
        assert "round-1 is damaged" in result.refusal()


# ---- a time


class Clock:
    """Every look at it takes so many seconds."""

    def __init__(self, step: float) -> None:
        self._ticks = (time.monotonic() + step * tick for tick in count())

    def monotonic(self) -> float:
        return next(self._ticks)


def test_time_runs_out_in_a_round(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    arguments = (folder / "pool.jsonl", "-o", path)
    with monkeypatch.context() as patched:
        patched.setattr(rounds, "time", SimpleNamespace(monotonic=Clock(300.0).monotonic))
        result = score(*arguments, "--budget", "1h", "--json").json
    assert result["stopped"] == "time"
    assert 0 < result["pairs_measured"] < result["pairs_planned"]
    assert delift("select", path, "-k", "4").code == 0
    finished = score(*arguments, "--json").json  # without --budget: the rest of what was planned
    assert finished["pairs_measured"] == finished["pairs_planned"] == result["pairs_planned"]


def test_time_says_so(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "time", SimpleNamespace(monotonic=Clock(300.0).monotonic))
    shown = score(folder / "pool.jsonl", "-o", tmp_path / "c", "--budget", "1h").err
    assert "the time is up" in shown


def test_time_is_planned_again_after_each_round(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rate says that all pairs fit; the measured one is far lower, and later rounds are sized by it."""
    cost = rounds.cost

    def dearer(*arguments: Any) -> rounds.Cost:
        """Pairs that look as if 200 of them took the whole hour."""
        found = cost(*arguments)
        return found._replace(prefixes=0, pair=3600 * rate / 200)

    rate = 100.0
    monkeypatch.setattr(rounds, "cost", dearer)
    monkeypatch.setattr(rounds.Rounds, "__init__", _with_rate(rounds.Rounds.__init__, rate))
    result = score(folder / "pool.jsonl", "-o", tmp_path / "c", "--budget", "1h", "--json").json
    goals = [part.asked.goal for part in SparseCache(tmp_path / "c").rounds]
    assert 0.9 * 0.95 * 200 < goals[0] <= 0.95 * 200
    assert len({*goals}) > 1  # the real rate is another one
    assert result["stopped"] == "budget"


def test_a_settled_selection_ends_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "SETTLED_RECORDS", 1)
    monkeypatch.setattr(measured, "KEEP_SHARES", (0.05,))  # the best record of a small pool is soon known
    pool, path = folder / "pool.jsonl", tmp_path / "c"
    result = score(pool, "-o", path, "--budget", SHARE, "--json").json
    assert result["stopped"] == "settled"
    assert N < result["pairs_measured"] < PAIRS
    cache = SparseCache(path)
    known = partial_block.scored(cache)
    last = sum(part.pairs_done for part in cache.rounds[-2:])
    before = Scored(*(getattr(known, name)[:-last] for name in vars(known)))
    assert settled(partial_block.proposals(cache.examples().records, None), before, known)
    # asked again it says the same; asked for more, or for all, it goes on
    again = score(pool, "-o", path, "--budget", SHARE)
    assert "left the selection as it was" in again.err
    assert SparseCache(path).pairs_done == cache.pairs_done
    more = score(pool, "-o", path, "--continue", "--budget", "+10%", "--json").json
    assert more["pairs_scored"] > 0
    assert score(pool, "-o", path, "--continue", "--budget", "100%", "--json").json["pairs_measured"] == N * N


def _with_rate(init: Any, rate: float) -> Any:
    return lambda self, *arguments, **options: init(self, *arguments, **{**options, "tokens_per_second": rate})


# ---- selection


OBJECTIVES = [
    ("fl", ["part"]),
    ("saturated", ["part"]),
    ("flvmi", ["--target", "dev"]),
    ("flmi", ["part", "--target", "dev"]),
    ("flmi", ["whole", "--target", "dev"]),
]


@pytest.mark.parametrize(("name", "arguments"), OBJECTIVES)
@pytest.mark.parametrize("estimates", ["on", "off"])
def test_select(folder: Path, name: str, arguments: list[str], estimates: str) -> None:
    paths = [argument if argument.startswith("-") else folder / argument for argument in arguments]
    options = ("-k", "7", "--objective", name, "--estimates", estimates, "--json", "-o", "/dev/null")
    summary = delift("select", *paths, *options).json
    assert summary["selected"] == 7
    assert summary["value"] > 0
    chosen_from = "pool" if "--target" not in arguments or len(arguments) == 3 else "target"
    for role, found in summary["measured"].items():
        assert found["estimates"] == estimates
        assert found["pairs_measured"] < found["pairs_all"]
        assert ("covered" in found) == (role == chosen_from and estimates == "on")
        if "covered" in found:
            covered = found["covered"]
            assert 0 < covered["measured"] <= covered["low"] <= covered["high"]
    roles = {"part": "pool", "dev": "target"}
    assert {*summary["measured"]} == {roles[name] for name in arguments if name in roles}


def test_estimates_count_only_where_nothing_is_measured(folder: Path) -> None:
    block, whole = as_block(SparseCache(folder / "part")), Cache(folder / "whole")
    on, off = (
        similarities(kernels([block], KernelOptions(transform="raw", self_utility="include", estimates=estimates))[0])
        for estimates in ("on", "off")
    )
    pairs = SparseCache(folder / "part").pairs()
    known = np.zeros((N, N), bool)
    known[pairs.example, pairs.target] = True
    utility = whole.base_distance.astype(float) - whole.distance
    np.testing.assert_allclose(on[known], utility[known], atol=2e-3)
    np.testing.assert_array_equal(on[known], off[known])
    assert (off[~known] == 0).all()
    assert (on[~known] != 0).any()


def test_in_a_large_block_the_best_estimates_of_a_target_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = KernelOptions(estimates="on")
    every = similarities(kernels([as_block(SparseCache(folder / "part"))], options)[0])
    monkeypatch.setattr(partial_block, "ALL_ESTIMATES", N * N - 1)
    monkeypatch.setattr(partial_block, "BEST_ESTIMATES", 3)
    best = similarities(kernels([as_block(SparseCache(folder / "part"))], options)[0])
    pairs = SparseCache(folder / "part").pairs()
    known = np.zeros((N, N), bool)
    known[pairs.example, pairs.target] = True
    np.testing.assert_array_equal(best[known], every[known])
    for target in range(N):
        free = ~known[:, target]
        expected = np.sort(every[free, target])[::-1]
        expected[3:] = 0
        np.testing.assert_allclose(np.sort(best[free, target])[::-1], expected, atol=1e-6)
    assert "the best 3 count" in delift("select", folder / "part", "-k", "5", "--estimates", "on").err
    assert "the best 3 count" not in delift("select", folder / "part", "-k", "5", "--estimates", "off").err


@pytest.mark.parametrize("utility", ["euclidean", "pmi"])
@pytest.mark.parametrize("own", ["exclude", "include"])
def test_measured_coverage_is_that_of_the_scored_pairs(folder: Path, utility: str, own: str) -> None:
    options = ("-k", "5", "--utility", utility, "--self", own)
    on = (*options, "--estimates", "on")
    found = delift("select", folder / "part", *on, "--json", "-o", "/dev/null").json
    chosen = [int(id_[1:]) for id_ in delift("select", folder / "part", *on, "--ids-only").out.split()]
    cache, pairs = SparseCache(folder / "part"), SparseCache(folder / "part").pairs()
    gains = {
        "euclidean": cache.base_distance[pairs.target] - pairs.distance,
        "pmi": pairs.logprob - cache.base_logprob[pairs.target],
    }[utility]
    covered = np.zeros(N)
    for example, target, gain in zip(pairs.example, pairs.target, gains, strict=True):
        if example in chosen and (own == "include" or example != target):
            covered[target] = max(covered[target], gain)
    assert found["measured"]["pool"]["covered"]["measured"] == pytest.approx(covered.sum(), rel=1e-5)
    # without estimates, that is the objective's value
    off = delift("select", folder / "part", *options, "--estimates", "off", "--json", "-o", "/dev/null").json
    assert off["value"] >= 0.63 * covered.sum()


def test_summary_of_select_marks_estimates(folder: Path) -> None:
    shown = delift("select", folder / "part", "-k", "5", "--estimates", "on").err
    assert "unmeasured pairs estimated" in shown
    assert "173 of 576 pairs (30.03%)" in shown
    assert "95 % interval" in shown
    assert "counted as 0" in delift("select", folder / "part", "-k", "5", "--estimates", "off").err


@pytest.mark.parametrize(("r2", "used"), [(0.3, "on"), (0.0, "off"), (-1.0, "off"), (float("nan"), "off")])
def test_estimates_are_used_where_they_are_any_good(
    folder: Path, monkeypatch: pytest.MonkeyPatch, r2: float, used: str
) -> None:
    monkeypatch.setattr(partial_block, "quality", lambda *_: Quality(100, r2, 0.5, 0.0, 0.1))
    result = delift("select", folder / "part", "-k", "5", "--json", "-o", "/dev/null").json
    assert result["measured"]["pool"]["estimates"] == used
    chosen = delift("select", folder / "part", "-k", "5", "--ids-only").out
    assert chosen == delift("select", folder / "part", "-k", "5", "--ids-only", "--estimates", used).out


def test_copies_in_a_rectangle_are_self_pairs(folder: Path) -> None:
    """The last target is record 3 of the pool: that pair is measured for certain, and covers nothing."""
    cache = SparseCache(folder / "dev")
    assert cache.shape == (N, 10)
    pairs = cache.pairs()
    own = (pairs.example == 3) & (pairs.target == 9)
    assert pairs.source[own].tolist() == [SELF]
    kernel = kernels([as_block(cache)], KernelOptions())[0]
    assert similarities(kernel)[3, 9] == 0


def test_inspect(folder: Path) -> None:
    summary = delift("inspect", folder / "part", "--json").json
    cache, pairs = SparseCache(folder / "part"), SparseCache(folder / "part").pairs()
    assert (summary["pairs_planned"], summary["pairs_measured"]) == (PAIRS, PAIRS)
    utility = cache.base_distance[pairs.target].astype(float) - pairs.distance
    others = pairs.example != pairs.target
    assert summary["mean_utility"] == pytest.approx(utility[others].mean())
    best = summary["most_useful"][0]
    of_best = others & (pairs.example == int(best["id"][1:]))
    assert best["mean_utility"] == pytest.approx(utility[of_best].mean())


def test_explain(folder: Path) -> None:
    ids = delift("select", folder / "part", "-k", "5", "--ids-only").out.split()
    found = delift("explain", folder / "part", ids[0].decode(), "-k", "5", "--json").json
    assert (found["chosen"], found["rank"]) == (True, 1)


# ---- long responses


def test_max_response_tokens(folder: Path, tmp_path: Path) -> None:
    """Of one token, the distance is 1 - p; the token is the first of the whole response."""
    pool, path = folder / "pool.jsonl", tmp_path / "c"
    assert score(pool, "-o", path, "--max-response-tokens", "1", "-q").code == 0
    cache = Cache(path)
    assert (cache.response_tokens == 1).all()
    np.testing.assert_allclose(cache.distance, 1 - np.exp(cache.logprob.astype(float)), atol=1e-5)
    np.testing.assert_allclose(cache.base_distance, 1 - np.exp(cache.base_logprob.astype(float)), atol=1e-5)
    # examples are shown whole
    np.testing.assert_array_equal(cache.example_tokens, Cache(folder / "whole").example_tokens)
    assert "settings.max_response_tokens (there 1, now null)" in score(pool, "-o", path).refusal()
    assert "settings differs" in delift("select", path, "--target", folder / "dev").refusal()
    long = tmp_path / "long"
    assert score(pool, "-o", long, "--max-response-tokens", "1000", "-q").code == 0
    assert (long / "distance.npy").read_bytes() == (folder / "whole" / "distance.npy").read_bytes()


@pytest.mark.parametrize("records", [1, 2, 6, 25, 31, 700, 90_000])
def test_the_share_that_is_said_to_be_enough_is(records: int) -> None:
    shape = records, records
    with pytest.raises(InputError, match=r"give at least [\d,]+ pairs \([\d.]+%\)$") as refused:
        rounds.check_budget(0, shape, "0.0001%", None)
    share = str(refused.value).rpartition("(")[2].removesuffix(")")
    rounds.check_budget(parse_budget(share).goal(records**2, 0), shape, share, None)
