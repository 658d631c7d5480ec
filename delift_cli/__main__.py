"""`python -m delift_cli`, which says what is missing where the installation is not whole."""

import contextlib
import os
import signal
import sys
from typing import NoReturn

from .machine import signals
from .machine.streams import keep_places


def _not_installed(missing: list[str]) -> int:
    from .doctor import diagnose, lines

    if sys.argv[1:2] == ["doctor"]:
        print("\n".join(lines(diagnose())))
    else:
        print(
            f"delift: not installed: {', '.join(missing)}; pip install '.[smollm2]' in the folder of the sources "
            "(python -m delift_cli doctor looks further)",
            file=sys.stderr,
        )
    return 1


def main() -> None:
    """The entry point: signals are heard from here on, while the rest is imported too."""
    keep_places()
    try:  # around the hearing, too: getting ready to hear takes its time
        with signals.ending_promptly(last=True):
            _run()
    except (KeyboardInterrupt, signals.Ended) as end:
        number = end.number if isinstance(end, signals.Ended) else signal.SIGINT
        print(f"delift: {signals.words(number)}", file=sys.stderr)
        _leave(signals.exit_code(number))


def _run() -> None:
    try:
        from .doctor import missing_packages

        if missing := missing_packages():
            sys.exit(_not_installed(missing))
        from .cli import run

        run()
    except SystemExit as end:
        if isinstance(end.code, int) and end.code in map(signals.exit_code, signals.WORDS):
            _leave(end.code)
        raise


def _leave(code: int) -> NoReturn:
    """End with this exit code. Python would end by SIGINT itself if an interrupt was raised in what `exec` runs (a
    named tuple that is being made, a module of Numba that is being imported), wherever it was caught."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
