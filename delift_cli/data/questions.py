"""Questions with choices, and answers that are more than a text: lists, SQuAD's objects, an index of a choice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any, NamedTuple

from .parts import Said

CHOICES = ("choices", "options", "endings")
_OPTION = re.compile(r"(?:(?:option|choice)[_ ]?|op)?([a-h])", re.IGNORECASE)
_LABELLED = re.compile(r"\(?[A-Za-z0-9][).:]")


class Choices(NamedTuple):
    """The choices of a question as lines of a prompt, their labels, and the fields that they are in."""

    text: str
    labels: list[str]
    fields: list[str]


def choices_of(fields: Mapping[str, Any], names: Mapping[str, str]) -> Choices | None:
    """The choices that a record offers: a list of texts, ARC's {text, label}, a letter's text by the letter, a list of
    {label, text}, or fields such as option_a, option_b. None where it offers none."""
    for name in CHOICES:
        if (key := names.get(name)) and (found := _listed(fields[key])):
            texts, labels = found
            if all(_LABELLED.match(text) for text in texts):
                return Choices("\n".join(texts), labels, [key])
            return Choices(_lines(labels, texts), labels, [key])
    keys = {match[1].upper(): name for name in fields if len(name) <= 9 and (match := _OPTION.fullmatch(name))}
    labels = list(ascii_uppercase[: len(keys)])
    if len(keys) >= 2 and sorted(keys) == labels and all(isinstance(fields[key], str) for key in keys.values()):
        return Choices(_lines(labels, [fields[keys[label]] for label in labels]), labels, list(keys.values()))
    return None


def is_option(name: str) -> bool:
    """Can a field of this name be one of the choices of a question?"""
    return len(name) <= 9 and _OPTION.fullmatch(name) is not None


def _lines(labels: list[str], texts: list[str]) -> str:
    return "\n".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))


def _listed(value: Any) -> tuple[list[str], list[str]] | None:
    """Texts and labels."""
    labels: list[Any] | None = None
    if isinstance(value, dict):
        if isinstance(value.get("text"), list):
            value, labels = value["text"], value.get("label")
        else:
            value, labels = list(value.values()), list(value)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "text" in item for item in value):
        labels = [item.get("label", item.get("key")) for item in value]
        value = [item["text"] for item in value]
    if not isinstance(value, list) or not 2 <= len(value) <= 26:
        return None
    if not all(isinstance(text, str | int | float) for text in value):
        return None
    usable = isinstance(labels, list) and len(labels) == len(value) and all(isinstance(name, str) for name in labels)
    return [str(text) for text in value], list(labels or ()) if usable else list(ascii_uppercase[: len(value)])


def answer_of(value: Any, labels: list[str] | None, said: Said, name: str) -> str | None:
    """The text of an answer that is more than a text, or None where it is a plain one.

    Of several answers the first is taken. Where the prompt lists choices, an answer that is a place among them,
    counted from 0, is their label; a label or a choice's text stays as it is.
    """
    if isinstance(value, dict):
        for key in ("text", "value", "answer", "content"):
            if isinstance(value.get(key), str | list):
                return answer_of(value[key], labels, said, name) if isinstance(value[key], list) else value[key]
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        if len(dict.fromkeys(value)) > 1:
            said.note(f"{name} has several answers: the first is scored", ambiguous=True)
        return value[0] if value else ""
    if labels and not isinstance(value, bool):
        place = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else -1
        if str(value) not in labels and 0 <= place < len(labels):
            said.note(f"{name} is a place among the choices, counted from 0: its label is scored", ambiguous=True)
            return labels[place]
    return None
