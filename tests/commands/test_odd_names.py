"""File names are any bytes: what a verb made of one is shown, written and named in the command that comes next."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from tiny_runs import delift, jsonl, make_cache, model, pairs, score

NAMES = (b"bad\xff.jsonl", b"two\nlines.jsonl", b"t\tab.jsonl", b"-dash.jsonl", b"it's.jsonl", "é ü.jsonl".encode())


@pytest.mark.parametrize("name", NAMES)
def test_the_next_command_names_the_cache(name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = os.fsdecode(name)
    Path(text).write_bytes(pairs(*range(4)))
    said = score(f"./{text}", "--json")
    assert said.code == 0, said.err
    command = said.json["next"].removeprefix("delift select ").removesuffix(" -k 30% > subset.jsonl")
    given = subprocess.run(["bash", "-c", f"printf %s {command}"], capture_output=True, check=True).stdout
    assert os.path.isdir(given)
    assert not given.startswith(b"-")
    inspected = delift("inspect", os.fsdecode(given), "--json")
    assert inspected.code == 0, inspected.err
    assert os.fsencode(json.loads(inspected.out)["cache"]) == given.removeprefix(b"./")


@pytest.mark.parametrize("name", NAMES)
def test_a_summary_names_the_cache_as_a_shell_takes_it(
    name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = "I am sorry, but I cannot help with that request."
    shared = [
        {"prompt": prompt, "response": answer} for prompt in ("Name a bird.", "How far is it?", "Sing of autumn!")
    ]
    make_cache(Path(os.fsdecode(name)), jsonl(shared))
    said = delift("select", "--method", "length", "-k", 3, "--", os.fsdecode(name)).err
    (command,) = re.findall(r"; delift inspect (.*) --suspects 20", said)
    assert subprocess.run(["bash", "-c", f"test -d {command}"], check=False).returncode == 0


def test_names_in_a_table_of_results_are_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.jsonl").write_bytes(pairs(*range(4)))
    names = [os.fsdecode(name) for name in NAMES[:3]]
    for name in names:
        Path(name).write_bytes(pairs(5, 6))
    found = delift("evaluate", "test.jsonl", *names, "-m", model(), "--threads", "1", "--weights", "as-is")
    assert found.code == 0, found.err
    head, *rows = found.out.decode().splitlines()
    assert len(rows) == 1 + len(names)  # the first without examples
    assert {row.count("\t") for row in rows} == {head.count("\t")}


def test_a_model_of_any_name(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"m\xff.gguf")
    odd.write_bytes(Path(model()).read_bytes())
    (tmp_path / "pool.jsonl").write_bytes(pairs(*range(4)))
    cache = tmp_path / "pool.delift"
    assert delift("score", tmp_path / "pool.jsonl", "-o", cache, "-m", odd, "--threads", "1").code == 0
