"""The chat template of a model: the one that was asked for, its own, or one that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model.gguf import ModelFile
from ..model.places.beside import templates_beside
from ..progress import Say, silent
from .builtin import load_template
from .template import ChatTemplate


def chat_template(
    file: ModelFile,
    choice: str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    as_trained: bool = False,
    say: Say = silent,
) -> ChatTemplate:
    """`load_template` for a model's file; what is used in place of a template of its own is said.

    Raises:
        InputError: as `load_template`.
    """
    own = file.templates
    beside = None if own else templates_beside(file.path)
    if beside is not None:
        own = beside.templates
        if choice is None and own:
            say(f"the model has no chat template; the one beside it is used: {beside.where}{beside.more}")
        elif choice is None:
            say(f"several models lie beside a chat template; if it is this one's: --template {beside.where}")
    return load_template(choice, own, file.vocabulary, arguments=arguments or {}, as_trained=as_trained, say=say)
