"""Questions with choices, and answers that are more than a text: lists, SQuAD's objects, an index of a choice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any, NamedTuple

from .fields import RecordError, as_list, blank
from .parts import Said

CHOICES = ("choices", "options", "endings", "choice")
SEVERAL = ("answers", "responses", "completions", "generations", "targets")  # names of fields with more than one
_ANSWER_TEXTS = ("text", "value", "answer", "content", "response", "completion", "output")
_OPTION = re.compile(r"(?:(?:option|choice)[_ ]?|op)?([a-h])", re.IGNORECASE)
_MOST_DIGITS = 15  # of a place; Python reads no number of thousands
_LABELLED = re.compile(r"\(?[A-Za-z0-9][).:]")
_LABELS = re.compile(r"(?:^|[\s,;\['\"])\(?([A-Ja-j1-9])\s?[).:]")  # within one text


class Choices(NamedTuple):
    """The choices of a question as lines of a prompt, their labels, what they are in the record, and the fields that
    they are in."""

    text: str
    labels: list[str]
    given: list[Any]
    fields: list[str]


def choices_of(fields: Mapping[str, Any], names: Mapping[str, str]) -> Choices | None:
    """The choices that a record offers: a list of texts, ARC's {text, label}, a letter's text by the letter, a list of
    {label, text}, the JSON text of any of these, a text with labels in it, or fields such as option_a, option_b. None
    where it offers none."""
    for name in CHOICES:
        key = names.get(name)
        if key and isinstance(value := fields[key], str):
            value = _value(value)
            if isinstance(value, str) and len({*_LABELS.findall(value)}) > 1:
                return Choices(value, [], [], [key])
        if key and (found := _listed(value)):
            given, labels = found
            texts = [str(text) for text in given]
            if all(_LABELLED.match(text) for text in texts):
                return Choices("\n".join(texts), labels, given, [key])
            return Choices(_lines(labels, texts), labels, given, [key])
    keys = {match[1].upper(): name for name in fields if len(name) <= 9 and (match := _OPTION.fullmatch(name))}
    labels = list(ascii_uppercase[: len(keys)])
    if len(keys) >= 2 and sorted(keys) == labels and all(isinstance(fields[key], str) for key in keys.values()):
        texts = [fields[keys[label]] for label in labels]
        return Choices(_lines(labels, texts), labels, texts, list(keys.values()))
    return None


def is_option(name: str) -> bool:
    """Can a field of this name be one of the choices of a question?"""
    return len(name) <= 9 and _OPTION.fullmatch(name) is not None


def _lines(labels: list[str], texts: list[str]) -> str:
    return "\n".join(f"{label}. {text}" for label, text in zip(labels, texts, strict=True))


def _value(text: str) -> Any:
    """The list or object whose text it is, or the text itself."""
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        return as_list(text, "")
    except RecordError:
        return text


def _listed(value: Any) -> tuple[list[Any], list[str]] | None:
    """The choices as they are, and their labels."""
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
    return value, list(labels or ()) if usable else list(ascii_uppercase[: len(value)])


def answers_in(text: str) -> dict[str, Any] | None:
    """SQuAD's object {text, answer_start} whose text it is, as tables of texts have it."""
    found = _value(text) if may_hold_answers(text) else None
    return found if isinstance(found, dict) and isinstance(found.get("text"), list) else None


def may_hold_answers(text: str) -> bool:
    """May a text be that of SQuAD's object?"""
    return text.startswith("{") and "answer_start" in text


def answer_of(value: Any, choices: Choices | None, said: Said, name: str) -> str | None:
    """The text of an answer that is more than a text, or None where it is a plain one or a list of a content's parts.

    Of several answers the first is taken. Where the prompt lists choices, an answer that is a place among them,
    counted from 0, is their label; a label or a choice's text stays as it is.
    """
    if isinstance(value, dict):
        for key in _ANSWER_TEXTS:
            if isinstance(text := value.get(key), str | list):
                if _left_beside(key, value, name, said):
                    said.note(f"of {name} its {key} is scored")
                return answer_of(text, choices, said, name) if isinstance(text, list) else text
        return None
    if isinstance(value, list):
        return _first(value, said, name)
    return _chosen(value, choices, said, name) if choices else None


def _first(values: list[Any], said: Said, name: str) -> str | None:
    """The first of several answers, each a text or an object that has one; None where it is another kind of list."""
    parts = any(isinstance(item, dict) and isinstance(item.get("type"), str) for item in values)
    if parts and name.lower() not in SEVERAL:
        return None
    keys = [_text_key(item) for item in values]
    texts = [item if key is None else item[key] for item, key in zip(values, keys, strict=True)]
    if not all(isinstance(text, str) for text in texts):
        return None
    for item, key in zip(values, keys, strict=True):
        if key is not None:
            _left_beside(key, item, f"{name}[]", said)
    if len({*texts}) > 1:
        said.note(f"{name} has several answers: the first is scored", ambiguous=True)
    return texts[0] if texts else ""


def _left_beside(key: str, answer: Mapping[str, Any], name: str, said: Said) -> bool:
    """Does an answer say something beside its text under `key`? That is told as ignored."""
    others = [other for other in answer if other != key and not blank(answer[other])]
    for other in others:
        said.ignore(f"{name}.{other}")
    return bool(others)


def _text_key(answer: Any) -> str | None:
    """Where the text of an answer is that is an object; None for any other."""
    if not isinstance(answer, dict):
        return None
    return next((key for key in _ANSWER_TEXTS if isinstance(answer.get(key), str)), None)


def _chosen(value: Any, choices: Choices, said: Said, name: str) -> str | None:
    """The label of the choice whose place an answer is; None where the answer stays as it is.

    A number is a place, unless the choices are numbers too. A text that is a choice's own is that choice.
    """
    labels, given = choices.labels, choices.given
    number = isinstance(value, int) and not isinstance(value, bool)
    counted = isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS
    place = int(value) if number or counted else -1
    if place < 0 or not labels or str(value) in labels:
        return None
    if value in given or (not number and value in map(str, given)):
        if place < len(given) and str(given[place]) != str(value):
            said.note(f"{name} is a choice's own text and could be a place among them: it stays", ambiguous=True)
        return None
    if place < len(labels):
        said.note(f"{name} is a place among the choices, counted from 0: its label is scored", ambiguous=True)
        return labels[place]
    said.note(f"{name} is no label, text or place among the choices, counted from 0: it stays", ambiguous=True)
    return None
