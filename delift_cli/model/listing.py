"""What the models on this machine are, from their headers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InputError
from .gguf import ModelFile
from .header import read_header
from .places.beside import templates_beside
from .places.locate import found_here
from .places.on_disk import Found


@dataclass(frozen=True)
class Listed:
    """One model: how `-m` may name it, where it lies, what it is, and whether delift can use it (else why not)."""

    name: str
    path: str
    place: str
    bytes: int
    architecture: str | None
    quantization: str | None
    context: int | None
    chat_template: bool
    usable: bool
    reason: str | None


def list_models() -> Iterator[Listed]:
    """The models that are found on this machine, each file once."""
    for each in found_here():
        yield describe(each)


def describe(found: Found) -> Listed:
    """What a model's file says of itself; one that cannot be used has the reason."""
    size = found.path.stat().st_size
    try:
        file = ModelFile(found.path)
    except InputError as error:
        return _unusable(found, size, str(error))
    size = sum(part.stat().st_size for part in file.parts)
    return Listed(
        found.name,
        str(found.path),
        found.place,
        size,
        file.architecture,
        file.quantization(),
        file.context,
        bool(file.templates) or bool((beside := templates_beside(found.path)) and beside.templates),
        usable=True,
        reason=None,
    )


def _unusable(found: Found, size: int, reason: str) -> Listed:
    try:
        architecture: str | None = read_header(found.path).architecture
    except InputError:
        architecture = None
    reason = reason.removeprefix(f"model {found.path} ").removeprefix(f"{found.path} ")
    return Listed(found.name, str(found.path), found.place, size, architecture, None, None, False, False, reason)
