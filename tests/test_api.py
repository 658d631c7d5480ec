"""The whole job from Python: score, select, explain; results that show themselves."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from tiny_runs import model, pair, pairs

import delift_cli
from delift_cli.budget.sources import read_source
from delift_cli.data.options import Reading
from delift_cli.model.llama import Settings
from delift_cli.progress import Step


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    (folder / "train.jsonl").write_bytes(pairs(*range(8)))
    delift_cli.score(folder / "train.jsonl", output=folder / "c", **options())
    return folder


def options() -> dict[str, object]:
    return {"model": str(model()), "weights": "as-is", "settings": Settings(threads=1)}


def test_records_from_python_give_what_the_file_gives(scored: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    records = [pair(number) for number in range(8)]
    scores = delift_cli.score(records, output=tmp_path / "c", progress=steps.append, **options())
    assert scores.work.pairs == 64
    assert (steps[-1].stage, steps[-1].done, steps[-1].total) == ("scoring", 8, 8)
    there = delift_cli.open_cache(scored / "c")
    np.testing.assert_array_equal(scores.cache.distance, there.distance)
    assert delift_cli.score(records, output=tmp_path / "c", **options()).work.pairs == 0
    with pytest.raises(delift_cli.InputError, match="need a name for the cache"):
        delift_cli.score(records, **options())


def test_records_of_a_generator(tmp_path: Path) -> None:
    scores = delift_cli.score((pair(number) for number in range(4)), output=tmp_path / "c", **options())
    assert scores.work.pairs == 16


@pytest.mark.parametrize("turned", [False, True])
def test_files_and_records_in_one_list(scored: Path, tmp_path: Path, turned: bool) -> None:
    mixed: list[object] = [pair(1), scored / "train.jsonl"]
    with pytest.raises(delift_cli.InputError, match="files or records, not both"):
        delift_cli.score(mixed[::-1] if turned else mixed, output=tmp_path / "c", **options())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"score": float("nan")}, "record 2: score is not a finite number"),
        ({"meta": {"parts": [1.0, float("inf")]}}, "record 2: meta.parts is not a finite number"),
        ({"score": np.float32("nan")}, "record 2: score is not a finite number"),
        ({"scores": np.array([1.0, np.nan])}, "record 2: scores is not a finite number"),
        ({"meta": MappingProxyType({"score": float("nan")})}, "record 2: meta.score is not a finite number"),
        ({"count": 2**70}, "record 2: it cannot be written as JSON: Integer exceeds 64-bit range"),
        ({7: "x"}, "record 2: it cannot be written as JSON: Dict key must be str"),
        ({"note": "\ud800"}, "record 2: it cannot be written as JSON: str is not valid UTF-8"),
        ({"note": {1}}, "record 2: it cannot be written as JSON: .*set"),
    ],
)
def test_records_that_are_no_json(extra: dict[Any, object], message: str) -> None:
    with pytest.raises(delift_cli.InputError, match=f"^<records>: {message}"):
        read_source([pair(1), {**pair(2), **extra}], Reading())


def test_values_of_numpy_and_other_mappings() -> None:
    extra = {"score": np.float32(0.5), "count": np.int64(3), "row": np.arange(2), "none": None, "word": "null"}
    found = read_source([MappingProxyType({**pair(1), **extra})], Reading()).records
    told = json.loads(found[0].raw)
    assert told == {**pair(1), "score": 0.5, "count": 3, "row": [0, 1], "none": None, "word": "null"}


def test_one_record_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(delift_cli.InputError, match="a list of records, not one dict"):
        delift_cli.score(pair(1), output=tmp_path / "c", **options())


def test_a_budget_and_a_forecast(scored: Path, tmp_path: Path) -> None:
    train, stages = scored / "train.jsonl", set()
    expected = delift_cli.forecast(train, output=tmp_path / "c", budget="60%", **options())
    assert expected.run.pairs < expected.whole.pairs == 64
    scores = delift_cli.score(
        train,
        output=tmp_path / "c",
        budget="60%",
        progress=lambda step: stages.add(step.stage.split(",")[0]),
        **options(),
    )
    assert {"embeddings", "round 1"} <= stages
    assert scores.as_dict()["pairs_measured"] == scores.cache.pairs_done
    for result in (expected, scores):
        assert "pairs" in repr(result)
        assert result._repr_html_().startswith("<table")


def test_select_records(scored: Path, tmp_path: Path) -> None:
    subset = delift_cli.select_records(scored / "c", 3)
    assert len(subset) == len(subset.records) == 3
    assert subset.ids == [record.id for record in subset]
    kernel = delift_cli.utility_kernel(
        subset.pool.cache.distance,
        subset.pool.cache.base_distance,
        "euclidean",
        "clip",
        example_group=range(8),
        target_group=range(8),
    )
    last = subset.doubted.last
    assert 0 < len(last) < 6  # of this model's answers some are doubtful
    chosen = delift_cli.select(kernel, 3, objective="topm", last=last).indices.tolist()
    assert chosen == subset.selection.indices.tolist()
    subset.write(tmp_path / "subset.jsonl")
    assert (tmp_path / "subset.jsonl").read_bytes().splitlines() == [record.raw for record in subset]
    assert "3 of 8 records" in repr(subset)
    assert delift_cli.select_records(delift_cli.open_cache(scored / "c"), "50%").as_dict()["selected"] == 4


def test_explain_record(scored: Path) -> None:
    subset = delift_cli.select_records(scored / "c", 3)
    assert delift_cli.explain_record(scored / "c", subset.ids[0], 3).as_dict()["rank"] == 1
    left = next(f"r{number}" for number in range(8) if f"r{number}" not in subset.ids)
    assert "left out" in repr(delift_cli.explain_record(scored / "c", left, 3))


def test_texts_are_escaped_in_notebooks(tmp_path: Path) -> None:
    records = [{**pair(number), "id": f"<b>{number}"} for number in range(4)]
    delift_cli.score(records, output=tmp_path / "c", **options())
    shown = delift_cli.explain_record(tmp_path / "c", "<b>1", 2)._repr_html_()
    assert "&lt;b&gt;1" in shown
    assert "<b>" not in shown


def test_a_selection_of_arrays_shows_itself() -> None:
    selection = delift_cli.select(np.eye(12, dtype=np.float32), 10)
    assert len(selection) == 10
    assert "10 of 12" in repr(selection)
    assert "<td>" in selection._repr_html_()


def test_what_is_public() -> None:
    for name in set(delift_cli.__all__) - {"__version__"}:
        assert getattr(delift_cli, name).__doc__
    with pytest.raises(AttributeError, match="nothing_such"):
        delift_cli.nothing_such  # noqa: B018


def test_evaluate_takes_files_paths_and_records(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(pairs(20, 21))
    (tmp_path / "sub.jsonl").write_bytes(pairs(2, 3, 4))
    test, sub = tmp_path / "test.jsonl", tmp_path / "sub.jsonl"
    records = [pair(number) for number in (2, 3, 4)]
    by_paths = delift_cli.evaluate(test, [sub], pool=scored / "train.jsonl", random=2, **options())
    assert str(sub) in repr(by_paths)
    assert json.loads(json.dumps(by_paths.as_dict()))["rows"][-1]["shown"] == str(sub)
    alone = delift_cli.evaluate(str(test), str(sub), **options())
    in_memory = delift_cli.evaluate([pair(20), pair(21)], records, **options())
    both = delift_cli.evaluate(test, [[sub, sub], iter(records)], **options())
    assert [row.shown for row in in_memory.rows] == ["nothing", "subset 1"]
    assert "subset 2" in repr(both)
    wanted = by_paths.rows[-1].logprob.mean
    for found in (alone.rows[1], in_memory.rows[1], both.rows[2]):
        assert found.logprob.mean == pytest.approx(wanted, abs=2e-3)  # other batches
        assert found.records == 3


@pytest.mark.parametrize(
    ("subsets", "numbers", "message"),
    [
        ([], {}, "at least one subset"),
        (["sub.jsonl"], {"shots": 0}, "shots 0: give at least one example"),
        (["sub.jsonl"], {"random": 1, "pool": "train.jsonl"}, "random 1: give at least two"),
        (["sub.jsonl"], {"random": 0, "pool": "train.jsonl"}, "random 0: give at least two"),
        (["sub.jsonl"], {"seed": -1}, "seed -1: give a whole number from 0 to 9223372036854775807"),
        ([pair(1), "sub.jsonl"], {}, "files or records, not both"),
        (["sub.jsonl", pair(1)], {}, "a list of records, not one dict"),
        ([3], {}, "not one int"),
    ],
)
def test_evaluate_refuses_at_once(subsets: list[Any], numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(delift_cli.InputError, match=message):
        delift_cli.evaluate("none.jsonl", subsets, **numbers, **options())


def test_amounts_as_numbers(scored: Path, tmp_path: Path) -> None:
    train = scored / "train.jsonl"
    for budget, written in ((40, "40"), (np.int64(40), "40"), (0.6, "60%"), (1.0, "100%")):
        found = delift_cli.forecast(train, output=tmp_path / "c", budget=budget, **options())
        assert (
            found.run.pairs == delift_cli.forecast(train, output=tmp_path / "c", budget=written, **options()).run.pairs
        )
    assert delift_cli.score(train, output=tmp_path / "a", anchors=3, **options()).work.pairs == 24
    for wrong in (1.5, -0.5, True, float("nan"), [5]):
        for option in ("budget", "anchors"):
            with pytest.raises(delift_cli.InputError, match=f"--{option} .*: give text"):
                delift_cli.forecast(train, output=tmp_path / "d", **{option: wrong}, **options())


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_are_none(scored: Path, tmp_path: Path, seed: int) -> None:
    with pytest.raises(delift_cli.InputError, match=f"seed {seed}: give a whole number from 0 to"):
        delift_cli.score(scored / "train.jsonl", output=tmp_path / "c", budget="50%", seed=seed, **options())
    for method in ("random", "delift"):
        with pytest.raises(delift_cli.InputError, match=f"seed {seed}: give a whole number from 0 to"):
            delift_cli.select_records(scored / "train.delift", 3, method=method, seed=seed)


def test_unknown_choices(scored: Path, tmp_path: Path) -> None:
    for wrong in ({"method": "zz"}, {"greedy": "zz"}, {"count": "zz"}):
        with pytest.raises(delift_cli.InputError, match=f"unknown {next(iter(wrong))} 'zz': choose .* or "):
            delift_cli.select_records(scored / "c", 2, **wrong)  # type: ignore[arg-type]
    for name in ("utility", "transform", "self_utility", "estimates"):
        with pytest.raises(delift_cli.InputError, match=f"unknown {name} 'zz': choose "):
            delift_cli.KernelOptions(**{name: "zz"})  # type: ignore[arg-type]
    with pytest.raises(delift_cli.InputError, match="unknown weights 'foo': choose auto, as-is, "):
        delift_cli.score(scored / "train.jsonl", output=tmp_path / "c", **{**options(), "weights": "foo"})


def test_ids_that_are_numbers(tmp_path: Path) -> None:
    records = [{**pair(number), "id": number} for number in range(4)]
    delift_cli.score(records, output=tmp_path / "c", **options())
    assert delift_cli.explain_record(tmp_path / "c", 3, 2).as_dict()["id"] == "3"
    assert delift_cli.show_record(tmp_path / "c", 3).as_dict()["id"] == "3"
    with pytest.raises(delift_cli.InputError, match="no record with the id 9"):
        delift_cli.show_record(tmp_path / "c", 9)
