"""CLI.md: every verb with its options, from the Typer app. `python -m tests.cli_page` writes it, a test compares."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from delift_cli.cli import application

PAGE = Path(__file__).parents[1] / "CLI.md"
HEAD = """\
# The command line

Made from the program (`make docs`); a test keeps it current. Every verb explains itself with `--help`; shell
completion: `delift --install-completion`. stdout carries only data, progress and summaries go to stderr. Exit codes: 0
done, 2 bad usage or input, 1 failure at run time, 130 interrupted.
"""


def verbs() -> dict[str, Any]:
    """The verbs' Click commands by name."""
    return dict(typer.main.get_command(application()).commands)  # type: ignore[attr-defined]


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name, command in verbs().items() for line in _verb(name, command))])


def _verb(name: str, command: Any) -> Iterator[str]:
    summary, _, examples = inspect.cleandoc(command.callback.__doc__).partition("\n\nExamples:\n\n")
    yield f"## delift {name}\n"
    yield f"{summary}\n"
    if examples:
        yield f"```sh\n{inspect.cleandoc(examples)}\n```\n"
    hints = typing.get_type_hints(command.callback)
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.name != "help" and not getattr(parameter, "hidden", False):
            given = getattr(parameter, "rich_help_panel", None)
            panels.setdefault(given or "Arguments", []).append(parameter)
    for panel, parameters in panels.items():
        yield f"| {panel} | |\n|---|---|"
        yield from (_row(parameter, _choices(hints[parameter.name])) for parameter in parameters)
        yield ""


def _choices(hint: Any) -> list[str]:
    """The words of a Literal, also of an optional one."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [word for part in typing.get_args(hint) for word in _choices(part)]


def _row(parameter: Any, choices: list[str]) -> str:
    value = parameter.metavar or "|".join(choices)
    if parameter.param_type_name == "argument":
        names = f"`{value}`"
    else:
        names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
        names += f" `{value}`" if value else ""
    default = parameter.default
    shown = f" Default: {default}." if isinstance(default, str | int | float) and not isinstance(default, bool) else ""
    text = re.sub(r"\s+", " ", parameter.help or "")
    cells = (cell.replace("|", "\\|") for cell in (names, f"{text}{shown}"))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
