"""The pages say what the program does: CLI.md is current, README names every verb, its blocks parse and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import delift, model

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests import cli_page  # noqa: E402

PAGES = ("README.md", "CONTRIBUTING.md", "CLI.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")) if name == language]


def test_the_page_of_the_command_line_is_current() -> None:
    assert (ROOT / "CLI.md").read_text(encoding="utf-8") == cli_page.page(), "run: make docs"


@pytest.mark.parametrize("verb", cli_page.verbs())
def test_readme_names_every_verb(verb: str) -> None:
    assert f"delift {verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", cli_page.verbs())
def test_every_option_is_explained(verb: str) -> None:
    command = cli_page.verbs()[verb]
    for parameter in command.params:
        assert parameter.help, f"delift {verb} {parameter.name}"
    summary = command.callback.__doc__.split("\n")[0]
    assert len(summary) <= 100, summary
    assert "Examples:" in command.callback.__doc__


@pytest.mark.parametrize("page", PAGES)
def test_shell_blocks_parse(page: str) -> None:
    for block in blocks(page, "sh"):
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert checked.returncode == 0, (block, checked.stderr)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_shell_blocks_have_these_options(page: str) -> None:
    """Every `delift VERB --option` of a page is one that the verb has."""
    for line in "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        found = re.search(r"\bdelift ([a-z]+)\b(.*)", line.partition("#")[0])
        if not found or found[1] not in cli_page.verbs():
            continue
        command = cli_page.verbs()[found[1]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = set(re.findall(r"(?<=\s)(--?[a-z][\w-]*)", found[2].partition(" > ")[0]))
        assert used <= known | {"--help"}, line


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there, one after the other, on sample records and the cache that `delift score` makes of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELIFT_MODEL", str(model()))
    lines = (ROOT / "samples" / "pool.jsonl").read_bytes().splitlines(keepends=True)[:8]
    Path("train.jsonl").write_bytes(b"".join(lines))
    assert delift("score", "train.jsonl", "-q").code == 0
    found = blocks("README.md", "python")
    assert len(found) >= 3
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, "README.md", "exec"), names)
    assert Path("subset.jsonl").read_bytes().splitlines(keepends=True)[0] in lines
    assert len(names["chosen"].indices) == 5  # type: ignore[attr-defined]
