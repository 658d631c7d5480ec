"""Texts of strangers are shown in a terminal, never obeyed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import delift, make_cache, score

from delift_cli.display import aligned, html_table
from delift_cli.visible import visible

NASTY = {
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "c1": "\x9b31m\x9d0;t\x9c",
    "bidi": "abc\u202edcba\u2066x\u2069\u200f",
    "return": "seen\rhidden",
    "backspace": "a\b\b\bb",
    "separators": "a\u2028b\u2029c\x85d",
    "tag": "\U000e0041\ufeff",
}
ACTING = (
    set(map(chr, range(32))) - {"\n"} | set(map(chr, range(0x7F, 0xA0))) | set("\u202e\u2066\u2069\u200f\u2028\u2029")
)


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_visible(text: str) -> None:
    shown = visible(text)
    assert not ACTING & set(shown)
    assert "\\" in shown
    assert "\n" not in visible("a\nb")
    assert visible("a\n\tb", lines=True) == "a\n\tb"


def test_ordinary_texts_stay() -> None:
    for text in ("plain", "naïve – “quoted”", "日本語", "עברית", "क्षि", "👩\u200d🔬", "می\u200cخواهم"):
        assert visible(text) == text


def test_tables_escape() -> None:
    assert "\x1b" not in aligned([("a\x1b", "b\x1b[2J")])
    assert (
        html_table([("<", "\u202e")])
        == '<table style="text-align: left"><tr><th>&lt;</th><td>\\u202e</td></tr></table>'
    )


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_no_verb_lets_a_record_speak_to_the_terminal(text: str, tmp_path: Path) -> None:
    records = [
        {"id": f"{text}{n}", "prompt": f"p{n} {text}", "response": f"r{n} {text}", f"f{text}": 1} for n in range(3)
    ]
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    cache = make_cache(tmp_path / "c", data)
    identity = json.loads((cache / "examples.ids.json").read_bytes())[0]
    first = identity[0] if isinstance(identity, list) else records[0]["id"]
    (tmp_path / "bad.jsonl").write_bytes(json.dumps({"id": text, f"x{text}": 1}).encode() + b"\n")
    (tmp_path / "never").write_text("nobody\n")
    runs = [
        delift("inspect", cache),
        delift("explain", cache, first, "-k", "2"),
        delift("explain", cache, text, "-k", "2"),
        delift("select", cache, "-k", "2", "-o", tmp_path / "out.jsonl"),
        delift("select", cache, "-k", "2", "--per", f"x{text}:1"),
        score(tmp_path / "bad.jsonl"),
    ]
    for run in runs:
        assert not ACTING & set(run.err), run.err
        assert not ACTING & set(run.out.decode()), run.out
