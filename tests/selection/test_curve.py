"""Curves and kept first gains."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import delift, pairs, score

from delift_cli.cache.sidecar import keep, read_kept
from delift_cli.commands.bars import plot
from delift_cli.selection.curve import curve_rows, render_curve
from delift_cli.submodular.select import select


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curve")
    (folder / "pool.jsonl").write_bytes(pairs(*range(12)))
    assert score(folder / "pool.jsonl", "-o", folder / "pool.delift").code == 0
    return folder / "pool.delift"


def test_rows_add_up() -> None:
    similarity = np.random.default_rng(0).random((8, 8))
    chosen = select(similarity, 5)
    rows = curve_rows(chosen, [f'r"{i}, x' for i in range(8)], 2 * chosen.value)
    assert [row["k"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["value"] == pytest.approx(chosen.value)
    assert rows[-1]["share"] == pytest.approx(0.5)
    assert json.loads(render_curve(rows, "json")) == rows
    read = list(csv.DictReader(io.StringIO(render_curve(rows, "csv").decode())))
    assert [row["id"] for row in read] == [row["id"] for row in rows]
    assert [float(row["gain"]) for row in read] == [row["gain"] for row in rows]


def test_plot_rises_to_the_top() -> None:
    lines = plot([1.0, 2.0, 3.0, 4.0], height=2)
    assert lines == ["  ▄█", "▄███"]
    assert plot([]) == []
    assert all(len(line) == 64 for line in plot(list(range(1, 1000))))
    assert set("".join(plot([0.0, 0.0]))) == {" "}


def test_written_by_select(cache: Path, tmp_path: Path) -> None:
    result = delift("select", cache, "-k", 4, "--curve", tmp_path / "c.json", "--ids-only")
    rows = json.loads((tmp_path / "c.json").read_bytes())
    assert [row["id"] for row in rows] == result.out.decode().split()
    assert "value against k" in result.err
    delift("select", cache, "-k", 4, "--curve", tmp_path / "c.csv", "-q")
    assert (tmp_path / "c.csv").read_text().splitlines()[0] == "k,id,gain,value,share"


def test_kept_gains_change_nothing_but_the_work(cache: Path) -> None:
    first = delift("select", cache, "-k", 5, "--with-scores")
    kept = list((cache / "gains").glob("*.bin"))
    assert kept
    assert delift("select", cache, "-k", 5, "--with-scores").out == first.out
    assert list((cache / "gains").glob("*.bin")) == kept
    delift("select", cache, "-k", 5, "--utility", "pmi")
    assert len(list((cache / "gains").glob("*.bin"))) == 2


def test_gains_that_do_not_fit_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "gains" / "x.bin"
    assert read_kept(file, (3,), np.float64) is None
    keep(file, np.arange(3.0))
    kept = read_kept(file, (3,), np.float64)
    assert kept is not None
    assert kept.tolist() == [0, 1, 2]
    assert read_kept(file, (4,), np.float64) is None
    file.write_bytes(b"not an array")
    assert read_kept(file, (3,), np.float64) is None
    keep(tmp_path / "no" / "such" / "place" / "x.bin", np.arange(3.0))  # silently not kept
