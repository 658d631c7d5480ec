"""The chat template of a model: the one that was asked for, its own, or one that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model.gguf import ModelFile
from ..model.places.on_disk import template_beside
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
    if not own and choice is None and (beside := template_beside(file.path)) is not None:
        own, where = beside
        say(f"the model has no chat template; the one beside it is used: {where}")
    return load_template(choice, own, file.vocabulary, arguments=arguments or {}, as_trained=as_trained, say=say)
