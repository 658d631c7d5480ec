"""Anchors: records that stand for a pool, from the choice of them to a selection over what they are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plain_greedy
import pytest
from tiny_runs import delift, pairs, score

from delift_cli.budget import sample
from delift_cli.budget.anchors import choose_anchors
from delift_cli.cache.sparse import open_cache
from delift_cli.report.pool import Pool, Wanted
from delift_cli.report.sections import measured
from delift_cli.selection.blocks import Block, KernelOptions, as_block, kernels, objective_over
from delift_cli.selection.run import select_records
from delift_cli.submodular.objectives import value
from delift_cli.submodular.sweeps import similarities


def test_each_task_has_its_anchors_and_weights_add_up() -> None:
    task = np.repeat([0, 1, 2, 3], [30, 15, 10, 5])
    words = [["cat sat on a mat", "sun in the sky", "integral of cosine", "bonjour le monde"][t] for t in task]
    prompts = [f"{text} {text} number {at}" for at, text in enumerate(words)]
    chosen = choose_anchors((prompts, words), None, 8)
    assert len(np.unique(chosen.places)) == 8
    assert set(task[chosen.places]) == {0, 1, 2, 3}
    assert chosen.weights.sum() == pytest.approx(60)
    stand_for = np.bincount(task[chosen.places], chosen.weights)
    np.testing.assert_allclose(stand_for, [30, 15, 10, 5])
    again = choose_anchors((prompts, words), None, 8)
    assert again.places.tolist() == chosen.places.tolist()
    named = choose_anchors((prompts, words), None, 2, named=[40, 2])
    assert named.places.tolist() == [2, 40]
    assert named.weights[0] >= 30


def test_copies_can_all_be_anchors() -> None:
    chosen = choose_anchors((["same"] * 6, ["text"] * 6), None, 3)
    assert len(chosen.places) == 3
    assert chosen.weights.sum() == pytest.approx(6)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of 14 records before 5 of them, beside its records."""
    folder = tmp_path_factory.mktemp("anchors")
    (folder / "pool.jsonl").write_bytes(pairs(*range(14)))
    run = score(folder / "pool.jsonl", "-o", folder / "pool.delift", "--anchors", "5", "--json")
    assert run.code == 0, run
    return folder / "pool.delift"


def test_columns_are_those_of_the_whole_block(pool: Path) -> None:
    cache = open_cache(pool)
    assert cache.shape == (14, 5)
    whole = pool.with_name("whole.delift")
    assert score(pool.with_name("pool.jsonl"), "-o", whole).code == 0
    ids = [record.id for record in cache.examples().records]
    places = [ids.index(record.id) for record in cache.targets().records]
    np.testing.assert_allclose(cache.distance, open_cache(whole).distance[:, places], atol=2e-3)


def test_select_weighs_anchors_and_leaves_self_pairs_out(pool: Path) -> None:
    cache = open_cache(pool)
    weights = np.array(cache.manifest["anchors"]["weights"])
    assert weights.sum() == pytest.approx(14)
    objective, block = objective_over(Block(cache), None, None, "fl", KernelOptions())
    s = similarities(kernels([block], KernelOptions())[0])
    own = [
        (j, i) for j, one in enumerate(block.examples) for i, other in enumerate(block.targets) if one.id == other.id
    ]
    assert len(own) == 5
    assert not any(s[pair] for pair in own)

    def f(A: list[int]) -> float:
        return float((s[A].max(axis=0, initial=0.0) * weights).sum())

    assert value(objective, [1, 5]) == pytest.approx(f([1, 5]))
    chosen = delift(
        "select", pool, "-k", 4, "--objective", "fl", "--count", "records", "--stop-at-zero", "--ids-only", "-q"
    )
    indices, _ = plain_greedy.plain_greedy(f, 14, 4)
    assert chosen.out.decode().split() == [block.examples[j].id for j in indices]
    told = delift("select", pool, "-k", 4, "--json", "-o", pool.with_name("subset.jsonl")).json
    assert told["objective"] == "topm"
    assert told["anchors"] == 5
    by_tokens, _ = objective_over(Block(cache), None, None, "fl", KernelOptions(), count="tokens")
    tokens = cache.response_tokens / cache.response_tokens.mean()
    assert value(by_tokens, [1, 5]) == pytest.approx((s[[1, 5]].max(axis=0) * weights * tokens).sum())


def test_explain_names_the_anchors_that_a_record_covers(pool: Path) -> None:
    cache = open_cache(pool)
    utility = cache.base_distance.astype(np.float64) - cache.distance
    examples, anchors = ([record.id for record in side.records] for side in (cache.examples(), cache.targets()))
    covers = {}
    for name in delift("select", pool, "-k", 4, "--ids-only", "-q").out.decode().split():
        for entry in delift("explain", pool, name, "-k", 4, "--json").json["covers"]:
            covers[entry["id"]] = entry["similarity"]
            by_hand = utility[examples.index(name), anchors.index(entry["id"])]
            assert entry["similarity"] == pytest.approx(by_hand, abs=1e-6)
    assert covers


def test_a_report_values_what_select_does(pool: Path) -> None:
    subset = select_records(pool, 4)
    reported = Pool(as_block(open_cache(pool)), None, Wanted(k="4"))
    assert reported.goal.name == "topm"
    assert reported.whole == pytest.approx(subset.whole)
    (chosen,) = reported.subsets
    assert chosen.places.tolist() == subset.selection.indices.tolist()
    assert chosen.value_at(4) == pytest.approx(subset.selection.value)
    facts = dict(measured(reported).facts)
    assert facts["records"].endswith("scored against 5 of them that stand for all, so that values are estimates")


def test_a_run_goes_on_with_the_anchors_that_it_has(pool: Path) -> None:
    before = open_cache(pool).manifest["anchors"]
    with open(pool.with_name("pool.jsonl"), "ab") as file:
        file.write(pairs(20, 21))
    run = score(pool.with_name("pool.jsonl"), "-o", pool, "--anchors", "5")
    assert run.code == 0, run
    assert "not for those that are new" in run.err
    grown = open_cache(pool)
    assert grown.shape == (16, 5)
    assert grown.complete
    assert grown.manifest["anchors"] == before
    assert "keeps" not in run.err


def test_other_anchors_than_a_cache_has_are_not_taken_in_silence(pool: Path, tmp_path: Path) -> None:
    records, cache = pool.with_name("pool.jsonl"), open_cache(pool)
    ids = [record.id for record in cache.targets().records]
    for name, named in (("same", ids[::-1]), ("others", [*ids[1:], "r20"])):
        (tmp_path / name).write_text("\n".join(named))
    for asked, noted in (("7", True), ("5", False), (tmp_path / "others", True), (tmp_path / "same", False)):
        run = score(records, "-o", pool, "--anchors", asked)
        assert run.code == 0, run
        assert (f"keeps the 5 anchors that it was begun with, whatever --anchors {asked}" in run.err) == noted


def test_a_forecast_from_a_sample_finds_the_anchors_again(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "FORECAST_FROM", 4)
    run = score(pool.with_name("pool.jsonl"), "-o", pool, "--anchors", "5", "--dry-run", "--json")
    assert run.code == 0, run
    assert (run.json["pairs"], run.json["pairs_all"]) == (0, 16 * 5)  # all of them are there


def test_what_does_not_go_together_is_refused(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_bytes(pairs(*range(6)))
    source = tmp_path / "pool.jsonl"
    for options in (("--targets", source), ("--budget", "50%")):
        assert "--anchors" in score(source, "-o", tmp_path / "x", "--anchors", "2", *options).refusal()
    for asked in ("0", "6", "200%", str(tmp_path / "none")):
        assert score(source, "-o", tmp_path / "x", "--anchors", asked).refusal()
