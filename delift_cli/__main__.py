"""`python -m delift_cli`."""

from .cli import main

main()
