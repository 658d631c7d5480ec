"""What an assistant thought before it spoke, in the forms that public data give it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .fields import RecordError, kind, quoted

THOUGHTS = ("reasoning_content", "thinking", "reasoning")
_DEEPEST = 8  # lists and objects in each other; public forms have three
_TEXTS = ("thinking", "text", "reasoning", "content", "reasoningText", "summary")
# what a field of such a name says where it tells how a model is to think, not what it thought
_MODES = {"on", "off", "true", "false", "yes", "no", "none", "auto", "enabled", "disabled", "low", "medium", "high"}
_MODES |= {"minimal", "default", "no_think", "nothink"}
_OWN = re.compile(r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]|<\|end_of_thought\|>")


def is_mode(value: Any) -> bool:
    """Does a value say how to think, rather than what was thought?"""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _MODES)


def thought_text(value: Any, depth: int = 0) -> str | None:
    """The text of a thought: a text, a list of texts or parts, an object that has one; None for what is none."""
    if value is None or isinstance(value, str):
        return value or ""
    if depth > _DEEPEST:
        return None
    if isinstance(value, list):
        texts = [thought_text(part, depth + 1) for part in value]
        # parts that are texts are pieces of one; anything else are steps
        between = "" if all(isinstance(part, dict) and part.get("type") == "text" for part in value) else "\n\n"
        return None if None in texts else between.join(filter(None, texts))
    if isinstance(value, dict):
        found = [thought_text(value[key], depth + 1) for key in _TEXTS if key in value]
        return next((text for text in found if text and text.strip()), "" if found and None not in found else None)
    return None


def thought_beside(fields: Mapping[str, Any], response: str, where: str, said: Any) -> tuple[str, str]:
    """The first of THOUGHTS that holds one, and what it says; two empty texts where there is none to read.

    A mode is no thought, and a response that has a thought of its own gets no other: both are said.

    Raises:
        RecordError: something under such a name is no thought that can be read.
    """
    name, thought = "", ""
    for key in THOUGHTS:
        value = fields.get(key)
        if is_mode(value):
            said.note(f"{key} is a mode and no thought: it is left")
            continue
        if (text := thought_text(value)) is None:
            raise RecordError(f"{where}{quoted(key)} is {kind(value)} that holds no thought")
        if not text.strip():
            continue
        if _OWN.search(response):
            said.note(f"the response has its thought in it: {key} is left", ambiguous=text.strip() not in response)
        elif not thought:
            name, thought = key, text
        elif text != thought:
            said.note(f"{name} is the thought, {key} left", ambiguous=True)
    return name, thought
