"""Chat templates that lie beside a model which has none of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import ollama
from .on_disk import models_in

CONFIGS = ("tokenizer_config.json", "chat_template.json")


class Beside(NamedTuple):
    """Templates by name, where they are from, and what is to be said besides."""

    templates: dict[str, str]
    where: str
    more: str = ""


def templates_beside(path: Path) -> Beside | None:
    """The chat templates of a model's file that its folder, or Ollama, has; None where there are none.

    In a folder of several models it would be anybody's guess whose they are: then none is taken, and `templates` is
    empty.
    """
    ours = ollama.templates_of(path)
    if ours:
        first, *others = ours
        more = f"; {', '.join(others)} has another one: --template {others[0]}" if others else ""
        return Beside(ours, f"Ollama, model {first}", more)
    try:
        found = next(_in_folder(path.parent), None)
    except (OSError, ValueError, RecursionError):
        return None
    return found._replace(templates={}) if found and len(models_in(path.parent)) != 1 else found


def _in_folder(folder: Path) -> Iterator[Beside]:
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        further = sorted((folder / "additional_chat_templates").glob("*.jinja"))
        named = {file.stem: file.read_text(encoding="utf-8") for file in further}
        yield Beside({"default": jinja.read_text(encoding="utf-8")} | named, str(jinja))
    for name in CONFIGS:
        config = folder / name
        given = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
        if named := templates_of_config(given):
            yield Beside(named, str(config))


def templates_of_config(config: Any) -> dict[str, str]:
    """The chat templates of a tokenizer_config.json by name; empty where it has none."""
    given = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(given, str):
        return {"default": given}
    entries = given if isinstance(given, list) else []
    return {entry["name"]: entry["template"] for entry in entries if _is_template(entry)}


def _is_template(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("name", "template"))
