"""Before each run a few pairs are compared with evaluating each alone: real contradictions are found and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_architectures import write_architecture
from one_by_one import TEXTS, Block, pool
from tiny_runs import QUICK, Result, delift, jsonl

from delift_cli.model.llama import Settings
from delift_cli.scoring import job, way
from delift_cli.scoring.pairs import TargetTokens
from delift_cli.scoring.self_check import Trial, some_pairs, try_in_child, try_ways

POOL = jsonl([{"id": str(at), "prompt": p, "response": r} for at, (p, r) in enumerate(TEXTS[:4] + TEXTS[6:])])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("architectures")

    def write(architecture: str, *, experts: bool = False) -> Path:
        path = folder / f"{architecture}.gguf"
        return path if path.exists() else write_architecture(path, architecture, experts=experts)

    return write


@pytest.fixture(autouse=True)
def _remembers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIFT_CACHE", str(tmp_path / "kept"))


def trial(block: Block) -> Trial:
    return some_pairs(block.examples, TargetTokens(block.targets))


def score(tmp_path: Path, model: Path, data: bytes = POOL) -> Result:
    file = tmp_path / "pool.jsonl"
    file.write_bytes(data)
    return delift("score", file, "-m", model, *QUICK, "-o", tmp_path / "a")


def test_pairs_of_several_lengths(tiny_model: Callable[..., Path]) -> None:
    block = Block(tiny_model(), pool(TEXTS))
    found = trial(block)
    assert len(found.prefix) == min(map(len, block.examples.prefixes))
    assert len(found.sequences.response) == 4


def test_the_first_way_is_good_and_no_other_is_tried(tiny_model: Callable[..., Path], threads: int) -> None:
    block = Block(tiny_model(), pool(TEXTS))
    (finding,) = try_ways(block.file, Settings(threads=threads), trial(block), [None, 16, 1])
    assert finding.states is None
    assert finding.reason is None
    assert finding.apart is not None
    assert finding.apart < 1e-3


def test_several_states_that_mix_fall_back_to_one_at_a_time(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    result = score(tmp_path, tiny("plamo2"))
    assert result.code == 0, result
    assert "plamo2: targets are evaluated one at a time" in " ".join(result.err.split())
    assert job.read_manifest(tmp_path / "a")["run"]["states"] == 1


def test_a_cache_goes_on_in_its_way(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lines = tiny("falcon-h1"), POOL.splitlines(keepends=True)
    with monkeypatch.context() as before:
        before.setattr(way, "STATES", 2)  # what an earlier version may have chosen
        assert score(tmp_path, model, data=b"".join(lines[:3])).code == 0
    assert score(tmp_path, model, data=b"".join(lines[:5])).code == 0
    assert job.read_manifest(tmp_path / "a")["run"]["states"] == 2


def test_a_contradiction_is_refused_by_name(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    refusal = score(tmp_path, tiny("cogvlm")).refusal()
    assert "(cogvlm) under llama-cpp-python" in refusal
    assert "off those of each pair alone" in refusal
    assert not (tmp_path / "a").exists()


def test_a_way_that_ends_the_process_ends_a_child(tiny: Callable[[str], Path], threads: int) -> None:
    block = Block(tiny("chameleon"), pool(TEXTS))
    ended, again = try_in_child(block.file, Settings(threads=threads), trial(block), [None, 1])
    for finding in (ended, again):
        assert finding.reason is not None
        assert finding.reason.startswith("llama.cpp ends the process (GGML_ASSERT")


def test_only_the_first_model_of_an_architecture_needs_a_child(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(tmp_path, tiny_model()).code == 0

    def none(*_arguments: object) -> None:
        raise AssertionError("a child for an architecture that was tried before")

    monkeypatch.setattr(way, "try_in_child", none)
    (tmp_path / "b").mkdir()
    assert score(tmp_path / "b", tiny_model(seed=5)).code == 0


def test_an_architecture_that_ends_the_process_is_refused_by_name(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    refusal = score(tmp_path, tiny("chameleon")).refusal()
    assert "(chameleon) under llama-cpp-python" in refusal
    assert "llama.cpp ends the process (GGML_ASSERT" in refusal


def test_after_a_way_that_fails_the_next_is_tried(tiny: Callable[[str], Path], threads: int) -> None:
    block = Block(tiny("mamba"), pool(TEXTS))
    failed, good = try_in_child(block.file, Settings(threads=threads), trial(block), [None, 16])
    assert "could not evaluate a batch" in str(failed.reason)
    assert (good.states, good.reason) == (16, None)


def test_what_was_checked_is_remembered(
    tiny_model: Callable[..., Path], tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Settings] = []

    def counted(file: object, settings: Settings, *rest: object) -> object:
        tried.append(settings)
        return try_ways(file, settings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(way, "try_ways", counted)
    monkeypatch.setattr(way, "try_in_child", counted)
    block = Block(tiny_model(), pool(TEXTS))
    pairs = block.examples, TargetTokens(block.targets)
    for settings in (Settings(threads=threads), Settings(threads=threads), Settings(threads=threads, batch=64)):
        way.checked(block.file, "a" * 64, settings, *pairs, fixed=False, say=lambda text: None)
    assert [settings.batch for settings in tried] == [512, 64]
    (tmp_path / "kept" / f"{way.BOOK}.json").write_text('{"damaged"')
    way.checked(block.file, "a" * 64, Settings(threads=threads), *pairs, fixed=False, say=lambda text: None)
    assert len(tried) == 3
