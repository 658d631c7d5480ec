"""The road of the README and of `make demo`: samples in, three subsets out; on a tiny model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_runs import QUICK, delift, model, score

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"


def commands(file: Path) -> list[list[str]]:
    """Every `delift score` and `delift select` that a file tells its reader to run, on one line each."""
    text = file.read_text(encoding="utf-8").replace("$(BIN)/", "").replace("$(DEMO)", "demo").replace("\\\n", " ")
    lines = [re.sub(r"^[\s@$]+", "", line) for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"delift (score|select|inspect) ", line)]


def test_demo_shows_the_three_stages() -> None:
    verbs = [command[1] for command in commands(ROOT / "Makefile")]
    assert verbs.count("score") == 3
    assert verbs.count("select") == 3


def test_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Makefile's own commands, on a part of the samples and with the tiny model."""
    (tmp_path / "samples").mkdir()
    for name, records in (("pool", 12), ("target", 4), ("existing", 4)):
        lines = (SAMPLES / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "samples" / f"{name}.jsonl").write_bytes(b"".join(lines[:records]))
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELIFT_MODEL", str(model()))
    for command in commands(ROOT / "Makefile"):
        more = QUICK if command[1] == "score" else ()
        result = delift(*command[1:], *more)
        assert result.code == 0, (command, result.err)
        assert result.out == b""
    pool = (tmp_path / "samples" / "pool.jsonl").read_bytes().splitlines()
    for name in ("subset", "subset-target", "subset-existing"):
        lines = (tmp_path / "demo" / f"{name}.jsonl").read_bytes().splitlines()
        assert len(lines) == round(0.3 * 12)
        assert {*lines} <= {*pool}


def test_readme_commands_are_understood() -> None:
    """Every option in the README's commands exists."""
    for command in commands(ROOT / "README.md"):
        known = {*re.findall(r"(?<![\w-])--?[a-z][\w-]*", delift(command[1], "--help").out.decode())}
        used = {part.split("=")[0] for part in command[2:] if re.match(r"--?[a-z]", part)}
        assert used <= known, (command, used - known)


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("alpaca.json", "instruction/output"),
        ("messages.jsonl", "messages"),
        ("sharegpt.jsonl", "conversations"),
        ("qa.jsonl", "question/answer"),
    ],
)
def test_layout_samples_make_the_round_trip(file: str, layout: str, tmp_path: Path) -> None:
    source = SAMPLES / "layouts" / file
    told = score(source, "-o", tmp_path / "c", "--json").json
    assert told["layouts"] == [{layout: told["examples"]}]
    out = delift("select", tmp_path / "c", "-k", "100%", "--order", "input").out
    if file.endswith(".json"):
        assert json.loads(out) == json.loads(source.read_bytes())
    else:
        assert out == source.read_bytes()


def test_samples_are_what_their_readme_says() -> None:
    counts = {}
    for name in ("pool", "target", "existing"):
        records = [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_bytes().splitlines()]
        counts[name] = len(records)
        ids = [record["id"] for record in records]
        assert len({*ids}) == len(ids)
        if name == "pool":
            assert {"wrong answer", "noise"} <= {record.get("note") for record in records}
            assert any(str(record.get("note")).startswith("near-duplicate of ") for record in records)
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    for name, count in counts.items():
        assert re.search(rf"`{name}\.jsonl` \| {count} \|", text)
