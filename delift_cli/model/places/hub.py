"""Models of the Hugging Face hub: from its cache on this machine, else downloaded into it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import InputError
from ...hub import MODEL, Repository, UnansweredError
from ...progress import Say, silent
from ..parts import listed, part_of
from .on_disk import hub_commit, hub_folder, is_model_name, models_in

DEFAULT_QUANTIZATION = "Q4_K_M"  # llama.cpp's own default where a repository has several
_NAME = re.compile(
    r"(?:hf:|(?:https?://)?(?:hf\.co|huggingface\.co)/)"
    r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+?))?(?::(?P<which>[\w./-]+))?/?"
)


class Asked(NamedTuple):
    """What `hf:owner/repo[@revision][:quantization or file]` names."""

    repo: str
    revision: str | None
    which: str | None


def parse(choice: str) -> Asked | None:
    """The parts of a name; None where it is none of the hub's.

    Raises:
        InputError: it begins as one, but is none.
    """
    match = _NAME.fullmatch(choice)
    if match:
        return Asked(match["repo"], match["revision"], match["which"])
    if choice.startswith(("hf:", "hf.co/", "huggingface.co/")):
        raise InputError(f"model {choice}: give hf:owner/repo, or hf:owner/repo:Q4_K_M")
    return None


def find(asked: Asked, choice: str, say: Say = silent) -> Path:
    """The (first) file of a model of the hub, out of its cache if it is there.

    What is meant where no quantization or file is given does not depend on what the cache has, unless the hub cannot be
    asked.

    Args:
        say: takes a line where it could not be asked, and the only model in its cache is taken.

    Raises:
        InputError: there is no such model or file, several fit, the hub does not answer, or huggingface_hub lacks.
    """
    cached = _cached(asked)
    certain = [name for name in cached if _fits(name, asked.which or DEFAULT_QUANTIZATION)]
    if len(certain) == 1:
        return cached[certain[0]]
    try:
        return _found_on_hub(asked, choice)
    except UnansweredError:
        if asked.which is not None or not cached:
            raise
    name = choose(list(cached), asked, choice, "The hub cannot be asked, its cache")
    say(f"model {choice}: the hub cannot be asked which one is meant: {name} is taken, the only one in its cache")
    return cached[name]


def _found_on_hub(asked: Asked, choice: str) -> Path:
    """The model, downloaded where it is not in the cache."""
    repository = Repository(f"model {choice}", MODEL, asked.repo, asked.revision)
    names = repository.file_names()
    name = choose([name for name in names if is_model_name(PurePosixPath(name).name)], asked, choice)
    first, *_ = [repository.download(part) for part in parts_on_hub(name, names, choice)]
    return first


def choose(names: list[str], asked: Asked, choice: str, holder: str = "It") -> str:
    """The one of a repository's models that is asked for.

    Raises:
        InputError: none or several fit; they are named.
    """
    if not names:
        raise InputError(f"model {choice}: the repository has no GGUF file; look for one whose name ends in -GGUF")
    fitting = [name for name in names if _fits(name, asked.which or "")]
    if asked.which is None and len(fitting) > 1:
        fitting = [name for name in names if _fits(name, DEFAULT_QUANTIZATION)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(sorted(names)[:12]) + (", …" if len(names) > 12 else "")
    problem = "which one?" if fitting else f"there is no {asked.which}"
    raise InputError(f"model {choice}: {problem} {holder} has {listed}; give hf:{asked.repo}:FILE or its quantization")


def parts_on_hub(name: str, names: list[str], choice: str) -> list[str]:
    """All files of a model of which this is the only or first one; InputError where the repository lacks some."""
    part = part_of(name)
    parts = part.all_names() if part else [name]
    there = set(names)
    missing = [each for each in parts if each not in there]
    if missing:
        raise InputError(f"model {choice}: {name} is split, and {listed(missing)} not in the repository")
    return parts


def _fits(name: str, which: str) -> bool:
    """Is `which` the name of a model's (first) file, or what its name ends in: a quantization, whatever its case?"""
    if not which or which == name:
        return True
    file = PurePosixPath(name).name
    part = part_of(file)
    stems = [stem.lower().removesuffix(".gguf") for stem in (file, part.head if part else file)]
    wanted = which.lower().removesuffix(".gguf")
    return any(stem == wanted or stem.endswith((f"-{wanted}", f"_{wanted}", f".{wanted}")) for stem in stems)


def _cached(asked: Asked) -> dict[str, Path]:
    """The models of a repository that are in the hub's cache, whole, by name."""
    kept = hub_folder()
    if kept is None:
        return {}
    folder = kept / f"models--{asked.repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / hub_commit(folder, asked.revision or "main")
    return {str(path.relative_to(snapshot)): path for path in models_in(snapshot, deep=True) if _is_whole(path)}


def _is_whole(path: Path) -> bool:
    """Are all files there of the model of which this is the first?"""
    part = part_of(path.name)
    return part is None or all(path.with_name(name).exists() for name in part.all_names())
