"""The ways in which a run can end badly, each with the exit code that the shell sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LARGEST_SEED = 2**63 - 1  # what JSON and NumPy both take


class DeliftError(Exception):
    """One line for the user: what is wrong, where, and what to do."""

    exit_code = 1


class InputError(DeliftError):
    """Bad usage or bad input: the user can mend it (exit code 2)."""

    exit_code = 2


class DamagedError(InputError):
    """What was written down is not what is there any more.

    Attributes:
        part: what of it is damaged, mostly a file's name. fault: in which way, to be read behind that.
    """

    def __init__(self, place: Path, part: str, fault: str, advice: str = "") -> None:
        super().__init__(place, part, fault, advice)  # all of them, so that it can be pickled
        self.part, self.fault = part, fault
        self._line = f"{place} is damaged: {part} {fault}" + (f"; {advice}" if advice else "")

    def __str__(self) -> str:
        return self._line


class RunError(DeliftError):
    """A failure at run time: the machine, the disk or the model (exit code 1)."""

    exit_code = 1


def check_choice(name: str, given: object, choices: Sequence[str]) -> None:
    """InputError unless what was given is one of these words."""
    if given not in choices:
        raise InputError(f"unknown {name} {given!r}: choose {', '.join(choices[:-1])} or {choices[-1]}")


def check_seed(seed: int) -> None:
    """InputError unless a seed is one that everything random here takes."""
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed {seed}: give a whole number from 0 to {LARGEST_SEED}")
