"""Folders of GGUF files, and the folders in which other programs keep theirs: LM Studio, llama.cpp, the hub's cache."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError
from ...machine.kept import expanded, home, user_caches
from ..parts import part_of

_BESIDE = re.compile(r"(^|[-_.])(mmproj|imatrix|lora|adapter)([-_.]|$)", re.IGNORECASE)  # GGUF, but no language model


class Found(NamedTuple):
    """A model on this machine: how `-m` may name it, its (first) file, and whose place it is in."""

    name: str
    path: Path
    place: str


def is_model_name(name: str) -> bool:
    """May a file of this name be a language model's only or first file?"""
    part = part_of(name)
    first = part is None or part.number == 1
    return name.lower().endswith(".gguf") and first and not _BESIDE.search(name)


def models_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """The models that lie in a folder, in order; of a split one its first file. Deep: in those below it too."""
    try:
        entries = folder.rglob("*") if deep else folder.iterdir()
        return sorted(entry for entry in entries if is_model_name(entry.name) and entry.is_file())
    except OSError:
        return []


def matching(folder: Path, pattern: str) -> list[Path]:
    """What a folder has under names of this form, in order; nothing where it may not be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def only_model(folder: Path) -> Path:
    """The one model of a folder.

    Raises:
        InputError: there is none, or several, with their names.
    """
    found = models_in(folder)
    if len(found) == 1:
        return found[0]
    others = found or matching(folder, "*.gguf")
    if not others:
        raise InputError(f"model {folder} is a directory without a GGUF file")
    names = ", ".join(path.name for path in others[:6]) + (", …" if len(others) > 6 else "")
    holds = f"{len(found)} models" if found else "no model, by the names of its GGUF files"
    raise InputError(f"model {folder} holds {holds}; give one of them: {names}")


# ---------------------------------------------------------------------- other programs' folders


def lm_studio_folders() -> list[Path]:
    """Where LM Studio keeps models: publisher/model/file.gguf."""
    mine = home()
    return [mine / ".lmstudio" / "models", mine / ".cache" / "lm-studio" / "models"] if mine else []


def llama_cpp_folder() -> Path | None:
    """Where llama.cpp's own programs keep what they download, None for a user without a home directory."""
    if own := os.environ.get("LLAMA_CACHE"):
        return Path(own)
    mine = home()
    caches = mine and mine / "Library" / "Caches" if sys.platform == "darwin" else user_caches()
    return caches and caches / "llama.cpp"


def hub_folder() -> Path | None:
    """The cache of huggingface_hub, found as it finds it; None for a user without a home directory."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if own := os.environ.get(variable):
            return expanded(own) / below
    caches = user_caches()
    return caches and caches / "huggingface" / "hub"


def hub_commit(repo: Path, revision: str) -> str:
    """The commit that a repository in the hub's cache has under this name; the name itself where it has none."""
    try:
        return (repo / "refs" / revision).read_text().strip()
    except OSError:
        return revision


def found_on_disk() -> Iterator[Found]:
    """Models of this folder, of $DELIFT_MODELS, of LM Studio, llama.cpp and the hub's cache."""
    own = [Path.cwd(), *(Path(part) for part in os.environ.get("DELIFT_MODELS", "").split(os.pathsep) if part)]
    for folder in own:
        for path in models_in(folder):
            name = path.name if folder == Path.cwd() else str(path)
            yield Found(name, path, "here" if folder == Path.cwd() else str(folder))
    for folder in lm_studio_folders():
        for path in models_in(folder, deep=True):
            yield Found(str(path.relative_to(folder)), path, "LM Studio")
    llama_cpp, hub = llama_cpp_folder(), hub_folder()
    for path in models_in(llama_cpp) if llama_cpp else ():
        yield Found(path.name, path, "llama.cpp")
    for repo in matching(hub, "models--*") if hub else ():
        yield from _cached_of(repo)


def _cached_of(repo: Path) -> Iterator[Found]:
    """The models of a repository in the hub's cache; those that its main revision lacks have their commit's name."""
    name, main = repo.name.removeprefix("models--").replace("--", "/", 1), hub_commit(repo, "main")
    latest: dict[str, Found] = {}
    for snapshot in sorted(matching(repo, "snapshots/*"), key=lambda path: (path.name == main, path.stat().st_mtime)):
        revision = "" if snapshot.name == main else f"@{snapshot.name}"
        for path in models_in(snapshot, deep=True):
            file = str(path.relative_to(snapshot))
            latest[file] = Found(f"hf:{name}{revision}:{file}", path, "hub cache")
    yield from (latest[file] for file in sorted(latest))
