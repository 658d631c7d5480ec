"""The content of a turn: a text, or a list of parts, with what a part may hold besides text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

import orjson

from .fields import RecordError, as_text, blank, kind, literal, null_filled, quoted, without_nulls
from .record import Call, Message
from .thoughts import thought_text

ARGUMENTS = ("arguments", "parameters", "args", "input")
_UNSEEN = ("image", "audio", "video", "file", "document", "inline_data", "inlinedata", "filedata")
_TEXTS = ("text", "input_text", "output_text", "refusal", "thinking", "reasoning")
_SHOWN = ("source", "data", "mimeType")  # where a part has what it shows
_CALLS = ("functionCall", "function_call", "toolUse")
_ANSWERS = ("functionResponse", "function_response", "toolResult")
_ABOUT = {"type", "text", "thought", "thoughtSignature", "thought_signature"}
_ABOUT |= {"cache_control", "citations", "annotations"}


class Content(NamedTuple):
    """What a turn says, calls and thinks, and the answers of tools that it brings."""

    text: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    answers: tuple[Message, ...] = ()


class Said:
    """What there is to say of the reading of one record."""

    __slots__ = ("ambiguous", "ignored", "notes")

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ambiguous: list[str] = []
        self.ignored: list[str] = []

    def note(self, text: str, *, ambiguous: bool = False) -> None:
        """Something that was done; once for each record, however often it occurs in it."""
        if ambiguous and text in self.notes:
            self.notes.remove(text)
        if text not in self.notes and text not in self.ambiguous:
            (self.ambiguous if ambiguous else self.notes).append(text)

    def ignore(self, name: str) -> None:
        """A field or a turn's key that has no part in the reading."""
        if name not in self.ignored:
            self.ignored.append(name)


def content_of(value: Any, where: str, *, any_value: bool = False) -> Content:
    """A turn's content: a text, a number or truth value as its JSON text, texts each after an empty line, or parts,
    whose texts are joined as chat templates do; with `any_value` anything that is neither a text nor parts as JSON.

    Parts are those of OpenAI, Anthropic, Bedrock and Gemini: texts, thoughts, calls of tools and their answers.

    Raises:
        RecordError: there is a part that a text model cannot see, or something that is no text.
    """
    if isinstance(value, str):
        return Content(value)
    if isinstance(value, bool | int | float):
        return Content(as_text(value))
    if isinstance(value, dict) and not any_value:
        if isinstance(value.get("parts"), list):
            value = value["parts"]
        elif "text" not in value and not _is_part(value):
            raise RecordError(f"{where}: the content is {kind(value)}, not text")
        else:
            value = [value]
    if not any_value and is_texts(value):
        return Content("\n\n".join(value))
    if isinstance(value, list) and (not any_value or all(_is_part(part) for part in value)):
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Call] = []
        answers: list[Message] = []
        for part in value:
            found = _part(without_nulls(part) if isinstance(part, dict) else part, where)
            texts.append(found.text)
            thoughts.append(found.reasoning)
            calls += found.calls
            answers += found.answers
        return Content("".join(texts), "\n".join(filter(None, thoughts)), tuple(calls), tuple(answers))
    if any_value:
        return Content("" if value is None else json.dumps(value, ensure_ascii=False))
    raise RecordError(f"{where}: the content is {kind(value)}, not text")


def is_texts(value: Any) -> TypeGuard[list[str]]:
    """Is it a list of texts?"""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def extra_text(value: Any, key: str, raw: bytes, said: Said) -> str:
    """What a field beside the prompt adds to it: a text, texts each after an empty line, either of them in an object,
    a number as it stands in `raw`, anything else as JSON text. What is no text is said."""
    if isinstance(value, dict):
        name = next((name for name in ("text", "passage_text") if isinstance(value.get(name), str | list)), "")
        if name and (is_texts(value[name]) or isinstance(value[name], str)):
            said.note(f"{key} is an object: its {name} is in the prompt")
            value = value[name]
    if isinstance(value, str):
        return value
    if is_texts(value):
        return "\n\n".join(value)
    if isinstance(value, list | dict):
        said.note(f"{key} is no text: its JSON text is in the prompt")
        return content_of(value, key, any_value=True).text
    return literal(raw, key, value)


def calls_of(value: Any, where: str) -> tuple[Call, ...]:
    """The calls in a list of them, one alone, or the JSON text of either."""
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise RecordError(f"{where} is a text that is not JSON") from None
    calls = value if isinstance(value, list) else [value]
    return tuple(_call(call, where) for call in calls if call is not None and not null_filled(call))


def listed_calls(value: Any, where: str) -> tuple[Call, ...]:
    """The calls in an answer that is a list of {name, arguments}, one such object, or its JSON text; else none."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return ()
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list) or not all(isinstance(call, dict) and "arguments" in call for call in value):
        return ()
    return calls_of(value, where) if all(isinstance(call.get("name"), str) for call in value) else ()


def _call(call: Any, where: str) -> Call:
    if isinstance(call, str):
        try:
            call = orjson.loads(call)
        except orjson.JSONDecodeError:
            call = None
    inner = call.get("function", call) if isinstance(call, dict) else None
    if isinstance(inner, str) and isinstance(call, dict):  # {"function": "name", "arguments": …}
        inner = {**call, "name": inner}
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise RecordError(f"{where}: a call of a tool has no name: {quoted(json.dumps(call))}")
    given: Any = next((inner[key] for key in ARGUMENTS if inner.get(key) is not None), {})
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return Call(inner["name"], arguments, str(call.get("id") or call.get("tool_call_id") or ""))


def _is_part(value: Any) -> bool:
    """Is it a part of a content, rather than data of another kind?"""
    if not isinstance(value, dict):
        return False
    if _acts(value) or isinstance(value.get("reasoningContent"), dict):
        return True
    if isinstance(sort := value.get("type"), str):
        seen = not _unseen(value)
        return sort in _TEXTS if seen else not {sort, *_SHOWN}.isdisjoint(value)
    return {*value} == {"json"} or _unseen(value) != "" or ("text" in value and not _beside_text(value))


def _acts(part: Mapping[str, Any]) -> bool:
    """Is a part a call of a tool, or what one answered?"""
    called = any(isinstance(part.get(key), dict) for key in (*_CALLS, *_ANSWERS))
    return called or part.get("type") in ("tool_use", "tool_result")


def _beside_text(part: Mapping[str, Any]) -> list[str]:
    """The keys beside a part's text that say something, so that the text is not all of it."""
    return [key for key, value in part.items() if key not in _ABOUT and not blank(value)]


def _unseen(part: Mapping[str, Any]) -> str:
    """By its type or its key, what a part shows or plays."""
    sort = part.get("type")
    if isinstance(sort, str) and sort.lower().removeprefix("input_").startswith(_UNSEEN):
        return sort
    inner = (key for key, value in part.items() if isinstance(value, dict) and value)
    shown = (key for key in inner if key.lower().startswith(_UNSEEN))
    plain = (key for key in ("image", "image_url", "audio", "video") if isinstance(part.get(key), str) and part[key])
    return next(shown, next(plain, "") if "text" in part else "")


def _part(part: Any, where: str) -> Content:
    if isinstance(part, str):
        return Content(part)
    if not isinstance(part, dict):
        raise RecordError(f"{where}: a part of the content is {kind(part)}, not text")
    sort = part.get("type")
    for key in _CALLS:
        if isinstance(call := part.get(key), dict):
            return Content("", calls=(_call({**call, "id": call.get("toolUseId") or call.get("id")}, where),))
    for key in _ANSWERS:
        if isinstance(answer := part.get(key), dict):
            return Content("", answers=(_answer(answer, where),))
    if sort == "tool_use":
        return Content("", calls=(_call(part, where),))
    if sort == "tool_result":
        return Content("", answers=(_answer(part, where),))
    inner = part.get("reasoningContent")
    if sort in ("thinking", "reasoning") or part.get("thought") is True or isinstance(inner, dict):
        if (thought := thought_text(inner or part)) is None:
            raise RecordError(f"{where}: a part of the content is a thought that cannot be read")
        return Content("", reasoning=thought)
    known = sort if isinstance(sort, str) else next(iter(part), "")
    if unseen := _unseen(part) or (known if known.lower().startswith(_UNSEEN) else ""):
        what = next((name for name in ("image", "audio", "video") if name in f"{unseen} {_mime(part)}".lower()), "file")
        article = "an" if what[0] in "ai" else "a"
        raise RecordError(
            f"{where}: a part of the content is {article} {what} ({unseen}), which a text model cannot see"
        )
    text = next((part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)), None)
    if text is None and isinstance(part.get("content"), str) and sort in (None, "text"):
        text = part["content"]
    if text is None and {*part} == {"json"}:
        text = json.dumps(part["json"], ensure_ascii=False)
    if text is None:
        raise RecordError(f"{where}: a part of the content is not text ({quoted(known)})")
    if sort is None and "text" in part:
        for other in _beside_text(part):
            if not isinstance(part[other], bool | int | float):  # a figure says something about the text
                raise RecordError(f"{where}: a part of the content has {quoted(other)} beside its text")
    return Content(text)


def _mime(part: Mapping[str, Any]) -> str:
    inner = next((value for value in part.values() if isinstance(value, dict)), {})
    return str(inner.get("mimeType") or inner.get("mime_type") or "")


def _answer(part: Mapping[str, Any], where: str) -> Message:
    """What a tool answered, in Anthropic's, Bedrock's or Gemini's form."""
    given = part.get("content", part.get("response", part.get("output")))
    call = next((part[key] for key in ("tool_use_id", "toolUseId", "id") if part.get(key)), "")
    if isinstance(given, list) and any(isinstance(inner, dict) and _acts(inner) for inner in given):
        text = json.dumps(given, ensure_ascii=False)
    else:
        text = content_of(given, where, any_value=True).text
    return Message("tool", text, name=str(part.get("name") or ""), call_id=str(call))
