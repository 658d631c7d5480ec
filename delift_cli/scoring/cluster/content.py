"""Files that a worker needs, named by their content: a model, its adapters. Where they are, and how they arrive."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ...cache.files import write_all
from ...errors import DeliftError, RunError
from ...machine.kept import cache_directory, file_sha256
from ...model.converted import ARRIVING
from ...model.parts import Part, part_of, parts_of
from ...model.places import locate


class Content(NamedTuple):
    """A GGUF by its content: SHA-256 over its files end to end, where the client has it, their names and sizes."""

    sha256: str
    path: str
    files: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """What people call it."""
        return self.files[0][0]

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(size for _, size in self.files)


def content_of(path: Path, sha256: str) -> Content:
    """A file of this machine, or all files of a split model, whose SHA-256 is known."""
    return Content(sha256, str(path.absolute()), tuple((part.name, part.stat().st_size) for part in parts_of(path)))


def take_part(content: Content, number: int, offset: int, part: bytes) -> None:
    """A part of one of the files, in any order; see `keep`.

    Raises:
        RunError: there is no room.
    """
    draft = _draft(_received(content)[number])
    name, size = content.files[number]
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        if offset == 0 and shutil.disk_usage(draft.parent).free < size:
            raise RunError(f"no space for {name} ({size / 1e9:.1f} GB) in {draft.parent}")
        file = os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            write_all(file, part, offset)
        finally:
            os.close(file)
    except OSError as error:
        raise RunError(f"cannot keep {name} in {draft.parent}: {error.strerror}") from None


def keep(content: Content) -> None:
    """All parts have arrived: kept with the converted models if they are what was announced, else RunError."""
    for place in _received(content):
        _draft(place).replace(place)
    if find(content) is None:
        for place in _received(content):
            place.unlink(missing_ok=True)
        raise RunError(f"{content.name} arrived damaged: its SHA-256 is not the announced one")


def find(content: Content) -> Path | None:
    """Where it is: at the client's path, where $DELIFT_MODEL says, or where it was received; by its SHA-256."""
    own: list[Path] = []
    with suppress(DeliftError):
        own = [locate(None)]
    for path in (Path(content.path), *own, _received(content)[0]):
        with suppress(DeliftError, OSError):
            states = [(part, part.stat()) for part in parts_of(path)]
            if tuple(state.st_size for _, state in states) != tuple(size for _, size in content.files):
                continue
            if _digest(tuple((part, state.st_size, state.st_mtime_ns) for part, state in states)) == content.sha256:
                return path
    return None


@lru_cache(64)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 of files as they are now: their sizes and times of change say when that is over."""
    return file_sha256(*(path for path, _, _ in files))


def _received(content: Content) -> list[Path]:
    """Where the files are that were sent; named as llama.cpp wants the parts of a split one."""
    path = Path(content.path)
    part = part_of(path.name)
    head = f"{part.head if part else path.stem}-{content.sha256[:16]}-received"
    names = Part(head, 1, part.total).all_names() if part else [f"{head}.gguf"]
    return [cache_directory() / name for name in names]


def _draft(place: Path) -> Path:
    return place.with_suffix(f".{os.getpid()}{ARRIVING}")
