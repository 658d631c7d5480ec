"""In which way a model runs targets behind a prefix: by what its file says, and by a self-check before each run.

What was found of a model with its settings on this machine is remembered beside its tuning, so that a run that was
checked before begins at once. An architecture or an adapter that was never tried here is tried in a child process, for
some ways, and some files, end the process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from ..errors import InputError
from ..machine.kept import read_book, remember
from ..model.gguf import ModelFile
from ..model.llama import VERSION, Settings
from ..prompt.encoding import EncodedExamples
from .pairs import TargetTokens
from .self_check import RULE, Finding, some_pairs, try_in_child, try_ways
from .tuning import machine

STATES = 16  # whole states beside each other: they fill a batch with targets of ordinary length
BOOK = "checks"


def first_way(file: ModelFile) -> int | None:
    """What its file says of it, as `Settings.states`."""
    return STATES if file.keeps_states else None


def checked(
    file: ModelFile,
    sha256: str,
    settings: Settings,
    examples: EncodedExamples,
    targets: TargetTokens,
    *,
    fixed: bool,
    say: Callable[[str], None],
) -> Settings:
    """The settings with the way that a few of the pairs confirm: the one they name, else a slower one.

    Args:
        file: the weights that will run; sha256: of the original's file.
        fixed: a cache was begun in this way: no other will do.

    Raises:
        InputError: the pairs confirm no way.
    """
    allowed = [settings.states] if fixed else _ladder(settings.states)
    key = _key(file, sha256, settings, allowed)
    findings = _remembered(key)
    if findings is None:
        trial = some_pairs(examples, targets)
        adapted = "".join(f"|{adapter.sha256}" for adapter in settings.adapters)
        survived = f"{file.architecture}|{settings.resolved_gpu_layers() > 0}|{allowed}|{RULE}|{machine()}{adapted}"
        findings = list((try_ways if survived in read_book(BOOK) else try_in_child)(file, settings, trial, allowed))
        if findings[-1].reason is None:  # what fails may do so for want of memory
            remember(BOOK, key, [asdict(finding) for finding in findings])
            if not any(finding.ended for finding in findings):
                remember(BOOK, survived, True)
    last = findings[-1]
    if last.reason is not None:
        raise InputError(
            f"delift cannot score with model {file.path} ({file.architecture})"
            + "".join(f" with adapter {adapter.path}" for adapter in settings.adapters)
            + f" under llama-cpp-python {VERSION}: {last.reason}"
        )
    if len(findings) > 1:
        say(
            f"{file.architecture}: targets are evaluated {_name(last.states)}, for the faster way fails with this "
            f"model: {findings[-2].reason}"
        )
    return replace(settings, states=last.states)


def _ladder(first: int | None) -> list[int | None]:
    """The ways that are worth a try, the fastest first."""
    ladder = [None, STATES, 1]
    return ladder[ladder.index(first) :] if first in ladder else [first, 1]


def _name(states: int | None) -> str:
    return "one at a time" if states == 1 else f"as up to {states} whole states at a time"


def _key(file: ModelFile, sha256: str, settings: Settings, allowed: Sequence[int | None]) -> str:
    named = {**asdict(settings), "threads": None, "file": file.path.name, "ways": list(allowed), "rule": RULE}
    return f"{sha256}|{machine()}|{json.dumps(named, sort_keys=True)}"


def _remembered(key: str) -> list[Finding] | None:
    try:
        return [Finding(**finding) for finding in read_book(BOOK)[key]]
    except (KeyError, TypeError):
        return None
