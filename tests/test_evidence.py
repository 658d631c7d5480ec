"""The evidence suite: pools without leaks, a plan that is done once, a report that says what the results say."""

from __future__ import annotations

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import write_model

from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile
from tests.evidence import harder, peers, plot, pools, report, runs, scored, stats, variants
from tests.evidence.runs import Run
from tests.evidence.stats import Interval

RUN = Run("instruction", "p3", "fl", "30%", 0, 0)
SIZES = {"spoiled-20": 100, "spoiled-40": 100, "redundant": 102, "skewed": 100, "p3-1000": 1000, "spoiled-1000": 1000}


# ---- pools


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up records in the layouts of the public data."""
    folder = tmp_path_factory.mktemp("data")
    p3 = [{"id": f"p3/{n}", "task": f"t{n % 60}", "prompt": f"P3 {n}", "response": f"{n}"} for n in range(2400)]
    maths = [{"question": f"How many are {n}?", "answer": f"#### {n}"} for n in range(500)]
    copies = [{"question": f"HOW  many are {n}?", "answer": f"#### {n}"} for n in range(490, 900)]
    tasks = [{"instruction": f"Do {n}", "input": "this" if n % 2 else "", "output": f"done {n}"} for n in range(175)]
    code = [{"instruction": f"Write {n}", "input": "", "response": f"print({n})"} for n in range(400)]
    for name, rows in (("p3_6k", p3), ("gsm8k_train_2k", maths), ("gsm8k_test_500", copies)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "self_instruct_seed_alpaca.json").write_text(json.dumps(tasks))
    (folder / "codegen_instruct.json").write_text(json.dumps(code))
    return folder


def test_no_record_or_copy_is_in_two_parts_of_a_pool(data: Path, tmp_path: Path) -> None:
    for pool in pools.write_pools(data, tmp_path):
        texts = [pools.text(record) for part in pool.parts for record in pool.records(part)]
        ids = [record["id"] for part in pool.parts for record in pool.records(part)]
        assert len(set(texts)) == len(texts)
        assert len(set(ids)) == len(ids)
        assert len(pool.records("pool")) == SIZES.get(pool.name, 200)


def test_parts_of_the_pools(data: Path, tmp_path: Path) -> None:
    p3, mixed, instruct, *_ = pools.write_pools(data, tmp_path)
    assert p3.parts == ["pool", "heldout", "heldout-fresh"]
    assert mixed.parts == ["pool", "heldout", "target", "heldout-fresh"]
    assert instruct.parts == ["pool", "heldout", "existing", "heldout-existing"]
    assert {r["task"] for r in p3.records("pool")} == {r["task"] for r in p3.records("heldout")}
    assert not {r["task"] for r in p3.records("pool")} & {r["task"] for r in mixed.records("pool")}
    assert {r["task"] for r in mixed.records("target")} == {"gsm8k"}
    assert {r["id"].split("/")[0] for r in mixed.records("heldout") if r["task"] == "gsm8k"} == {"gsm8k-test"}


def test_pools_are_the_same_for_the_same_seed_only(data: Path, tmp_path: Path) -> None:
    first, again, other = (
        pools.write_pools(data, tmp_path / name, seed) for name, seed in zip("abc", (1, 1, 2), strict=True)
    )
    for one, two, three in zip(first, again, other, strict=True):
        assert one.path("pool").read_bytes() == two.path("pool").read_bytes()
        assert one.path("pool").read_bytes() != three.path("pool").read_bytes()


def test_what_a_pool_lacks_is_added_and_the_rest_stays(data: Path, tmp_path: Path) -> None:
    p3, *_ = pools.write_pools(data, tmp_path)
    before = {part: p3.path(part).read_bytes() for part in p3.parts}
    p3.path("heldout-fresh").unlink()
    p3.path("pool").write_bytes(b"kept\n")
    pools.write_pools(data, tmp_path)
    assert {part: p3.path(part).read_bytes() for part in p3.parts} == {**before, "pool": b"kept\n"}


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks public data.*p3_6k\.jsonl.*--data"):
        pools.write_pools(tmp_path, tmp_path / "work")


def test_spoiled_pools_are_sound_ones_with_other_answers(data: Path, tmp_path: Path) -> None:
    of_name = {pool.name: pool for pool in pools.write_pools(data, tmp_path)}
    for name, share, origin in (("spoiled-20", 0.2, "p3"), ("spoiled-40", 0.4, "p3"), ("spoiled-1000", 0.2, "p3-1000")):
        sound = {record["id"]: record for record in of_name[origin].records("pool")}
        records = of_name[name].records("pool")
        spoiled = [record for record in records if "~" in record["id"]]
        assert len(spoiled) == share * len(records)
        for record in records:
            before = sound[record["id"].split("~")[0]]
            assert record["prompt"] == before["prompt"]
            assert (record["response"] == before["response"]) == (record not in spoiled)


def test_ways_of_spoiling() -> None:
    order = random.Random(0)
    records = [
        {"id": str(n), "task": f"t{n % 3}", "prompt": f"ask {n}", "response": f"answer number {n}"} for n in range(30)
    ]
    answers = {record["id"]: record["response"] for record in records}
    of_way: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record in harder.spoiled(records, 0.4, order):
        name, _, way = record["id"].partition("~")
        of_way[way].append((name, record["response"]))
    assert {way: len(found) for way, found in of_way.items()} == {"": 18, "swapped": 4, "cut": 4, "boilerplate": 4}
    assert {answer for _, answer in of_way["swapped"]} == {answers[name] for name, _ in of_way["swapped"]}
    assert all(answers[name].startswith(answer) and answers[name] != answer for name, answer in of_way["cut"])
    assert all(answer in harder.BOILERPLATE for _, answer in of_way["boilerplate"])


def test_near_copies_have_one_answer(data: Path, tmp_path: Path) -> None:
    (pool,) = (pool for pool in pools.write_pools(data, tmp_path) if pool.name == "redundant")
    of_original: dict[str, list[dict[str, str]]] = defaultdict(list)
    for record in pool.records("pool"):
        of_original[record["id"].split("~")[0]].append(record)
    for copies in of_original.values():
        assert len({record["prompt"] for record in copies}) == 3
        assert len({record["response"] for record in copies}) == 1


def test_what_may_not_be_chosen(data: Path, tmp_path: Path) -> None:
    made = {pool.name: pool for pool in pools.write_pools(data, tmp_path)}
    for name, sound in (("spoiled-40", 60), ("spoiled-20", 80), ("redundant", 34)):
        ids = [record["id"] for record in made[name].records("pool")]
        kept = peers.originals(made[name])
        assert len(kept) == sound
        assert sorted([*kept, *scored.left_out(made[name], variants.TOLD, seed=0)]) == sorted(ids)
    drawn = [scored.left_out(made["p3"], variants.THINNED, seed) for seed in (0, 1, 0)]
    assert [len({*ids}) for ids in drawn] == [50, 50, 50]
    assert drawn[0] == drawn[2] != drawn[1]


# ---- plan and results


@pytest.mark.parametrize("quick", [True, False])
def test_no_run_is_planned_twice(quick: bool) -> None:
    names = [run.name for run in runs.plan(quick=quick)]
    assert len(set(names)) == len(names)


def test_every_comparison_has_random_runs() -> None:
    planned = runs.plan()
    for run in planned:
        if run.variant is not None:
            same = {"stage": run.stage, "pool": run.pool, "size": run.size, "method": "random"}
            assert any(all(getattr(r, k) == v for k, v in same.items()) for r in planned)


def test_as_long_means_as_many_steps_as_everything_takes() -> None:
    plain, long = (runs.Run(stage, "p3", "random", "30%", 0, 0) for stage in ("instruction", "as-long"))
    everything = runs.Run("as-long", "p3", "all", "100%", 0, 0)
    assert (plain.epochs, long.epochs, everything.epochs) == (3, 10, 3)
    assert runs.Run("as-long", "p3", "nothing", "0%", 0, 0).epochs == 3
    assert runs.key(plain, ["a"]) != runs.key(long, ["a"])  # what one was tested as is not the other's
    assert runs.key(everything, ["a"]) == runs.key(replace(everything, stage="instruction"), ["a"])
    assert {v.name for v in variants.AS_LONG if "p3" in (v.pools or ("p3",))} == {"random", "topm-both"}
    planned = {run.method for run in runs.plan() if (run.stage, run.pool) == ("as-long", "p3")}
    assert planned == {"nothing", "all", "random", "topm-both"}


def test_random_choices_are_made_anew_for_each_seed_and_others_once() -> None:
    for run in runs.plan():
        chance = run.variant is not None and run.variant.chance
        assert run.selection_seed == (run.training_seed if chance else 0)


def test_every_first_seed_comes_before_any_second_of_the_same_comparison() -> None:
    chance = {v.name for _, compared in variants.STAGES.values() for v in compared if v.chance}
    planned = [r for r in runs.plan() if r.method not in (*variants.EXTREMES, *chance)]
    first_second = next(at for at, run in enumerate(planned) if run.training_seed == 1)
    late = [run for run in planned[first_second:] if run.training_seed == 0]
    assert not [run for run in late if run.variant is not None and run.variant.part == 0]


class Tuner:
    """Stands where training would be: counts what it is asked for, and stops after some runs like a user."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def __call__(self, run: Run, chosen: list[str]) -> dict[str, Any]:
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(run.name)
        loss = [1.0 + len(chosen), 2.0]
        return {
            "seconds": 1.0,
            "heldout": {"loss": loss, "tokens": [1, 2], "exact": [True, False], "tasks": ["a", "b"]},
        }


def choose(run: Run) -> list[str]:
    """Two methods that choose the same records, in another order."""
    chosen = {"fl": ["a", "b"], "topm": ["b", "a"], "nothing": []}
    return chosen.get(run.method, [run.method, str(run.selection_seed)])


def test_a_stopped_suite_goes_on_where_it_was(tmp_path: Path) -> None:
    planned, path = runs.plan(quick=True), tmp_path / "results.jsonl"
    tuner = Tuner(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        runs.carry_out(planned, path, choose=choose, tune=tuner, report=str)
    assert len(runs.read_results(path)) >= 3
    later = Tuner()
    assert runs.carry_out(planned, path, choose=choose, tune=later, report=str)
    assert not set(tuner.asked) & set(later.asked)
    assert [line["name"] for line in runs.read_results(path)] == [run.name for run in planned]
    idle = Tuner()
    assert runs.carry_out(planned, path, choose=choose, tune=idle, report=str)
    assert not idle.asked


def test_the_same_subset_is_not_trained_on_twice(tmp_path: Path) -> None:
    planned, tuner, path = runs.plan(quick=True), Tuner(), tmp_path / "results.jsonl"
    runs.carry_out(planned, path, choose=choose, tune=tuner, report=str)
    lines = {(line["method"], line["training_seed"]): line for line in runs.read_results(path)}
    pair = [lines["fl", 0], lines["topm", 0]]
    assert sum(line["name"] in tuner.asked for line in pair) == 1
    assert pair[0]["measured"]["heldout"] == pair[1]["measured"]["heldout"]
    assert {line["measured"].get("same_as") for line in pair} > {None}


def test_a_run_is_the_same_only_with_its_start_and_seed() -> None:
    continual = Run("continual", "p3", "fl", "30%", 0, 0)
    later = Run("instruction", "p3", "fl", "30%", 0, 1)
    assert len({runs.key(run, ["a"]) for run in (RUN, continual, later)}) == 3
    assert runs.key(RUN, ["a", "b"]) == runs.key(RUN, ["b", "a"]) != runs.key(RUN, ["a"])
    assert runs.key(RUN, []) == runs.key(later, [])  # nothing learnt: no seed matters


def test_what_is_tested_on_other_records_is_another_run() -> None:
    fresh = replace(RUN, stage="fresh")
    assert runs.key(fresh, ["a"]) != runs.key(RUN, ["a"])
    assert fresh.tested == ("heldout-fresh",)
    assert RUN.tested == ("heldout",)


def test_records_tested_again_are_of_choices_that_are_there() -> None:
    planned = runs.plan()
    there = {(run.pool, run.method, run.size, run.selection_seed) for run in planned if run.stage != "fresh"}
    again = {(run.pool, run.method, run.size, run.selection_seed) for run in planned if run.stage == "fresh"}
    assert again
    assert again <= there


def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    runs.append_result(path, {"name": "one"})
    path.write_bytes(path.read_bytes() + b'{"name": "tw')
    assert runs.read_results(path) == [{"name": "one"}]
    runs.append_result(path, {"name": "two"})
    assert runs.read_results(path) == [{"name": "one"}, {"name": "two"}]


def test_lines_are_read_as_they_were_before_they_were_packed(tmp_path: Path) -> None:
    def line(name: str, chosen: list[str], right: list[bool], **more: Any) -> dict[str, Any]:
        tested = {"loss": [1.5, 2.0], "tokens": [3, 4], "exact": right}
        return {"name": name, "pool": "p3", "chosen": chosen, "measured": {"heldout": tested, **more}}

    every = line("all", ["a", "b", "c"], [True, False])
    given = [
        line("none", [], [False, False]),
        every,
        line("two", ["c", "a"], [True, True], **{"heldout-existing": {"loss": [1.0], "tokens": [5], "exact": [False]}}),
        line("of another pool", ["x"], [True, True]) | {"pool": "p4"},
        line("strange", ["a", "x"], [False, True]),
        {**every, "name": "again", "measured": {**every["measured"], "same_as": "all"}},
        {**every, "name": "all"},  # in another precision, say
        {"tenth": 3, "chosen": ["a"]},
    ]
    path = tmp_path / "results.jsonl"
    for one in given:
        runs.append_result(path, one)
    assert runs.read_results(path) == given
    written = [json.loads(text) for text in path.read_text().splitlines()]
    assert written[1]["measured"]["heldout"] == {"loss": [1.5, 2.0], "tokens": "none", "exact": "10"}
    assert written[2]["chosen"] == {"of": "all", "places": [2, 0]}
    assert written[3]["chosen"] == ["x"]
    assert written[4]["chosen"] == ["a", "x"]
    assert written[5]["measured"]["heldout"] == "all"


def test_what_was_trained_in_another_precision_is_done_again(tmp_path: Path) -> None:
    planned, path = runs.plan(quick=True), tmp_path / "results.jsonl"
    for precision, count in (("bfloat16", 1), ("float32", 2), ("bfloat16", 2)):
        tuner = Tuner()

        def tune(run: Run, chosen: list[str], tuner: Tuner = tuner, precision: str = precision) -> dict[str, Any]:
            return {**tuner(run, chosen), "versions": {"precision": precision}}

        runs.carry_out(planned, path, choose=choose, tune=tune, precision=precision, report=str)
        assert len(runs.read_results(path)) == count * len(planned)
    assert not tuner.asked


def test_no_run_starts_after_the_deadline(tmp_path: Path) -> None:
    tuner, path = Tuner(), tmp_path / "results.jsonl"
    late = time.monotonic() - 1
    assert not runs.carry_out(runs.plan(), path, choose=choose, tune=tuner, deadline=late, report=str)
    assert not tuner.asked


# ---- statistics


def test_ranks_share_ties() -> None:
    assert stats.ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert stats.rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert stats.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert np.isnan(stats.rank_correlation([1, 1], [1, 2]))


def test_the_difference_is_per_token_not_per_record() -> None:
    tokens = np.array([1.0, 9.0])
    found = stats.difference(np.array([[2.0, 9.0]]), np.array([[1.0, 9.0]]), tokens)
    assert found.value == pytest.approx(0.1)
    assert stats.per_token(np.array([[2.0, 9.0], [4.0, 9.0]]), tokens) == pytest.approx(1.2)


def test_a_difference_that_every_record_has_has_no_interval() -> None:
    tokens = np.full(30, 2.0)
    found = stats.difference(np.full((3, 30), 2.0), np.full((2, 30), 3.0), tokens)
    assert tuple(found) == pytest.approx((-0.5, -0.5, -0.5))


def test_the_interval_is_as_wide_as_sampling_makes_it() -> None:
    rng = np.random.default_rng(0)
    records = 400
    losses = rng.normal(1.0, 1.0, (1, records))
    found = stats.difference(losses, np.zeros((1, records)), np.ones(records))
    expected = 1.96 * losses.std() / records**0.5
    assert found.high - found.value == pytest.approx(expected, rel=0.1)
    assert found.value - found.low == pytest.approx(expected, rel=0.1)


def test_runs_that_differ_widen_the_interval() -> None:
    tokens = np.ones(50)
    others = np.repeat([[0.0], [1.0], [2.0], [3.0]], 50, axis=1)
    found = stats.difference(np.full((1, 50), 1.5), others, tokens)
    assert found.value == pytest.approx(0.0)
    assert found.low < -0.5 < 0.5 < found.high


# ---- report


def lines(stage: str = "instruction", pool: str = "p3") -> Iterator[dict[str, Any]]:
    """Losses per token of 3.0 without training, 2.0 at random, 1.5 by facility location, 1.0 with everything."""
    levels = {"nothing": 3.0, "random": 2.0, "fl": 1.5, "all": 1.0}
    sizes = {"nothing": "0%", "all": "100%"}
    for method, level in levels.items():
        for seed in range(2 if method == "random" else 1):
            run = Run(stage, pool, method, sizes.get(method, "30%"), seed, seed)  # type: ignore[arg-type]
            tested = {
                "loss": [2 * level + 0.1 * seed] * 10,
                "tokens": [2] * 10,
                "exact": [True] * 4 + [False] * 6,
                "tasks": ["gsm8k", "p3"] * 5,
            }
            measured = {"seconds": 36.0, **dict.fromkeys(run.tested, tested)}
            yield {"name": run.name, **vars(run), "measured": measured}


PLACE = report.Place("instruction", "p3", "30%", "held-out records")


def test_rows_say_what_the_results_say() -> None:
    found = {row.method: row for row in report.tables(list(lines()))[PLACE]}
    assert list(found) == ["nothing", "random", "fl", "all"]
    assert found["random"].by_token.loss == pytest.approx(2.025)
    assert found["random"].runs == 2
    assert found["random"].by_token.difference is None
    assert found["fl"].by_token.difference is not None
    assert found["fl"].by_token.difference.value == pytest.approx(-0.525)
    assert found["fl"].by_token.closed == pytest.approx(0.525 / 1.025)
    assert found["fl"].exact == pytest.approx(0.4)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test asks for many intervals and not how far they reach."""
    monkeypatch.setattr(stats, "RESAMPLES", 400)


def default_of(results: list[dict[str, Any]]) -> list[str]:
    """The lines of the table of the default."""
    table, _ = report._default(results, report.tables(results), None)
    return table.splitlines()[4:]


@pytest.mark.usefixtures("few_resamples")
def test_the_default_has_a_line_for_each_pool() -> None:
    results = [*lines("chance"), *lines("chance", "redundant"), *lines("large", "p3-1000"), *lines("instruction")]
    names = {"p3": "topm-both-thinned-last", "redundant": "topm-both-unlike-last", "p3-1000": "fl-both-unlike-last"}
    for line in results:
        line["method"] = names[line["pool"]] if line["method"] == "fl" else line["method"]
    assert {*names.values()} <= {*variants.DEFAULT}
    told = default_of(results)
    assert [line.split(" | ")[:3] for line in told] == [[f"| {pool} 30%", "1", "2"] for pool in names]
    assert all("**-0.525 (" in line and "| 51% |" in line for line in told)
    assert all(line.endswith("| 1 / 1 | 0 / 0 |") for line in told)
    again = [{**line, "method": names["p3"] if line["method"] == "fl" else line["method"]} for line in lines("fresh")]
    assert default_of([*results, *again])[-1].startswith("| p3 30%, other records | 1 | 2 | **-0.525 (")
    # of p3 what is chosen several times counts
    once = {**results[3], "method": "topm-both-unlike-last", "name": "another"}
    assert default_of([*results, once]) == told
    assert list(report._default(list(lines()), report.tables(list(lines())), None)) == []


def test_what_chance_would_reach() -> None:
    assert stats.best_of(1) == pytest.approx(0.0, abs=1e-3)
    assert stats.best_of(2) == pytest.approx(math.pi**-0.5, abs=1e-3)
    drawn = np.random.default_rng(0).standard_normal((20_000, 200)).max(axis=1).mean()
    assert stats.best_of(200) == pytest.approx(drawn, abs=0.02)
    results = list(lines())
    assert not report._chance(results, report.tables(results))  # two draws
    run = Run("instruction", "p3", "random", "30%", 2, 2)
    third = {**results[2], "name": run.name, **vars(run)}
    third["measured"] = {**third["measured"], "heldout": {**third["measured"]["heldout"], "loss": [4.4] * 10}}
    deep = Run("instruction", "p3", "topm-both", "30%", 0, 0)
    results += [third, {**results[3], "name": deep.name, **vars(deep)}]
    told = report._chance(results, report.tables(results)).splitlines()[-1]
    spread = np.std([2.0, 2.05, 2.2], ddof=1)
    assert told.startswith(f"| p3 30% | 3 | {spread:.3f} | {-stats.best_of(200) * spread:+.3f} | **-0.583** |")


@pytest.mark.parametrize("lasting", [True, False])
def test_the_best_by_half_of_the_records_is_worth_what_lasts(lasting: bool) -> None:
    """Subsets differ on all records alike, or by chance on each: the best is ahead, and elsewhere only if alike."""
    rng = np.random.default_rng(0)
    plain = list(lines("chance", "redundant"))
    first = next(line for line in plain if line["method"] == "random")
    results = [line for line in plain if line["method"] != "random"]
    for seed in range(40):
        level = 4.0 - (0.02 * seed if lasting else 0.0)
        noise = np.zeros(10) if lasting else rng.normal(0, 0.5, 10)
        run = Run("chance", "redundant", "random", "30%", seed, seed)
        tested = {**first["measured"]["heldout"], "loss": (level + noise).tolist()}
        results.append({"name": run.name, **vars(run), "measured": {**first["measured"], "heldout": tested}})
    few = results[: 2 + report.SPLITTABLE]
    assert not report._drawn(few, report.tables(few))
    told = report._drawn(results, report.tables(results))
    by_record, by_token = (line.split(" | ") for line in told.splitlines()[-2:])
    assert by_record[:2] == ["| redundant 30%, by record", "40"]
    assert by_token[1:] == by_record[1:]  # all responses are two tokens long
    best, half = float(by_record[3]), float(by_record[5])
    if lasting:
        assert best == half == pytest.approx(-0.195, abs=6e-4)
        assert by_record[4] == f"{0.195 / 0.805:.0%}"  # everything has 1.0, their mean 1.805
    else:
        assert best < -0.1
        assert half > best / 2


def test_long_responses_count_for_more_by_tokens_and_alike_by_records() -> None:
    results = list(lines())
    for line in results:
        tested = line["measured"]["heldout"]
        tested["tokens"] = [18] + [2] * 9
        if line["method"] == "fl":
            tested["loss"] = [18 * 5.0] + [2 * 1.0] * 9
    found = {row.method: row for row in report.tables(results)[PLACE]}
    assert found["fl"].by_token.loss == pytest.approx(3.0)
    assert found["fl"].by_record.loss == pytest.approx(1.4)


@pytest.mark.usefixtures("few_resamples")
def test_the_report_is_complete_and_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    results = [*lines(), *lines("task-specific", "gsm8k-p3"), *lines("continual", "instruct-code")]
    evaluated = [
        {"pool": "p3", "size": "30%", "method": line["method"], "selection_seed": line["selection_seed"], "loss": at}
        for at, line in enumerate(lines())
        if line["size"] == "30%"
    ]
    path = tmp_path / "EVIDENCE.md"
    report.write_report(results, evaluated, path, None)
    text = path.read_text()
    assert "| fl | 1 | 1.500 | **-0.525 (" in text
    assert "## task-specific tuning, gsm8k-p3 30%: held-out records of the target's task" in text
    assert "## continual tuning, instruct-code 30%: held-out records of the old data" in text
    assert "| p3 | 30% | 3 | -0.50 | -0.50 |" in text
    path.write_text(text.replace(f"{report.OPENING}\n", f"{report.OPENING}\nA remark.\n"))
    report.write_report(results[:5], [], path, None)
    assert path.read_text().count("A remark.") == 1
    path.write_text(path.read_text() + "\n## Suspects\n\nOf another benchmark.\n")
    report.write_report(results[:5], [], path, None)
    assert path.read_text().endswith("\n\n## Suspects\n\nOf another benchmark.\n")
    again = path.read_bytes()
    report.write_report(results[:5], [], path, None)
    assert path.read_bytes() == again


def test_what_was_trained_in_another_precision_is_compared_with_its_own_kind() -> None:
    other = [
        {**line, "measured": {**line["measured"], "versions": {"precision": "float32"}}}
        for line in lines()
        if line["method"] != "all"
    ]
    for line in other:
        tested = line["measured"]["heldout"]
        line["measured"] = {**line["measured"], "heldout": {**tested, "loss": [loss - 1 for loss in tested["loss"]]}}
    found = report.tables([*lines(), *other])
    assert list(found) == [PLACE, PLACE._replace(precision="float32")]
    bfloat, single = ({row.method: row for row in rows} for rows in found.values())
    assert single["random"].by_token.loss == pytest.approx(bfloat["random"].by_token.loss - 0.5)
    differences = [side["fl"].by_token.difference for side in (single, bfloat)]
    assert differences[0] == pytest.approx(differences[1])
    assert single["fl"].by_token.closed is None  # nothing was trained on everything


def compared() -> list[plot.Compared]:
    """Of one pool the choice is beyond the random subsets by record, of another behind them."""
    drawn = np.linspace(-0.2, 0.2, 5)
    better, worse = (plot.Way(drawn, Interval(share, share + 0.1, share - 0.1)) for share in (0.3, -0.3))
    return [plot.Compared("p3 30%", better, worse), plot.Compared("gsm8k-p3 30%", worse, better)]


def test_the_plot_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        plot.draw(compared(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"</svg>" in (tmp_path / "a.svg").read_bytes()


def test_dots_stand_beside_their_names_and_green_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    plot.draw(compared(), tmp_path / "plot.svg")
    axes = pyplot.gcf().axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["p3 30%", "gsm8k-p3 30%"]
    for axis, shares in zip(axes, ((0.3, -0.3), (-0.3, 0.3)), strict=True):
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(shares[0], 0), (shares[1], 1)]
        assert [dot.get_color() == plot.BETTER for dot in dots] == [share > 0 for share in shares]


def test_shares_of_the_way_are_what_the_table_has(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    default = variants.DEFAULT[0]
    results = [{**line, "method": line["method"].replace("fl", default)} for line in lines("chance")]
    found = report.tables(results)
    (rows,) = found.values()
    row = next(row for row in rows if row.method == default)
    table, _, picture = report._default(results, found, tmp_path / "plot.svg")
    assert f"| {row.by_record.closed:.0%} |" in table
    assert "plot.svg" in picture
    (drawn,) = report._on_the_way(next(iter(found)), default, report._cells(results, next(iter(found))))
    assert drawn.by_record.chosen.value == pytest.approx(row.by_record.closed)
    assert drawn.by_token.chosen.value == pytest.approx(row.by_token.closed)
    assert drawn.by_token.drawn.mean() == pytest.approx(0)


# ---- training


def test_training_lowers_the_loss_and_can_be_repeated(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from tests.evidence.lora import Tokens, Tuner

    gguf = write_model(tmp_path / "tiny.gguf")
    vocabulary = ModelFile(gguf).vocabulary
    records = [
        Tokens(
            vocabulary.tokenize(f"the same start, say {word}", special=False), vocabulary.tokenize(word, special=False)
        )
        for word in ("cat", "dog and sun", "moon tree", "river", "stone")
    ]
    tuner = Tuner(gguf, threads=1)
    before = tuner.test(records)
    assert before.loss == pytest.approx([tuner.test([record]).loss[0] for record in records], rel=0.02)
    losses = []
    for _ in range(2):
        tuner.reset(3)
        assert tuner.test(records) == before
        took = tuner.train(records, seed=3, epochs=6, rate=1e-2)
        losses.append(tuner.test(records).loss)
    assert took.steps == 6
    assert losses[0] == losses[1]
    assert sum(losses[0]) < 0.9 * sum(before.loss)
