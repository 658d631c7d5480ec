"""What is read of a file's records, to look at before anything is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from .layouts import interpret
from .options import Reading
from .record import Message, Record


@dataclass(frozen=True)
class Previewed:
    """One record as it is read.

    Attributes:
        id, layout: as in the record and in the counts of layouts.
        prompt: what precedes the last scored turn, with the tools on the first turn where there are any.
        scored: what is scored, a text for each turn: thought, content, and calls as `name arguments`.
        ignored: fields that have no part in the reading.
    """

    id: str
    layout: str
    prompt: list[dict[str, Any]]
    scored: list[str]
    ignored: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same as data."""
        return dict(vars(self))


def preview(record: Record, reading: Reading) -> Previewed:
    """A record as it is read; `reading` is that of its set."""
    read = interpret(orjson.loads(record.raw), record.raw, reading)
    prompt = [_as_dict(message) for message in read.turns[:-1]]
    if read.tools and prompt:
        prompt[0]["tools"] = orjson.loads(read.tools)
    scored = [message.text for message in read.turns if message.scored]
    return Previewed(record.id, read.layout, prompt, scored, read.said.ignored)


def _as_dict(message: Message) -> dict[str, Any]:
    """A turn in OpenAI's form."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.calls:
        turn["tool_calls"] = [
            {
                **({"id": call.id} if call.id else {}),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.name:
        turn["name"] = message.name
    if message.call_id:
        turn["tool_call_id"] = message.call_id
    return turn
