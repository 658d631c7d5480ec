"""The content of a turn: a text, or a list of parts, with what a part may hold besides text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from .fields import RecordError, as_text, kind, literal, quoted
from .record import Call, Message

_UNSEEN = ("image", "audio", "video", "file", "document", "inline_data", "inlinedata", "filedata")
_ARGUMENTS = ("arguments", "parameters", "args", "input")


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
        notes = self.ambiguous if ambiguous else self.notes
        if text not in notes:
            notes.append(text)

    def ignore(self, name: str) -> None:
        """A field or a turn's key that has no part in the reading."""
        if name not in self.ignored:
            self.ignored.append(name)


def content_of(value: Any, where: str, *, any_value: bool = False) -> Content:
    """A turn's content: a text, a number or truth value as its JSON text, or parts, whose texts are joined as chat
    templates do; with `any_value` anything else as JSON.

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
        elif not _is_part(value):
            raise RecordError(f"{where}: the content is {kind(value)}, not text")
        else:
            value = [value]
    if isinstance(value, list) and (not any_value or all(_is_part(part) for part in value)):
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Call] = []
        answers: list[Message] = []
        for part in value:
            found = _part(part, where)
            texts.append(found.text)
            thoughts.append(found.reasoning)
            calls += found.calls
            answers += found.answers
        return Content("".join(texts), "\n".join(filter(None, thoughts)), tuple(calls), tuple(answers))
    if any_value:
        return Content("" if value is None else json.dumps(value, ensure_ascii=False))
    raise RecordError(f"{where}: the content is {kind(value)}, not text")


def extra_text(value: Any, key: str, raw: bytes, said: Said) -> str:
    """What a field beside the prompt adds to it: a text, texts each after an empty line, a number as it stands in
    `raw`, anything else as JSON text, which is said."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n\n".join(value)
    if isinstance(value, list | dict):
        said.note(f"{key} is no text: its JSON text is in the prompt")
        return content_of(value, key, any_value=True).text
    return literal(raw, key, value)


def calls_of(tool_calls: Any, function_call: Any, where: str) -> tuple[Call, ...]:
    """The calls in OpenAI's `tool_calls` or its older `function_call`, as lists, objects or their JSON text."""
    if isinstance(tool_calls, str) and tool_calls.strip():
        try:
            tool_calls = orjson.loads(tool_calls)
        except orjson.JSONDecodeError:
            raise RecordError(f"{where}: tool_calls is a text that is not JSON") from None
    if not isinstance(tool_calls, list):  # one, or what is none and is refused as one
        tool_calls = [tool_calls] if tool_calls else []
    calls = tool_calls + ([function_call] if function_call else [])
    return tuple(_call(call, where) for call in calls)


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
    return calls_of(value, None, where) if all(isinstance(call.get("name"), str) for call in value) else ()


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
    given: Any = next((inner[key] for key in _ARGUMENTS if inner.get(key) is not None), {})
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return Call(inner["name"], arguments, str(call.get("id") or call.get("tool_call_id") or ""))


def _is_part(value: Any) -> bool:
    if isinstance(value, str):
        return True
    keys = ("text", "toolUse", "toolResult", "functionCall", "functionResponse", "reasoningContent", "json")
    return isinstance(value, dict) and (isinstance(value.get("type"), str) or any(key in value for key in keys))


def _part(part: Any, where: str) -> Content:
    if isinstance(part, str):
        return Content(part)
    if not isinstance(part, dict):
        raise RecordError(f"{where}: a part of the content is {kind(part)}, not text")
    sort = part.get("type")
    for key in ("functionCall", "function_call", "toolUse"):
        if isinstance(call := part.get(key), dict):
            return Content("", calls=(_call({**call, "id": call.get("toolUseId") or call.get("id")}, where),))
    for key in ("functionResponse", "function_response", "toolResult"):
        if isinstance(answer := part.get(key), dict):
            return Content("", answers=(_answer(answer),))
    if sort == "tool_use":
        return Content("", calls=(_call(part, where),))
    if sort == "tool_result":
        return Content("", answers=(_answer(part),))
    if (thought := _thought(part)) is not None:
        return Content("", reasoning=thought)
    text = next((part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)), None)
    if text is None and isinstance(part.get("content"), str) and sort in (None, "text"):
        text = part["content"]
    unseen = sort if isinstance(sort, str) else next(iter(part), "")
    if text is not None and not unseen.lower().startswith(_UNSEEN):
        return Content(text)
    what = next((name for name in ("image", "audio", "video") if name in f"{unseen} {_mime(part)}".lower()), None)
    if what or unseen.lower().startswith(_UNSEEN):
        what = what or "file"
        article = "an" if what[0] in "ai" else "a"
        raise RecordError(
            f"{where}: a part of the content is {article} {what} ({unseen}), which a text model cannot see"
        )
    raise RecordError(f"{where}: a part of the content is not text ({quoted(unseen)})")


def _mime(part: Mapping[str, Any]) -> str:
    inner = next((value for value in part.values() if isinstance(value, dict)), {})
    return str(inner.get("mimeType") or inner.get("mime_type") or "")


def _thought(part: Mapping[str, Any]) -> str | None:
    if part.get("type") in ("thinking", "reasoning"):
        return str(part.get("thinking") or part.get("text") or part.get("reasoning") or "")
    if part.get("thought") is True:
        return str(part.get("text") or "")
    if isinstance(part.get("reasoningContent"), dict):
        inner = part["reasoningContent"].get("reasoningText")
        return str(inner.get("text") or "") if isinstance(inner, dict) else str(inner or "")
    return None


def _answer(part: Mapping[str, Any]) -> Message:
    """What a tool answered, in Anthropic's, Bedrock's or Gemini's form."""
    given = part.get("content", part.get("response", part.get("output")))
    if isinstance(given, list) and all(isinstance(item, dict) and ("text" in item or "json" in item) for item in given):
        texts = [item["text"] if "text" in item else json.dumps(item["json"], ensure_ascii=False) for item in given]
        text = "".join(map(str, texts))
    elif isinstance(given, str):
        text = given
    else:
        text = "" if given is None else json.dumps(given, ensure_ascii=False)
    call = next((part[key] for key in ("tool_use_id", "toolUseId", "id") if part.get(key)), "")
    return Message("tool", text, name=str(part.get("name") or ""), call_id=str(call))
