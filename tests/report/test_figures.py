"""What a report computes, against plain NumPy: who helps whom, findings, places in the plane, values of prefixes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from report_runs import plain_pool, sparse_cache

from delift_cli.cache.dense import Cache
from delift_cli.cache.figures import utilities as inspected
from delift_cli.cache.sparse import open_cache
from delift_cli.data.ngrams import grams
from delift_cli.data.record import copy_groups
from delift_cli.errors import InputError
from delift_cli.report import choices, findings, placement, reach
from delift_cli.report.pool import Pool, Wanted
from delift_cli.report.sections import chosen, worth
from delift_cli.selection.blocks import Block, KernelOptions, PartialBlock
from delift_cli.selection.reasons import explain_record
from delift_cli.submodular.kernel import dense_kernel
from delift_cli.submodular.objectives import make_objective

SIZE = 23


def utilities(cache: Cache, utility: str) -> np.ndarray:
    if utility == "euclidean":
        return np.array(cache.base_distance - cache.distance)
    return np.array(cache.logprob - cache.base_logprob)


def check_ends(ends: reach.Ends, rows: np.ndarray) -> None:
    for other, utility, row in zip(ends.other, ends.utility, rows, strict=True):
        known = np.flatnonzero(~np.isnan(row))
        best = known[np.argsort(-row[known], kind="stable")][: reach.KEPT]
        assert other[other >= 0].tolist() == best.tolist()
        np.testing.assert_allclose(utility[other >= 0], row[best])


@pytest.mark.parametrize("utility", ["euclidean", "pmi"])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 24])
def test_reach(tmp_path: Path, utility: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "CHUNK", chunk)
    data = plain_pool(SIZE - 1) + tiny_runs.jsonl([{**tiny_runs.pair(4), "id": "a copy"}])
    cache = Cache(tiny_runs.make_cache(tmp_path / "c", data))
    key = copy_groups(cache.examples().records).astype(np.int64)
    assert len(np.unique(key)) == SIZE - 1
    found = reach.reach(cache, key, key, utility)
    value = utilities(cache, utility)
    value[key[:, None] == key[None]] = np.nan
    np.testing.assert_allclose(found.mean, np.nanmean(value, 1), rtol=1e-5)
    np.testing.assert_allclose(found.received, np.nanmean(value, 0), rtol=1e-5)
    np.testing.assert_allclose(found.harmful, (value < 0).sum(1) / (~np.isnan(value)).sum(1), rtol=1e-6)
    np.testing.assert_allclose(found.covered, np.nanmax(value, 0))
    check_ends(found.helped, value)
    check_ends(found.helpers, value.T)
    check_ends(reach.Ends(found.harmed.other, -found.harmed.utility), -value)


@pytest.mark.parametrize("kind", ["all pairs", "some pairs", "by a target set"])
def test_inspect_and_a_report_say_the_same_of_utilities(tmp_path: Path, kind: str) -> None:
    """A record before itself or a copy does not count, whoever else shares an answer, and every other pair alike."""
    shared = [{**tiny_runs.pair(number), "response": "I am sorry, I cannot help you with that."} for number in (70, 71)]
    data = plain_pool(SIZE - 3) + tiny_runs.jsonl([{**tiny_runs.pair(4), "id": "a copy"}, *shared])
    if kind == "some pairs":
        block = PartialBlock(open_cache(sparse_cache(tmp_path / "c", data, per_example=7)))  # type: ignore[arg-type]
    else:
        targets = None if kind == "all pairs" else tiny_runs.pairs(4, 60, 61)  # one is a record of the pool
        block = Block(Cache(tiny_runs.make_cache(tmp_path / "c", data, targets)))  # type: ignore[assignment]
    records = [*block.examples, *([] if block.cache.square else block.targets)]
    key = copy_groups(records).astype(np.int64)
    example_key, target_key = key[:SIZE], key[-block.cache.shape[1] :]
    value = np.full(block.cache.shape, np.nan)
    for example, own, distance in block.cache.measured():
        value[example, own] = block.cache.base_distance[own].astype(float) - distance
    value[example_key[:, None] == target_key[None]] = np.nan
    found = inspected(block.cache)
    assert found.mean == pytest.approx(np.nanmean(value))
    assert found.harmful == pytest.approx((value < 0).sum() / np.isfinite(value).sum())
    np.testing.assert_allclose(found.examples, np.nanmean(value, 1))
    options = KernelOptions(self_utility="exclude-answers", estimates="off")
    reported = Pool(block, None, Wanted(options=options)).reach_of_all
    assert reported.mean_of_pairs == pytest.approx(found.mean, abs=1e-6)
    assert reported.harmful_share == pytest.approx(found.harmful)


def test_reach_of_some_pairs(tmp_path: Path) -> None:
    cache = open_cache(sparse_cache(tmp_path / "c", plain_pool(30), per_example=7))
    key = np.arange(30)
    found = reach.reach(cache, key, key, "euclidean")
    pairs = cache.pairs()
    value = np.full((30, 30), np.nan, np.float32)
    value[pairs.example, pairs.target] = cache.base_distance[pairs.target] - pairs.distance
    np.fill_diagonal(value, np.nan)
    assert found.pairs.tolist() == (~np.isnan(value)).sum(1).tolist()
    assert found.offered.tolist() == (~np.isnan(value)).sum(0).tolist()
    np.testing.assert_allclose(found.mean, np.nanmean(value, 1), rtol=1e-5)
    check_ends(found.helped, value)
    check_ends(found.helpers, value.T)


def test_findings() -> None:
    def ends(best: list[float]) -> reach.Ends:
        utility = np.array([[value] + [np.nan] * (reach.KEPT - 1) for value in best], np.float32)
        return reach.Ends(np.where(np.isnan(utility), -1, 0).astype(np.int32), utility)

    nan, none = np.nan, np.zeros(4, np.int64)
    mean = np.array([0.1, -0.2, nan, -0.1], np.float32)
    helpers, helped = ends([0.5, -0.1, nan, 0.2]), ends([0.4, 0.1, 0.3, 0.2])
    found = reach.Reach(mean, mean, none, mean, none, helped, helped, helpers)
    assert findings.harmful(found).tolist() == [1, 3]
    assert findings.uncovered(found).tolist() == [1]
    score = findings.apart(found)
    np.testing.assert_allclose(score, [0, 1, nan, 1 - (1 / 3 + 1 / 2) / 2], rtol=1e-6)
    assert findings.outliers(score).tolist() == [1]


def test_classes_of_length() -> None:
    which, names = findings.length_classes(np.array([3, 3, 3, 9, 20, 21, 22, 80, 81, 5000], np.int32))
    assert which.tolist() == [0, 0, 0, 0, 0, 1, 2, 2, 3, 3]
    assert names == ["3 to 20 tokens", "21 tokens", "22 to 80 tokens", "81 to 5,000 tokens"]
    which, names = findings.length_classes(np.full(5, 7, np.int32))
    assert which.tolist() == [0] * 5
    assert names == ["7 tokens"]


def test_rank_correlation() -> None:
    a = np.array([1, 5, 2, np.nan, 9], np.float32)
    assert findings.rank_correlation(a, a**3) == pytest.approx(1)
    assert findings.rank_correlation(a, -a) == pytest.approx(-1)
    assert np.isnan(findings.rank_correlation(a, np.ones(5, np.float32)))


@pytest.mark.parametrize("shape", [(40, 60), (60, 7), (5, 2), (3, 1), (1, 4)])
def test_the_plane_holds_what_the_first_two_components_hold(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(shape[0], 3)) @ rng.normal(size=(3, shape[1])) * 3 + rng.normal(size=shape)).astype(
        np.float32
    )
    placed, share = placement.principal_plane(lambda a, b: matrix[a:b], shape)
    centred = matrix - matrix.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(2, len(s))
    expected = (s[:2] ** 2).sum() / max((s**2).sum(), 1e-12)
    assert share == pytest.approx(expected if shape[0] > 1 else 0, abs=1e-3)
    np.testing.assert_allclose(np.abs(placed[:, :kept]), np.abs((u * s)[:, :kept]), atol=0.02 * max(1, s[0]))
    again, _ = placement.principal_plane(lambda a, b: matrix[a:b], shape)
    np.testing.assert_array_equal(placed, again)
    assert (placed[np.abs(placed).argmax(0), [0, 1]] >= 0).all()


def test_points_of_texts_keep_their_cosines() -> None:
    texts = ["the cat sat on the mat", "the cat sat on a mat", "quite another text altogether", ""] * 3
    vectors = grams(texts, texts)
    points = placement.text_points(vectors, width=4096)
    dense = np.zeros((len(texts), int(vectors.ids.max()) + 1), np.float32)
    for row in range(len(texts)):
        at = slice(vectors.indptr[row], vectors.indptr[row + 1])
        dense[row, vectors.ids[at]] = vectors.weights[at]
    np.testing.assert_allclose(points @ points.T, dense @ dense.T, atol=0.08)


def test_a_choice_against_its_definition(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    similarity = rng.random((SIZE, SIZE)).astype(np.float32) * (rng.random((SIZE, SIZE)) < 0.4)
    goal = make_objective("fl", dense_kernel(similarity))
    records = tiny_runs.records(plain_pool(SIZE)).records
    (tmp_path / "ids.txt").write_text("r9\nr2\nr17\nr5\n")
    places, missing = choices.read_places(tmp_path / "ids.txt", records, {})
    assert missing == 0
    found = choices.given("ids.txt", places, missing, choices.Valued(goal))
    assert found.places.tolist() == [9, 2, 17, 5]
    own = similarity[found.places]
    np.testing.assert_allclose(found.curve[:4], [own[: k + 1].max(0).sum() for k in range(4)], rtol=1e-6)
    assert len(found.curve) > 4
    rest = [place for place in range(SIZE) if place not in {9, 2, 17, 5}]
    best = max(np.maximum(own.max(0), similarity[place]).sum() for place in rest)
    assert found.curve[4] == pytest.approx(best, rel=1e-6)
    for place in range(4):
        without = np.delete(own, place, 0).max(0).sum()
        assert found.without[place] == pytest.approx(found.curve[3] - without, abs=1e-5)
    covered = own.max(0) > 0
    assert found.best_of.sum() == covered.sum()
    order = np.sort(own, 0)[::-1]
    margin = order[0] - order[1]
    for place, first in enumerate(found.first_of.tolist()):
        mine = np.flatnonzero((own.argmax(0) == place) & covered)
        assert first == (mine[np.argmax(margin[mine])] if len(mine) else -1)


def test_the_target_that_matters_most_is_that_of_explain(tmp_path: Path) -> None:
    """Targets count for the root of their tokens, so the widest margin alone does not say which it is."""
    cache = tiny_runs.make_cache(tmp_path / "c", plain_pool(SIZE))
    pool = Pool(Block(Cache(cache)), None, Wanted(k="7"))
    assert len(set(pool.goal.weights.tolist())) > 1
    (subset,) = pool.subsets
    for place, first in zip(subset.places.tolist(), subset.first_of.tolist(), strict=True):
        covers = explain_record(cache, f"record:{place + 1}", 7).figures["covers"]
        assert [entry["id"] for entry in covers[:1]] == ([] if first < 0 else [pool.records[first].id])


def test_what_a_tenth_makes_is_said_of_a_tenth_alone(tmp_path: Path) -> None:
    pool = Pool(Block(Cache(tiny_runs.make_cache(tmp_path / "c", plain_pool(SIZE)))), None, Wanted(k="4"))
    (table,) = worth(pool).tables
    told = {column.key: column.values for column in table.columns}
    assert (told["fewer"], told["more"]) == ([None], [None])  # neither 3 nor 5 records


def test_records_that_fill_a_subset_are_said_to_add_nothing(tmp_path: Path) -> None:
    """Where every example harms, there are no targets that others could cover better."""
    with tiny_runs.open_cache(tmp_path / "c", plain_pool(6)) as cache:
        cache.write_base(0, np.full(6, 0.1, np.float32), np.full(6, -1.0, np.float32))
        for example in range(6):
            cache.write_row(example, np.full(6, 0.9, np.float32), np.full(6, -2.0, np.float32))
    pool = Pool(Block(Cache(tmp_path / "c")), None, Wanted(k="2"))
    (table,) = chosen(pool).tables
    told = {column.key: column.values for column in table.columns}
    assert told["gain"] == [0.0, 0.0]
    assert told["reason"] == ["adds nothing to those before it"] * 2


def test_a_subset_is_found_by_what_its_records_say(tmp_path: Path) -> None:
    twins = [{**tiny_runs.pair(3), "id": name} for name in ("a", "b")]
    records = tiny_runs.records(tiny_runs.jsonl([*twins, tiny_runs.pair(4)])).records
    (tmp_path / "s.jsonl").write_bytes(
        tiny_runs.jsonl([twins[1], {**tiny_runs.pair(3), "id": "c", "delift": {"rank": 1}}])
    )
    places, missing = choices.read_places(tmp_path / "s.jsonl", records, {})
    assert (places.tolist(), missing) == ([1, 0], 0)
    with pytest.raises(InputError, match=r"cannot be read"):
        choices.read_places(tmp_path / "none.jsonl", records, {})


def test_of_two_that_say_the_same_the_one_with_the_same_tools_is_found(tmp_path: Path) -> None:
    def with_tool(name: str) -> dict[str, object]:
        return {**tiny_runs.pair(3), "tools": [{"type": "function", "function": {"name": name, "parameters": {}}}]}

    records = tiny_runs.records(tiny_runs.jsonl([with_tool("f"), with_tool("g"), with_tool("g")])).records
    (tmp_path / "s.jsonl").write_bytes(tiny_runs.jsonl([with_tool("g"), with_tool("g")]))
    places, missing = choices.read_places(tmp_path / "s.jsonl", records, {})
    assert (sorted(places.tolist()), missing) == ([1, 2], 0)
    (tmp_path / "s.jsonl").write_bytes(tiny_runs.jsonl([with_tool("written otherwise")]))
    places, missing = choices.read_places(tmp_path / "s.jsonl", records, {})
    assert (places.tolist(), missing) == ([0], 0)
