"""What the model says of each record by itself: kept a part at a time, and kept when the records are edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import model, pairs

import delift_cli
from delift_cli.cache.sidecar import BASELINES, EMBEDDINGS, WITHOUT_PROMPT, kept_file, read_kept
from delift_cli.cache.sparse import open_cache
from delift_cli.model.llama import Settings
from delift_cli.scoring import embeddings
from delift_cli.scoring.measures import Measures
from delift_cli.scoring.pairs import Scoring

SIZE = 12
EDITED = (20, *range(3), *range(4, SIZE), 21)  # one in front, one gone, one behind


class Asked:
    """How many texts were embedded, and responses measured alone, call by call; an interruption at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.embedded: list[int] = []
        self.alone: list[int] = []
        self.stop_at = -1
        embed, without_example = embeddings.embed, Scoring.without_example

        def counted_embed(opened: Any, texts: Any, report: Callable[[int], None]) -> embeddings.Embeddings:
            self.embedded.append(len(texts))
            if len(self.embedded) == self.stop_at:
                raise KeyboardInterrupt
            return embed(opened, texts, report)

        def counted_alone(scoring: Scoring, chosen: np.ndarray) -> Measures:
            self.alone.append(len(chosen))
            return without_example(scoring, chosen)

        monkeypatch.setattr(embeddings, "embed", counted_embed)
        monkeypatch.setattr(Scoring, "without_example", counted_alone)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def scored(folder: Path, numbers: tuple[int, ...], budget: str | None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pool.jsonl").write_bytes(pairs(*numbers))
    quick: dict[str, Any] = {"model": str(model()), "weights": "as-is", "settings": Settings(threads=1)}
    delift_cli.score(folder / "pool.jsonl", output=folder / "c", budget=budget, **quick)
    return folder / "c"


def kept(path: Path) -> list[np.ndarray]:
    cache = open_cache(path)
    n = cache.shape[0]
    alone = read_kept(kept_file(cache, "examples", WITHOUT_PROMPT), (n,), np.float32)
    assert alone is not None
    if cache.layout == "dense":
        return [alone]
    points = read_kept(kept_file(cache, "examples", EMBEDDINGS), (2, n, -1), np.float32)
    assert points is not None
    return [alone, *points]


@pytest.mark.parametrize("budget", [None, "60%"])
def test_of_edited_records_the_new_ones_alone_are_asked_about(tmp_path: Path, asked: Asked, budget: str | None) -> None:
    path = scored(tmp_path / "edited", tuple(range(SIZE)), budget)
    assert asked.alone == [SIZE, SIZE]  # without prompts, and behind them
    assert asked.embedded == [SIZE] * (budget is not None)
    before = kept(path)
    asked.alone.clear()
    asked.embedded.clear()
    scored(tmp_path / "edited", EDITED, budget)
    assert asked.alone == [2, 2]
    assert asked.embedded == [2] * (budget is not None)
    files = len(list((path / BASELINES).iterdir()))
    assert files == len(before[:2])  # those of the records before are gone
    for now, old, fresh in zip(kept(path), before, kept(scored(tmp_path / "fresh", EDITED, budget)), strict=True):
        np.testing.assert_array_equal(now[1:4], old[:3])
        np.testing.assert_array_equal(now[4:12], old[4:])
        np.testing.assert_allclose(now, fresh, atol=0.05)


def test_an_interruption_costs_one_part_of_the_embeddings(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "PART", 5)
    monkeypatch.setattr(embeddings, "KEEP_SECONDS", 0.0)
    asked.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path / "stopped", tuple(range(SIZE)), "60%")
    path = scored(tmp_path / "stopped", tuple(range(SIZE)), "60%")
    assert asked.embedded == [5, 5, 5, 2]
    for stopped, at_once in zip(kept(path), kept(scored(tmp_path / "c", tuple(range(SIZE)), "60%")), strict=True):
        np.testing.assert_array_equal(stopped, at_once)


def test_who_reads_part_of_it_is_told_that_it_is_not_whole(tmp_path: Path) -> None:
    from delift_cli.cache.sidecar import keep

    (tmp_path / BASELINES).mkdir()
    file = tmp_path / BASELINES / "a.bin"
    keep(file, np.array([1.0, np.nan], np.float32))
    assert read_kept(file, (2,), np.float32) is None
    part = read_kept(file, (2,), np.float32, whole=False)
    np.testing.assert_array_equal(part, [1.0, np.nan])
    keep(file, np.array([1.0, np.inf], np.float32))
    assert read_kept(file, (2,), np.float32, whole=False) is None
