"""`delift show`, and the small bars of select and inspect: what a person sees in a terminal."""

from __future__ import annotations

import importlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from rich.cells import cell_len
from rich.console import Console
from tiny_runs import delift

from delift_cli.cache.contents import HEADINGS
from delift_cli.commands import bars
from delift_cli.errors import InputError
from delift_cli.selection.run import select_records
from delift_cli.selection.shown import show_record

inspect_command = importlib.import_module("delift_cli.commands.inspect")  # the package has the function

RECORDS = [
    {**tiny_runs.pair(number), "task": ("first", "second", "\x1b[31mthird")[number % 3], "id": f"r{number}"}
    for number in range(12)
]
RECORDS[3] |= {"prompt": "two\nlines \x1b[2J\u202e :smile: [bold]", "id": "odd [red]\x1b]0;title\x07"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.make_cache(tmp_path_factory.mktemp("show") / "pool", tiny_runs.jsonl(RECORDS))


def test_a_record_with_its_pairs(cache: Path) -> None:
    (told,) = delift("show", cache, "r5", "--top", 3, "--json").json["records"]
    utility = np.load(cache / "base_distance.npy").astype(np.float64) - np.load(cache / "distance.npy")
    np.fill_diagonal(utility, np.nan)
    ids = [RECORDS[place]["id"] for place in range(12)]
    best = np.argsort(-np.nan_to_num(utility[:, 5], nan=-9))[:3]
    assert [entry["id"] for entry in told["helped_by"]] == [ids[place] for place in best]
    helped = np.argsort(-np.nan_to_num(utility[5], nan=-9))[:3]
    assert [entry["id"] for entry in told["helps"]] == [ids[place] for place in helped]
    harmed = np.argsort(np.nan_to_num(utility[5], nan=9))[:3]
    assert [entry["id"] for entry in told["harms"]] == [ids[place] for place in harmed]
    assert told["mean_utility"] == pytest.approx(np.nanmean(utility[5]), abs=1e-6)
    assert told["loss"] == pytest.approx(-np.load(cache / "base_logprob.npy")[5])
    assert told["turns"][0] == {"role": "user", "content": RECORDS[5]["prompt"]}


def test_nothing_is_shown_of_a_damaged_cache(cache: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(cache, tmp_path / "c.delift")
    distance = np.load(damaged / "distance.npy", mmap_mode="r+")
    distance[3, 5] += 1
    distance.flush()
    with pytest.raises(InputError, match=r"row 3 of distance\.npy or logprob\.npy does not match its checksum"):
        show_record(damaged, "r5")
    assert "row 3 of distance.npy" in delift("show", damaged, "r5").refusal()


def test_several_records_and_none(cache: Path) -> None:
    told = delift("show", cache, "r1", "r2").out.decode()
    assert told.index("r1 (line 2)") < told.index("r2 (line 3)")
    assert "no record with the id nobody" in delift("show", cache, "nobody").refusal()
    assert "no record with the id r77 (like it: r7" in delift("show", cache, "r1", "r77").refusal()


def test_ids_are_whole_however_long(tmp_path: Path) -> None:
    ids = [f"some/task_with_a_rather_long_name/and_a_part/{number}" for number in range(6)]
    records = [{**tiny_runs.pair(number), "id": id} for number, id in enumerate(ids)]
    cache = tiny_runs.make_cache(tmp_path / "pool", tiny_runs.jsonl(records))
    for told in (delift("inspect", cache), delift("show", cache, ids[0])):
        named = [id for id in ids if f"{id} " in told.out.decode()]
        assert len(named) > 1
        assert "rather_long_name/a…" not in told.out.decode()
        assert delift("show", cache, *named).code == 0
    assert {id for id in ids if id in delift("inspect", cache).out.decode()} == set(ids)


def test_settings_that_are_not_set_are_not_said(cache: Path) -> None:
    assert "None" not in delift("inspect", cache).out.decode()


def test_a_record_by_its_line(cache: Path, tmp_path: Path) -> None:
    told = delift("show", cache, "line:7", "record:2", "--json").json["records"]
    assert [each["id"] for each in told] == ["r6", "r1"]
    assert "there is no line:13" in delift("show", cache, "line:13").refusal()
    made = tiny_runs.make_cache(tmp_path / "dev", tiny_runs.pairs(0, 1, 2), tiny_runs.pairs(7, 8))
    assert delift("show", made, "line:2", "--json").json["records"][0]["role"] == "example"


def test_nothing_acts_on_the_terminal(cache: Path) -> None:
    told = delift("show", cache, "odd [red]\x1b]0;title\x07").out.decode()
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "odd [red]\\x1b]0;title\\x07 (line 4)" in told
    assert "lines \\x1b[2J\\u202e :smile: [bold]" in told
    assert "\x1b[2J" not in delift("inspect", cache, "--top", 12).out.decode()


def test_targets_of_their_own(tmp_path: Path) -> None:
    made = tiny_runs.make_cache(tmp_path / "dev", tiny_runs.pairs(0, 1, 2), tiny_runs.pairs(7, 8))
    (target,) = delift("show", made, "r7", "--json").json["records"]
    assert target["role"] == "target"
    assert target["helps"] == []
    (example,) = delift("show", made, "r1", "--json").json["records"]
    assert example["role"] == "example"
    assert {entry["id"] for entry in (*example["helps"], *example["harms"])} == {"r7", "r8"}


def drawn(cache: Path, **terminal: object) -> list[tuple[str, str]]:
    return bars.selected(select_records(cache, 6), Console(**{"force_terminal": True, "width": 100, **terminal}))


def test_bars_where_someone_looks(cache: Path) -> None:
    rows = drawn(cache)
    assert [name for name, _ in rows] == ["gains", "task", "", ""]
    assert rows[0][1].startswith("█")
    assert "\\x1b[31mthird" in " ".join(text for _, text in rows)
    assert all("\x1b" not in text for _, text in rows)
    assert drawn(cache, force_terminal=False) == []
    assert drawn(cache, width=40) == []


def test_no_bars_in_a_file(cache: Path) -> None:
    assert "gains" not in delift("select", cache, "-k", 6, "-o", "/dev/null").err
    assert "spread" not in delift("inspect", cache).out.decode()


def test_bars_are_as_long_as_they_say() -> None:
    assert [bars.bar(share, 4) for share in (0.0, 0.5, 1.0, 7.0)] == ["····", "██··", "████", "████"]
    assert bars.bar(0.28, 4) == "█▏··"
    assert bars.spark(np.array([0.0, 1.0, 8.0])) == " ▁█"
    assert bars.binned(np.array([4.0, 2.0, 1.0, 1.0]), 2).tolist() == [3.0, 1.0]


@pytest.mark.parametrize(("room", "headings"), [(200, 4), (80, 4), (45, 3), (30, 2)])
def test_a_narrow_terminal_loses_texts_not_ids(room: int, headings: int) -> None:
    rows = [("an id of some length", "+0.1234", "prompt " * 9, "response " * 9), ("日本", "-0.1", "", "a")]
    table = inspect_command._table("most useful", HEADINGS, rows, room)
    assert len(table.columns) == headings
    with (console := Console(width=room, record=True, soft_wrap=True, file=io.StringIO())):
        console.print(table)
    told = console.export_text()
    assert "an id of some length" in told
    assert "+0.1234" in told
    assert max(map(cell_len, told.splitlines())) <= max(room, 20 + 2 + 12)
