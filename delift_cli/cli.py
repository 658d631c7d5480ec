"""The command line: `delift VERB`, and how failures reach the shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from errno import EDQUOT, EFBIG, ENOSPC
from importlib import import_module
from signal import SIGINT
from typing import Any

import typer

from .errors import DeliftError
from .machine import signals
from .machine.streams import keep_places, print_anything
from .version import __version__
from .visible import visible

# Typer brings a Click of its own and does not export this, the base of a bad parameter's class
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

# Each is a function of this name in a module of this name.
VERBS = (
    *("preview", "score", "select", "inspect", "explain", "show", "report", "evaluate", "bench"),
    *("models", "doctor", "cache", "verify"),
)


def application(verbs: Sequence[str] = VERBS) -> typer.Typer:
    """The command line with these verbs."""
    app = typer.Typer(
        name="delift",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_delift)
    for verb in verbs:
        app.command(verb)(getattr(import_module(f".commands.{verb}", __package__), verb))
    return app


def _delift(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Choose the training data that makes your language model better.

    First 'delift score' asks a local GGUF model how much each example helps
    with each other one; then 'delift select' chooses what to train on.
    """
    if version:
        typer.echo(f"delift {__version__}")
        raise typer.Exit


def _verbs_of(arguments: Sequence[str]) -> Sequence[str]:
    """The verbs that these arguments need: to import all of them takes a second."""
    if arguments and arguments[0] in VERBS:
        return arguments[:1]
    return () if [*arguments] == ["--version"] else VERBS


def main() -> None:
    """Entry point: one line for the user on failure, no traceback (DELIFT_DEBUG=1 shows it)."""
    keep_places()
    with signals.ending_promptly():
        run()


def run() -> None:
    """What `main` does, for a caller that handles signals already."""
    print_anything()
    try:
        code = application(_verbs_of(sys.argv[1:]))(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except DeliftError as error:
        _fail(str(error), error.exit_code)
    except _ClickError as error:
        _fail_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        _fail(signals.words(SIGINT), signals.exit_code(SIGINT))
    except SystemExit as end:
        if end.code == signals.exit_code(SIGINT):  # what some versions of Typer make of a KeyboardInterrupt
            _fail(signals.words(SIGINT), signals.exit_code(SIGINT))
        raise
    except signals.Ended as ended:
        _fail(signals.words(ended.number), signals.exit_code(ended.number))
    except BrokenPipeError:
        # the reader of stdout has gone; that is how pipelines end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail("out of memory", 1)
    except OSError as error:
        _fail(_of_the_system(error), 1)


def _fail_usage(error: Any) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    hint = "" if getattr(error, "ctx", None) is None else f"; see {error.ctx.command_path} --help"
    words = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # Pydantic's name for any other fault
    _fail(f"{words}{hint}", error.exit_code)


def _of_the_system(error: OSError) -> str:
    """What an error says that nobody expected: a file by its name; what has none and is full is a stream."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}"
    return f"cannot write to stdout or stderr: {reason}" if error.errno in (ENOSPC, EDQUOT, EFBIG) else reason


def _fail(message: str, code: int) -> None:
    if os.environ.get("DELIFT_DEBUG"):
        raise
    print(f"delift: {visible(message)}", file=sys.stderr)
    sys.exit(code)
