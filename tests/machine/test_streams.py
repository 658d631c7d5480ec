"""Standard streams that the shell closed: one line where something is meant for them, and no file in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_runs import make_cache, pairs, start


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pool.jsonl").write_bytes(pairs(*range(6)))
    return make_cache(Path("pool"), pairs(*range(6)))


def closed(number: int, *arguments: object) -> tuple[int, bytes, bytes]:
    """A run without this stream: its code and what the others got."""
    options = {0: {"stdin": None}, 1: {"stdout": None}, 2: {"stderr": None}}[number]
    process = start(*arguments, preexec_fn=lambda: os.close(number), **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out or b"", err or b""


@pytest.mark.parametrize(
    "arguments",
    [
        ("select", "pool", "-k", "3", "-q"),
        ("select", "pool", "-k", "3", "-o", "s.jsonl", "--json"),
        ("show", "pool", "r1"),
        ("preview", "pool.jsonl", "--json"),
        ("inspect", "pool"),
        ("--version",),
    ],
)
def test_what_is_meant_for_a_closed_stdout_is_an_error(cache: Path, arguments: tuple[str, ...]) -> None:
    code, _, err = closed(1, *arguments)
    assert (code, err) == (1, b"delift: stdout is closed: what belongs there has nowhere to go\n")


@pytest.mark.parametrize("arguments", [("select", "pool", "-k", "3", "-q"), ("inspect", "pool"), ("--version",)])
def test_a_full_disk_behind_stdout_is_one_line(cache: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        process = start(*arguments, stdout=full)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (
        1,
        b"delift: cannot write to stdout or stderr: No space left on device\n",
    )


def test_who_needs_no_stdout_may_close_it(cache: Path) -> None:
    assert closed(1, "select", "pool", "-k", "3", "-q", "-o", "s.jsonl") == (0, b"", b"")
    assert Path("s.jsonl").read_bytes().count(b"\n") == 3


def test_words_for_a_closed_stderr_are_not_data(cache: Path) -> None:
    code, out, _ = closed(2, "select", "pool", "-k", "3")
    assert (code, out.count(b"\n")) == (0, 3)
    assert closed(2, "select", "nowhere") == (2, b"", b"")


def test_a_closed_stdin_is_empty(cache: Path) -> None:
    code, _, err = closed(0, "preview", "-")
    assert (code, err) == (2, b"delift: <stdin>: there is nothing in it\n")
