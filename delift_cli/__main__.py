"""`python -m delift_cli`, which says what is missing where the installation is not whole."""

import signal
import sys

from . import signals


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
    with signals.ending_promptly():
        try:
            from .doctor import missing_packages

            if missing := missing_packages():
                sys.exit(_not_installed(missing))
            from .cli import run

            run()
        except (KeyboardInterrupt, signals.Ended) as end:
            number = end.number if isinstance(end, signals.Ended) else signal.SIGINT
            print(f"delift: {signals.words(number)}", file=sys.stderr)
            sys.exit(signals.exit_code(number))


if __name__ == "__main__":
    main()
