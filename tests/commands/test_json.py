"""With --json a stream holds one JSON value and nothing else, which also has what was said on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import delift, make_cache, model, pair, pairs, score

from delift_cli.selection import larger_than_memory


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pool.jsonl").write_bytes(pairs(*range(8)))
    return make_cache(Path("pool"), pairs(*range(8)))


def test_what_select_says_goes_into_its_json(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the JSON goes, and quiet or not."""
    monkeypatch.setattr(larger_than_memory, "free_memory", lambda: 200)
    (said,) = [line for line in delift("select", "pool", "-k", 3).err.splitlines() if "free: exact greedy" in line]
    for quiet in ((), ("-q",)):
        result = delift("select", "pool", "-k", 3, "--json", *quiet)
        assert json.loads(result.err)["notes"] == [said]
        assert result.out.count(b"\n") == 3
        result = delift("select", "pool", "-k", 3, "--json", "-o", "s.jsonl", *quiet)
        assert (result.json["notes"], result.err) == ([said], "")
    monkeypatch.setattr(larger_than_memory, "free_memory", lambda: 10**12)
    assert json.loads(delift("select", "pool", "-k", 3, "--json").err)["notes"] == []


def test_a_table_whose_source_has_gone_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    monkeypatch.chdir(tmp_path)
    pyarrow.parquet.write_table(arrow.Table.from_pylist([pair(number) for number in range(6)]), "pool.parquet")
    assert score("pool.parquet", "-o", "pool", "-q").code == 0
    assert json.loads(delift("select", "pool", "-k", 2, "--json").err)["notes"] == []
    Path("below").mkdir()
    monkeypatch.chdir("below")  # its name is looked for from the folders above the cache too
    assert json.loads(delift("select", "../pool", "-k", 2, "--json").err)["notes"] == []
    monkeypatch.chdir("..")
    Path("pool.parquet").rename("elsewhere.parquet")
    (note,) = json.loads(delift("select", "pool", "-k", 2, "--json").err)["notes"]
    assert "pool.parquet is not what was read" in note


MODEL = ("-m", model(), "--threads", "1", "--weights", "as-is")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("preview", "pool.jsonl"), list),
        (("score", "pool.jsonl", "-o", "new", *MODEL), dict),
        (("score", "pool.jsonl", "-o", "new", "--dry-run", *MODEL), dict),
        (("inspect", "pool"), dict),
        (("explain", "pool", "r1", "-k", "3"), dict),
        (("show", "pool", "r1"), dict),
        (("evaluate", "pool.jsonl", "pool", *MODEL), dict),
        (("models",), dict),
        (("doctor", "--no-speed", "-m", model()), dict),
        (("cache",), dict),
        (("verify", "pool"), dict),
    ],
)
def test_every_verb_writes_json_alone(cache: Path, arguments: tuple[Any, ...], kind: type) -> None:
    found = delift(*arguments, "--json").json
    assert isinstance(found, kind)
    assert arguments[0] not in ("score", "evaluate") or isinstance(found["notes"], list)
