"""Which verbs there are, and what calling one of them loads."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny_runs import delift

from delift_cli.cli import VERBS, application

ENDS = """
import sys
sys.argv = ["delift", *{arguments}]
from delift_cli.cli import main
try:
    main()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--version"], ["score", "--help"], ["models", "--help"]])
def test_what_selects_is_not_loaded_for_what_does_not(arguments: list[str]) -> None:
    command = [sys.executable, "-c", ENDS.format(arguments=arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip()
    loaded = set(ended.stderr.split())
    assert "typer" in loaded
    assert not loaded & {"numba", "llama_cpp", "delift_cli.selection.run"}


def test_each_verb_is_what_it_is_among_all() -> None:
    assert [command.name for command in application().registered_commands] == [*VERBS]
    for verb in VERBS:
        alone = application([verb]).registered_commands
        assert [(command.name, command.callback and command.callback.__name__) for command in alone] == [(verb, verb)]


def test_a_verb_that_is_none() -> None:
    assert "No such command 'scor'" in delift("scor").refusal()
    assert delift("--version", "score").out.startswith(b"delift ")
