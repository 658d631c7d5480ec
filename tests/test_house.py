"""The law of the house: a room imports only from rooms below it, and llama.cpp is touched in one room alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "delift_cli"
FLOORS = (  # from the top down; rooms of one floor do not import each other
    ("__main__",),
    ("cli",),
    ("commands",),
    ("__init__",),
    ("report", "doctor"),
    ("selection", "evaluation"),
    ("budget",),
    ("scoring",),
    ("cache", "prompt"),
    ("data",),
    ("submodular", "model"),
    ("amount", "progress", "display", "compiled"),
    ("machine", "visible", "hub", "ranks", "compressed"),
    ("errors", "version"),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
ONLY_IN = {"llama_cpp": "model"}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports; relative names are made absolute."""
    package = ("delift_cli", *file.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room_of(parts: tuple[str, ...]) -> str:
    return parts[0] if parts and parts[0] in LEVEL else "__init__"


def faults(files: Iterator[Path]) -> list[str]:
    found = []
    for file in files:
        here = room_of(file.relative_to(PACKAGE).with_suffix("").parts)
        for line, name in imports(file):
            top, *rest = name.split(".")
            where = f"{file.relative_to(PACKAGE.parent)}:{line}"
            if here != ONLY_IN.get(top, here):
                found.append(f"{where}: {top} belongs to {ONLY_IN[top]}/ alone")
            if top == "delift_cli" and (there := room_of(tuple(rest))) != here and LEVEL[there] <= LEVEL[here]:
                found.append(f"{where}: {here} imports {there}, which is not below it")
    return found


def test_every_import_points_down() -> None:
    assert faults(PACKAGE.rglob("*.py")) == []


def test_every_room_has_its_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms == set(LEVEL)


@pytest.mark.parametrize(
    ("room", "line", "fault"),
    [
        ("data", "from ..scoring.pairs import Work", "data imports scoring"),
        ("cache", "from delift_cli.prompt import trie", "cache imports prompt"),
        ("submodular", "from .. import select", "submodular imports __init__"),
        ("budget", "def f():\n    import llama_cpp", "llama_cpp belongs to model/"),
    ],
)
def test_an_arrow_that_goes_up_is_found(room: str, line: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PACKAGE / room / "upward.py"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self: line if self == file else read(self))
    (found,) = faults(iter([file]))
    number = line.count("\n") + 1
    assert found.startswith(f"delift_cli/{room}/upward.py:{number}: ")
    assert fault in found
