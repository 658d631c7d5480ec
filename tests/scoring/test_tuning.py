"""Converted weights, the measured choice among them, forecasts and `delift bench`, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
from tiny_runs import delift, pairs

from delift_cli.errors import InputError
from delift_cli.model import converted
from delift_cli.model.gguf import ModelFile
from delift_cli.scoring import tuning

POOL = pairs(*range(12))


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of this test's own."""
    directory = tmp_path / "kept"
    monkeypatch.setenv("DELIFT_CACHE", str(directory))
    return directory


@pytest.fixture
def half_model(tiny_model: Callable[..., Path]) -> ModelFile:
    return ModelFile(tiny_model("bpe", dtype="f16"))


def run(tmp_path: Path, *options: object, verb: str = "score") -> Any:
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(POOL)
    return delift(verb, pool, "-m", tiny_runs.model(), "--threads", 1, *options)


class TestConvertedCopies:
    def test_made_once_and_named_after_the_original(self, half_model: ModelFile, kept: Path) -> None:
        first = converted.converted(half_model, "a" * 64, "f32", threads=1)
        written = first.path.stat().st_mtime_ns, first.path.read_bytes()
        second = converted.converted(half_model, "a" * 64, "f32", threads=1)
        assert first.path == second.path == kept / f"{half_model.path.stem}-{'a' * 16}-f32.gguf"
        assert second.path.read_bytes() == written[1]
        assert first.quantization() == "F32"

    def test_as_is_is_the_file_itself(self, half_model: ModelFile, kept: Path) -> None:
        assert converted.converted(half_model, "a" * 64, "as-is", threads=1) is half_model
        assert not kept.exists()

    def test_another_model_of_the_same_name_gets_its_own_copy(self, half_model: ModelFile) -> None:
        first = converted.converted(half_model, "a" * 64, "f32", threads=1)
        second = converted.converted(half_model, "b" * 64, "f32", threads=1)
        assert first.path != second.path

    def test_the_least_recently_used_go_first(self, half_model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
        one = converted.converted(half_model, "1" * 64, "f32", threads=1).path
        two = converted.converted(half_model, "2" * 64, "f32", threads=1).path
        converted.converted(half_model, "1" * 64, "f32", threads=1)  # used again
        room = (one.stat().st_size + two.stat().st_size) / 1e9
        monkeypatch.setenv("DELIFT_CACHE_GB", f"{room * 1.5:.9f}")
        three = converted.converted(half_model, "3" * 64, "f32", threads=1).path
        assert one.exists()
        assert three.exists()
        assert not two.exists()

    def test_a_limit_that_is_no_number(self, half_model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DELIFT_CACHE_GB", "plenty")
        with pytest.raises(InputError, match="number of gigabytes"):
            converted.converted(half_model, "a" * 64, "f32", threads=1)

    def test_listed_and_cleared(self, half_model: ModelFile, kept: Path) -> None:
        converted.converted(half_model, "a" * 64, "f32", threads=1)
        listed = delift("cache", "--json").json
        assert listed["directory"] == str(kept)
        assert [entry["file"] for entry in listed["models"]] == [f"{half_model.path.stem}-{'a' * 16}-f32.gguf"]
        assert delift("cache", "--clear").code == 0
        assert not list(kept.glob("*"))


class TestAuto:
    def test_measured_once_and_remembered(self, tmp_path: Path, kept: Path) -> None:
        first = run(tmp_path, "-o", tmp_path / "a", "--json")
        assert first.code == 0
        assert "tokens/s" in first.err  # says what it tries
        book = json.loads((kept / "tuning.json").read_bytes())
        second = run(tmp_path, "-o", tmp_path / "b", "--json")
        assert "tokens/s" not in second.err
        assert json.loads((kept / "tuning.json").read_bytes()) == book
        (entry,) = book.values()
        assert second.json["weights"] == first.json["weights"] == entry["weights"]
        assert set(entry["rates"]) >= {"as-is", "bf16", "f16", "q8_0"}

    def test_only_the_winner_is_kept(self, tmp_path: Path, kept: Path) -> None:
        chosen = run(tmp_path, "-o", tmp_path / "a", "--json").json["weights"]
        left = [path.name for path in kept.glob("*.gguf")]
        assert len(left) == (chosen != "as-is")
        assert all(chosen in name for name in left)

    def test_weights_that_change_the_numbers_are_refused(
        self, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tuning, "TOLERANCE", 0.0)
        result = run(tmp_path, "-o", tmp_path / "a", "--json").json
        assert result["weights"] == "as-is"
        (entry,) = json.loads((kept / "tuning.json").read_bytes()).values()
        assert "differ" in entry["rejected"]["q8_0"]

    def test_the_manifest_has_what_was_used(self, tmp_path: Path) -> None:
        assert run(tmp_path, "-o", tmp_path / "a", "--weights", "q8_0").code == 0
        manifest = json.loads((tmp_path / "a" / "manifest.json").read_bytes())
        assert manifest["weights"]["type"] == "q8_0"

    def test_goes_on_with_the_weights_it_began_with(self, tmp_path: Path) -> None:
        cache = tmp_path / "a"
        assert run(tmp_path, "-o", cache, "--weights", "q8_0").code == 0
        again = run(tmp_path, "-o", cache, "--json")
        assert again.json["weights"] == "q8_0"
        assert again.json["pairs_scored"] == 0

    def test_other_weights_asked_for_are_a_mismatch(self, tmp_path: Path) -> None:
        cache = tmp_path / "a"
        assert run(tmp_path, "-o", cache, "--weights", "q8_0").code == 0
        assert "weights.type (there q8_0, now as-is)" in run(tmp_path, "-o", cache, "--weights", "as-is").refusal()

    def test_f32_keeps_the_numbers_of_f16(self, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
        model = tiny_model("bpe", dtype="f16")
        arrays = []
        for choice in ("as-is", "f32"):
            run(tmp_path, "-m", model, "-o", tmp_path / choice, "--weights", choice)
            arrays.append(np.load(tmp_path / choice / "distance.npy"))
        assert np.abs(arrays[0] - arrays[1]).max() < 2e-3


class TestDryRun:
    def test_tokens_are_those_of_the_run(self, tmp_path: Path) -> None:
        options = ("-o", tmp_path / "a", "--weights", "as-is", "--json")
        forecast = run(tmp_path, *options, "--dry-run").json
        assert not (tmp_path / "a").exists()
        done = run(tmp_path, *options).json
        base = done["tokens_evaluated"] - forecast["tokens"]  # the targets without an example
        assert 0 < base < done["tokens_evaluated"] / 5
        assert forecast["pairs"] == done["pairs_scored"] == 144
        assert forecast["plain_tokens"] == done["tokens_one_by_one"]
        assert forecast["disk_bytes"] == 144 * 8
        assert forecast["seconds"] > 0
        assert forecast["memory_bytes"] > 0


class TestBench:
    def test_everything_side_by_side(self, tmp_path: Path) -> None:
        result = run(tmp_path, "--weights", "as-is", "--seconds", 1, "--json", "-q", verb="bench").json
        shares = result["scoring"]["shares"]
        assert sum(shares.values()) == pytest.approx(1.0)
        assert all(0 <= share <= 1 for share in shares.values())
        ours = result["scoring"]["pairs_per_second"]
        assert result["plain_loop"]["ratio"] == pytest.approx(ours / result["plain_loop"]["pairs_per_second"])
        raw = result["raw_tokens_per_second"]
        assert result["scoring"]["share_of_raw"] == pytest.approx(result["scoring"]["tokens_per_second"] / raw)
        assert result["forecast"]["pairs"] == 144

    def test_without_the_plain_loop(self, tmp_path: Path) -> None:
        result = run(tmp_path, "--weights", "as-is", "--seconds", 1, "--no-plain", verb="bench")
        assert result.code == 0
        assert "raw" in result.out.decode()
        assert "plain loop" not in result.out.decode()
