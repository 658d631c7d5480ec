"""What compiles llama-cpp-python for `make`: progress, what is said where it fails, which version is the oldest."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from delift_cli.version import TESTED

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("build_llama", ROOT / ".ci" / "build_llama.py")
assert spec
assert spec.loader
build_llama = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_llama)


def test_the_oldest_is_the_one_that_the_range_begins_with() -> None:
    found = re.search(r'"llama-cpp-python>=([\d.]+),<', (ROOT / "pyproject.toml").read_text())
    assert found
    assert found[1] == TESTED[0]


def test_progress_and_the_end_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    said = "print('  [1/4] cc a.o'); print('*** [4/4] ld'); print('undefined reference'); raise SystemExit(3)"
    assert build_llama._shown([sys.executable, "-c", said], {}) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == [f"compiling llama.cpp: {n} of 4 files" for n in (1, 4)]
    assert lines[-1] == "undefined reference"
    assert build_llama._shown([sys.executable, "-c", "print(1)"], {}) == 0
    assert capsys.readouterr().err == ""


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "argv", ["build_llama.py", "--oldest"])
    monkeypatch.setattr(build_llama.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler is here"):
        build_llama.main()
