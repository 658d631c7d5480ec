"""What a record is: turns of a chat with a response, and the very bytes that they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Call(NamedTuple):
    """A tool that an assistant's turn calls; `arguments` is a JSON text, `id` what the answer refers to."""

    name: str
    arguments: str
    id: str = ""


class Message(NamedTuple):
    """One turn of a chat.

    `role` is "system", "user", "assistant" or "tool". `scored`: is what the assistant says here part of what the model
    is scored on? `reasoning` is what it thought before it spoke, `calls` the tools that it calls; `name` and `call_id`
    say whose answer a tool's turn is.
    """

    role: str
    content: str
    scored: bool = False
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    name: str = ""
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A conversation of which some turns are responses, and where it came from.

    `id` is unique within its set: the record's own (see ID_FIELDS), else its line number (JSONL) or its place
    in the array, counted from 1; a second "a" becomes "a#2". `turns` end with a scored one. `raw` is the
    line as it came in without its "\\n" (a "\\r" stays, a byte-order mark does not); of an array it is the
    element's source text, with each line break and the indentation after it made one space. `line`, counted
    from 1, is where the record starts. `tools` is the JSON text of the list of tools that the model may call,
    or empty.
    """

    id: str
    turns: tuple[Message, ...]
    raw: bytes
    line: int
    tools: str = ""

    @classmethod
    def of_pair(cls, id: str, prompt: tuple[Message, ...], response: str, raw: bytes, line: int) -> Record:
        """A record whose last turn alone is scored."""
        return cls(id, (*prompt, Message("assistant", response, scored=True)), raw, line)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What precedes the last scored turn."""
        return self.turns[:-1]

    @property
    def response(self) -> str:
        """What the last scored turn says."""
        return self.turns[-1].content


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that was left out: where it starts, its own id where it has one, and what is wrong with it."""

    line: int
    id: str | None
    reason: str


@dataclass(frozen=True)
class RecordSet:
    """All records of one source, in its order.

    `form` is "jsonl" or "array"; `layouts` counts records by layout, in order of first use; `duplicates`
    counts records whose prompt and response repeat an earlier record's exactly (they are in `records` all the
    same).
    """

    records: list[Record]
    source: str
    form: str
    layouts: dict[str, int]
    rejected: list[Rejected]
    duplicates: int


def copy_groups(records: Sequence[Record]) -> NDArray[np.int32]:
    """Label copies: int32 [n], for each record the index of the first one whose prompt and response equal its
    own up to white space and case."""
    first: dict[tuple[str, ...], int] = {}
    labels = np.empty(len(records), dtype=np.int32)
    for index, record in enumerate(records):
        texts = (text for message in record.prompt for text in (message.role, message.content))
        key = tuple(" ".join(text.casefold().split()) for text in (*texts, record.response))
        labels[index] = first.setdefault(key, index)
    return labels
