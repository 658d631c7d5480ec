"""What a record is: a conversation of which some turns are scored, and the very bytes that it came from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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

    @property
    def text(self) -> str:
        """Everything that is said in the turn: thought, content, and calls as `name arguments`."""
        if not self.reasoning and not self.calls:
            return self.content
        calls = (f"{call.name} {call.arguments}" for call in self.calls)
        return " ".join(filter(None, (self.reasoning, self.content, *calls)))


Conversation = tuple[tuple[Message, ...], str]  # the turns, and the JSON text of the tools
Interpret = Callable[[bytes], Conversation]
_latest: tuple[bytes, Interpret, Conversation] | None = None  # what was asked for last is often asked for again


class _Said:
    """What a record says, or who can find it in the record's bytes."""

    __slots__ = ("_said",)
    _said: Conversation | Interpret


@dataclass(init=False, frozen=True, eq=False)
class Record(_Said):
    """A conversation of which some turns are responses, and where it came from.

    `id` is unique within its set: the record's own (see `ids`), else its line number (JSONL) or its place
    in the array or table, counted from 1. `turns` end with a scored one. `raw` is the line as it came in without
    its "\\n" (a "\\r" stays, a byte-order mark does not); of an array it is the element's source text, with each
    line break and the indentation after it made one space; of a table or CSV the row as a JSON object. `line`,
    counted from 1, is where the record starts. `tools` is the JSON text of the list of tools that the model may
    call, or empty.

    A record that was read keeps its bytes alone and finds turns and tools in them when asked, so that a set takes
    little more memory than its file.
    """

    __slots__ = ("id", "line", "raw")

    id: str
    raw: bytes
    line: int
    turns: tuple[Message, ...] = property(lambda self: self._conversation()[0])  # type: ignore[assignment]
    tools: str = property(lambda self: self._conversation()[1])  # type: ignore[assignment]

    def __init__(self, id: str, turns: tuple[Message, ...], raw: bytes, line: int, tools: str = "") -> None:
        self._fill(id, (turns, tools), raw, line)

    @classmethod
    def of_pair(cls, id: str, prompt: tuple[Message, ...], response: str, raw: bytes, line: int) -> Record:
        """A record whose last turn alone is scored."""
        return cls(id, (*prompt, Message("assistant", response, scored=True)), raw, line)

    @classmethod
    def of_row(cls, id: str, raw: bytes, line: int, interpret: Interpret) -> Record:
        """A record whose conversation `interpret` finds in `raw`."""
        record = cls.__new__(cls)
        put_id, put_said, put_raw, put_line = _SLOTS
        put_id(record, id)
        put_said(record, interpret)
        put_raw(record, raw)
        put_line(record, line)
        return record

    def renamed(self, id: str, line: int) -> Record:
        """The same record under another id, from another line."""
        record = Record.__new__(Record)
        record._fill(id, self._said, self.raw, line)
        return record

    def held(self) -> Record:
        """The same record with its turns and tools in memory, for what asks for them again and again."""
        turns, tools = self._conversation()
        return Record(self.id, turns, self.raw, self.line, tools)

    def _fill(self, id: str, said: Conversation | Interpret, raw: bytes, line: int) -> None:
        for put, value in zip(_SLOTS, (id, said, raw, line), strict=True):
            put(self, value)

    def _conversation(self) -> Conversation:
        global _latest
        if isinstance(self._said, tuple):
            return self._said
        if _latest is None or _latest[0] is not self.raw or _latest[1] != self._said:
            _latest = (self.raw, self._said, self._said(self.raw))
        return _latest[2]

    @property
    def asked(self) -> str:
        """What the last response answers: the turn before it; empty where nothing is before it."""
        return self.prompt[-1].content if self.prompt else ""

    @property
    def conversation(self) -> Conversation:
        """Everything that the model sees: two records with equal conversations are the same to it."""
        return self._conversation()

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What precedes the last scored turn."""
        return self.turns[:-1]

    @property
    def response(self) -> str:
        """What the last scored turn says."""
        return self.turns[-1].content

    @property
    def prompt_text(self) -> str:
        """The text of every turn that is not scored."""
        return " ".join(message.text for message in self.turns if not message.scored)

    @property
    def response_text(self) -> str:
        """The text of every scored turn."""
        return " ".join(message.text for message in self.turns if message.scored)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (self.id, self.raw, self.line, self.conversation) == (
            other.id,
            other.raw,
            other.line,
            other.conversation,
        )

    def __hash__(self) -> int:
        return hash((self.id, self.raw, self.line))

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, (self.id, self.turns, self.raw, self.line, self.tools)


# The class is frozen; a set of records is filled through its slots, which is the quickest way.
_SLOTS = tuple(
    vars(owner)[name].__set__ for owner, name in ((Record, "id"), (_Said, "_said"), (Record, "raw"), (Record, "line"))
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that was left out: where it starts, its own id where it has one, and what is wrong with it."""

    line: int
    id: str | None
    reason: str


@dataclass(frozen=True)
class RecordSet:
    """All records of one source, in its order.

    Attributes:
        form: "jsonl", "array", "parquet", "arrow" or one of `separated.DELIMITERS`; of several files that of the
            first.
        layouts: records by layout, in order of first use.
        duplicates: records that repeat an earlier one's whole conversation exactly (they are in `records` all the
            same).
        notes: what was done that the data leave open or that is worth knowing, with the number of records.
        ambiguous: of the notes, those on records that can be read in two ways; `strict` refuses such records.
        dropped: turns that are not scored, by the reason (`unanswered`, `masked`, `empty`); those behind the last
            scored turn are left out, the others are context.
        ignored: fields that had no part in the reading, by layout, each with the number of records.
        repeated_ids: records whose own id an earlier one has.
        files: the files that were read, in order, each with the number of its records.
    """

    records: Sequence[Record]
    source: str
    form: str
    layouts: dict[str, int]
    rejected: Sequence[Rejected]
    duplicates: int
    notes: dict[str, int] = field(default_factory=dict)
    ambiguous: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, dict[str, int]] = field(default_factory=dict)
    repeated_ids: int = 0
    files: tuple[tuple[str, int], ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """Rejected records by reason, the commonest first; the same fault in another turn or row is the same reason."""
        found = Counter(re.sub(r"\b\d[\d,]*\b", "…", record.reason) for record in self.rejected)
        return dict(found.most_common())


def copy_groups(records: Sequence[Record]) -> NDArray[np.int32]:
    """Label copies: int32 [n], for each record the index of the first one whose conversation equals its own up to
    white space and case.

    Roles, contents, thoughts, calls with their arguments, tools, and which turns are scored all count; the
    identifiers by which a tool's answer refers to its call do not.
    """
    first: dict[tuple[Any, ...], int] = {}
    labels = np.empty(len(records), dtype=np.int32)
    for index, record in enumerate(records):
        turns, tools = record.conversation
        key = (plain(tools), *(_said(message) for message in turns))
        labels[index] = first.setdefault(key, index)
    return labels


def _said(message: Message) -> tuple[Any, ...]:
    if not message.calls and not message.reasoning and not message.name:
        return message.role, message.scored, plain(message.content)
    calls = tuple((plain(call.name), plain(call.arguments)) for call in message.calls)
    return message.role, message.scored, plain(message.content), plain(message.reasoning), message.name, calls


def plain(text: str) -> str:
    """The text without what makes no other one of it: case and white space."""
    return " ".join(text.casefold().split())
