"""The user's folders, also of a user who has none."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import NoReturn

import pytest
from tiny_runs import delift, pairs

from delift_cli.errors import InputError
from delift_cli.machine import kept


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that is nobody's."""

    def unknown(_who: object) -> NoReturn:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "DELIFT_CACHE", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_home_directory(tiny_model: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pool = tiny_model(), tmp_path / "pool.jsonl"  # type: ignore[operator]
    pool.write_bytes(pairs(1, 2, 3))
    options = ("-m", model, "--threads", "1", "--weights", "as-is", "-o", tmp_path / "c")
    assert "set DELIFT_CACHE to a directory of its own" in delift("score", pool, *options).refusal()
    assert "set DELIFT_CACHE" in delift("cache").refusal()
    assert delift("models").code == 0
    assert "no home directory" in delift("doctor", "--json").out.decode()
    monkeypatch.setenv("DELIFT_CACHE", str(tmp_path / "kept"))
    assert delift("score", pool, *options).code == 0
    for name in ("--model", "--lora"):
        run = delift("score", pool, *options, name, "~somebody/x.gguf")
        assert "there is no such home directory" in run.refusal()


@pytest.mark.usefixtures("nobody")
def test_paths_with_a_home_directory_in_them() -> None:
    assert kept.home() is None
    assert kept.user_caches() is None
    with pytest.raises(InputError, match="no such home directory"):
        kept.expanded("~/x")
    assert kept.expanded("/a/~") == Path("/a/~")
