"""Turns of a record to the messages that a chat template reads, as `apply_chat_template` of transformers hands them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from ..data.record import Call, Message

Part = Literal["content", "reasoning", "call", "tools", "name"]
Wrap = Callable[[str, int, Part], str]  # a text, the place of its turn, which part of it: what to hand over for it

CALL = '<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
ANSWER = "<tool_response>\n{}\n</tool_response>"
OFFER = (
    "You may call these functions. To call one, write\n<tool_call>\n"
    '{"name": its name, "arguments": its arguments as JSON}\n</tool_call>\n\n'
)


class Traits(NamedTuple):
    """What a template reads, found by trying.

    Attributes:
        thought: the key under which it reads what an assistant thought before it spoke, "content" where it looks for
            `<think>` in the content alone, None where it has no place for it.
        splits: it takes `<think>…</think>` in a content for a thought, or prints both alike.
        tools, calls, answers: it prints the list of tools, an assistant's calls, a tool's turn.
        arguments: it wants a call's arguments as JSON text rather than as a mapping.
        silence: the content of a turn that only calls.
        strips: the roles whose white space at both ends it strips ("reasoning" for thoughts).
        parts: it reads a content only as a list of parts, as templates of models that see pictures may.
    """

    thought: str | None
    splits: bool
    tools: bool
    calls: bool
    answers: bool
    arguments: Literal["text", "mapping"]
    silence: str | None
    strips: frozenset[str]
    parts: bool = False


class Form(NamedTuple):
    """How a conversation is adapted to a template that does not print it as it is.

    Attributes:
        fold: a system message becomes the first lines of the user's next turn.
        merge: turns of the same role in a row become one, with an empty line between them.
        lead: a user's turn that says nothing stands in front of an assistant's at the head.
        short_ids: calls are numbered anew with ids of nine letters and digits, and answers name what they answer.
        spell: calls are written in the content, for the template prints one or the other, or not all of them.
        retell: what tools answer stands in a user's turn, for the template takes it behind calls of its own alone.
    """

    fold: bool = False
    merge: bool = False
    lead: bool = False
    short_ids: bool = False
    spell: bool = False
    retell: bool = False


def build(
    turns: Sequence[Message], tools: str, traits: Traits, form: Form, wrap: Wrap
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """The messages and the list of tools for a template; each text of the record passes through `wrap`."""
    listed = json.loads(tools) if tools else None
    if form.spell:
        traits = traits._replace(calls=False)
    if form.retell:
        traits = traits._replace(answers=False)
    spoken = [_message(turn, place, traits, wrap) for place, turn in enumerate(turns)]
    if listed and not traits.tools:
        offer = wrap(OFFER + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in listed), -1, "tools")
        if spoken and spoken[0]["role"] == "system":
            spoken[0]["content"] = _lines(spoken[0]["content"], offer)
        else:
            spoken.insert(0, {"role": "system", "content": offer})
        listed = None
    if form.fold:
        spoken = _folded(spoken)
    if form.merge:
        spoken = _merged(spoken)
    if form.lead:
        first = next((place for place, message in enumerate(spoken) if message["role"] != "system"), 0)
        if spoken[first]["role"] != "user":
            spoken.insert(first, {"role": "user", "content": ""})
    if form.short_ids:
        _number_calls(spoken)
    if traits.parts:
        spoken = in_parts(spoken)
    return spoken, None if listed is None else _described(listed, lambda text: wrap(text, -1, "tools"))


def in_parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with each content as a list of its one part."""
    return [{**message, "content": [{"type": "text", "text": message["content"] or ""}]} for message in messages]


def adapted(tools: str, turns: Sequence[Message], form: Form, traits: Traits) -> list[str]:
    """What is not handed to the template as the record has it, each in a few words."""
    said = []
    if tools and not traits.tools:
        said.append("the template has no place for tools: they are listed as JSON in the system message")
    if any(turn.calls for turn in turns) and (form.spell or not traits.calls):
        there = " there" if traits.calls else ""
        said.append(f"the template has no form for calls{there}: they are written as JSON in <tool_call> tags")
    if any(turn.role == "tool" for turn in turns) and (form.retell or not traits.answers):
        there = " there" if traits.answers else ""
        said.append(
            f"the template has no turn for tools{there}: their answers stand in <tool_response> tags in a user's turn"
        )
    if form.fold:
        said.append("the template has no place for a system message there: it stands in front of the user's text")
    if form.merge:
        said.append("the template wants user and assistant to take turns: neighbours are joined by an empty line")
    if form.lead:
        said.append("the template wants the user to begin: an empty turn stands in front")
    if form.short_ids:
        said.append("the template wants call ids of nine letters and digits: calls are numbered anew")
    return said


def _message(turn: Message, place: int, traits: Traits, wrap: Wrap) -> dict[str, Any]:
    content = wrap(turn.content, place, "content") if turn.content else ""
    message: dict[str, Any] = {"role": turn.role, "content": content}
    if turn.reasoning and traits.thought == "content":
        thought = wrap(turn.reasoning, place, "reasoning")
        message["content"] = f"<think>\n{thought}\n</think>\n\n{content}"
    elif turn.reasoning and traits.thought:
        message[traits.thought] = wrap(turn.reasoning, place, "reasoning")
    if turn.role == "tool":
        if not traits.answers:
            return {"role": "user", "content": ANSWER.format(content)}
        named = {"name": turn.name, "tool_call_id": turn.call_id}
        message |= {key: _odd(value, lambda text: wrap(text, place, "name")) for key, value in named.items() if value}
    elif turn.calls and traits.calls:
        message["tool_calls"] = [_call(call, place, traits, wrap) for call in turn.calls]
        if not turn.content:
            message["content"] = traits.silence
    elif turn.calls:
        plain = "\n".join(CALL.format(name=json.dumps(c.name), arguments=c.arguments or "{}") for c in turn.calls)
        message["content"] = "\n".join(filter(None, (message["content"], wrap(plain, place, "call"))))
    return message


def _call(call: Call, place: int, traits: Traits, wrap: Wrap) -> dict[str, Any]:
    arguments: Any = call.arguments
    if traits.arguments == "mapping":
        arguments = _parsed(call.arguments)
        arguments = _each_text(arguments, lambda text: wrap(text, place, "call"))
    elif arguments:
        arguments = wrap(arguments, place, "call")
    function = {"name": wrap(call.name, place, "call"), "arguments": arguments}
    id = {"id": _odd(call.id, lambda text: wrap(text, place, "name"))} if call.id else {}
    return {"type": "function", **id, "function": function}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with each text in it changed, keys where they hold more than a name."""
    if isinstance(value, str):
        return change(value) if value else value
    if isinstance(value, dict):
        return {_odd(key, change): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    return value


def _described(value: Any, change: Callable[[str], str], key: str = "") -> Any:
    """A list of tools with its descriptions changed, and other texts where they hold more than a name."""
    if isinstance(value, str):
        return change(value) if value and key == "description" else _odd(value, change)
    if isinstance(value, dict):
        return {_odd(name, change): _described(item, change, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_described(item, change) for item in value]
    return value


def _odd(name: str, change: Callable[[str], str]) -> str:
    """Names are compared and looked up, so that they are changed only where they could be taken for structure."""
    return change(name) if any(mark in name for mark in "<[|") else name


def _lines(*texts: str | None) -> str:
    return "\n\n".join(text for text in texts if text)


def _folded(spoken: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """System messages as the first lines of the user's turn behind them."""
    folded: list[dict[str, Any]] = []
    waiting = ""
    for message in spoken:
        if message["role"] == "system":
            waiting = _lines(waiting, message["content"].strip() and message["content"])
        elif waiting and message["role"] == "user":
            folded.append({**message, "content": _lines(waiting, message["content"])})
            waiting = ""
        elif waiting:
            folded += [{"role": "user", "content": waiting}, message]
            waiting = ""
        else:
            folded.append(message)
    return [*folded, {"role": "user", "content": waiting}] if waiting else folded


def _merged(spoken: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one role as one message; what calls or answers a call stays apart."""
    merged: list[dict[str, Any]] = []
    for message in spoken:
        before = merged[-1] if merged else None
        if before and before["role"] == message["role"] != "tool" and "tool_calls" not in before:
            merged[-1] = {**before, **message, "content": _lines(before["content"], message["content"])}
        else:
            merged.append(message)
    return merged


def _number_calls(spoken: list[dict[str, Any]]) -> None:
    known: dict[str, str] = {}
    names: dict[str, str] = {}
    unanswered: list[str] = []
    for message in spoken:
        for call in message.get("tool_calls", ()):
            number = f"call{len(known):05}"
            known[call.get("id") or number] = number
            call["id"] = number
            names[number] = call["function"]["name"]
            unanswered.append(number)
        if message["role"] == "tool":
            number = known.get(message.get("tool_call_id", ""), unanswered[0] if unanswered else "call00000")
            message["tool_call_id"] = number
            message.setdefault("name", names.get(number, ""))
            if number in unanswered:
                unanswered.remove(number)
