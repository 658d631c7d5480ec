"""The files of a model that is split, named as llama.cpp names and looks for them: `name-00001-of-00003.gguf`.

Case counts, as it does to llama.cpp, which loads no other spelling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

_NAME = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)


class Part(NamedTuple):
    """One of so many files of a model; `number` is from 1 to `total`."""

    head: str
    number: int
    total: int

    def all_names(self) -> list[str]:
        """The names of all files, in order."""
        return [f"{self.head}-{number:05}-of-{self.total:05}.gguf" for number in range(1, self.total + 1)]


def part_of(name: str) -> Part | None:
    """What the name of a file, with or without folders, says of the model that it is a part of; None: it is whole."""
    match = _NAME.fullmatch(name)
    part = match and Part(match[1], int(match[2]), int(match[3]))
    return part if part and 1 <= part.number <= part.total else None


def parts_of(path: Path) -> list[Path]:
    """All files of a model: `path`, or every one of which it is the first; InputError where one is missing."""
    part = part_of(path.name)
    if part is None:
        return [path]
    names = part.all_names()
    if part.number != 1:
        raise InputError(f"model {path} is part {part.number} of {part.total}; give its first part, {names[0]}")
    parts = [path.with_name(name) for name in names]
    missing = [file.name for file in parts if not file.exists()]
    if missing:
        raise InputError(f"model {path} is split, and {listed(missing)} missing beside it")
    return parts


def listed(names: Sequence[str]) -> str:
    """Names of files that a sentence says something of: `a, b are`."""
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"
