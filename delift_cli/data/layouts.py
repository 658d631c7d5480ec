"""Fields to turns: what a record's fields mean is recognised record by record.

A chat goes first (`messages`, `conversations` and the other names in CHATS, each a list of turns or its JSON text);
then a pair of a prompt and a response, the first of PROMPTS and of RESPONSES that the record has. `input`, `context`,
`choices` and their like belong to the prompt and follow it after an empty line; `history` goes before it, `system` to
the front. A record that is a list is a chat; one that has nothing but `text` is scored as a whole. Where the record
could be read in another way too, the reading says so (`Read.said`).

In a chat every assistant turn is scored that says something and that no mask excludes; in a pair that is the response
(and, with history, the earlier answers). Turns behind the last scored one are left out: nothing in them can be scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .chats import THOUGHTS, all_roles, is_chat, is_turn, read_chat, roles_found
from .fields import (
    ABSENT,
    RecordError,
    UnknownLayoutError,
    as_list,
    first_present,
    kind,
    listing,
    literal,
    lookup,
    quoted,
)
from .ids import ID_FIELDS
from .names import (
    ASKED,
    CHATS,
    EXTRAS,
    HISTORIES,
    LAYOUTS,
    LISTS_OF_MASKS,
    MEDIA,
    PAIRS,
    PROMPTS,
    REJECTED,
    RESPONSES,
    SYSTEMS,
    WORKINGS,
)
from .options import Reading
from .parts import Said, content_of, extra_text, listed_calls
from .questions import answer_of, choices_of
from .record import Message
from .scored import masked, up_to_last_scored
from .tools import TOOLS, tools_of
from .transcripts import transcript

BLANK: tuple[object, ...] = (None, "", [], {})
_IDS = frozenset(ID_FIELDS)


class Read(NamedTuple):
    """What a record says: the name of its layout, its turns up to the last scored one, its tools' JSON text, the
    turns that are not scored by reason, and what there is to say of the reading."""

    layout: str
    turns: tuple[Message, ...]
    tools: str
    dropped: dict[str, int]
    said: Said


def interpret(fields: dict[str, Any] | list[Any], raw: bytes, reading: Reading) -> Read:
    """Read one record.

    Raises:
        RecordError: it cannot be used, or, with `reading.strict`, could be read in another way too.
    """
    if isinstance(fields, list) and not (fields and (is_turn(fields[0]) or isinstance(fields[0], str | list))):
        raise RecordError("a list where an object with fields, or a list of turns, is expected")
    row = _Row(fields if isinstance(fields, dict) else {"turns": fields}, raw, reading)
    layout, messages = ("list of turns", row.chat("turns")) if isinstance(fields, list) else row.recognise()
    row.refuse_media(messages)
    messages = row.add_system(messages)
    tools = row.tools()
    turns, dropped = up_to_last_scored(messages, reading.turns, in_chat=layout in row.fields, alone=layout == "text")
    for name, value in row.fields.items():
        if name not in row.used and name.lower() not in _IDS and value not in BLANK:
            row.said.ignore(name)
    if reading.strict and row.said.ambiguous:
        raise RecordError(f"it can be read in two ways: {row.said.ambiguous[0]}; leave out --strict to go on")
    return Read(layout, turns, tools, dropped, row.said)


class _Row:
    """One record while it is read: which of its fields were used, and what there is to say."""

    def __init__(self, fields: dict[str, Any], raw: bytes, reading: Reading) -> None:
        self.fields, self.raw, self.reading = fields, raw, reading
        self.roles = all_roles(reading.roles)
        self.said = Said()
        self.used: set[str] = set()
        # the names of fields that have a value, by their lower case; as written goes first
        self.names = {name.lower(): name for name, value in fields.items() if value is not None}
        self.names |= {name: name for name, value in fields.items() if value is not None}

    # ------------------------------------------------------------------ which layout

    def recognise(self) -> tuple[str, list[Message]]:
        """The layout, by the fields that are there, and all turns."""
        named = self._named()
        if named is not None:
            return named
        prompt, response = first_present(self.names, PROMPTS), first_present(self.names, RESPONSES)
        for name in CHATS:
            if (key := self.names.get(name)) and self._holds_chat(name, self.fields[key]):
                if prompt and response:
                    self.said.note(f"{key} is read, {prompt}/{response} left", ambiguous=True)
                self._say_rejected(key)
                return key, self.chat(key)
        for name in ("chosen", "preferred_output"):
            if (key := self.names.get(name)) and (chat := self._whole_chat(key)) is not None:
                self._say_rejected(key)
                return key, chat
        if prompt and response:
            return self._pair(self.names[prompt], self.names[response])
        for name in (*HISTORIES, *CHATS):
            if (key := self.names.get(name)) and (name in CHATS[:2] or self._holds_chat(name, self.fields[key])):
                return key, self.chat(key)
        for asked, answer in PAIRS:
            if asked in self.names and answer in self.names:
                return self._pair(self.names[asked], self.names[answer])
        if isinstance(self.fields.get("text"), str) and not prompt and not response:
            self.said.note("text: all of it is scored, without a prompt")
            return "text", [Message("assistant", self._text("text"), scored=True)]
        raise self._unknown()

    def _named(self) -> tuple[str, list[Message]] | None:
        """The same for fields that the user named, both or one of them; None for a record that lacks them."""
        prompt, response = self.reading.prompt_field, self.reading.response_field
        if prompt is None and response is None:
            return None
        missing = [name for name in (prompt, response) if name and lookup(self.fields, name) in (ABSENT, None)]
        if missing:
            return self._without(missing[0])
        if response is None and prompt and is_chat(chat := lookup(self.fields, prompt)) and not self._has_response():
            self.used.add(prompt.split(".")[0])
            return prompt, read_chat(chat, prompt, self.roles, self.said)
        usual = PROMPTS if prompt is None else RESPONSES
        other = next((self.names[name] for name in usual if name in self.names and self.names[name] != response), None)
        prompt, response = prompt or other, response or other
        if prompt and response:
            return self._pair(prompt, response)
        side = "response" if prompt else "prompt"
        raise RecordError(
            f"no field for the {side}: {listing(self.fields)}, none of which is {', '.join(usual)}; "
            f"name it with --{side}-field"
        )

    def _without(self, missing: str) -> tuple[str, list[Message]]:
        """A record without a field that the user named is recognised, if it can be."""
        plain = _Row(self.fields, self.raw, Reading(turns=self.reading.turns, roles=self.reading.roles))
        try:
            found = plain.recognise()
        except RecordError:
            value = lookup(self.fields, missing)
            fault = f"field {quoted(missing)} is null" if value is None else f"no field {quoted(missing)}: "
            raise RecordError(fault if value is None else fault + listing(self.fields)) from None
        self.said, self.used = plain.said, plain.used
        self.said.note("a record without the named fields is read by the fields that it has")
        return found

    def _has_response(self) -> bool:
        return any(name in self.names for name in RESPONSES)

    def _holds_chat(self, name: str, value: Any) -> bool:
        """Is this the chat of the record, and not a field that bears such a name by chance?"""
        if not value or not is_chat(value):
            return False
        if name in ("messages", "conversations"):
            return True
        try:
            value = as_list(value, name) if isinstance(value, str) else value
        except RecordError:
            return False
        if isinstance(value, dict):
            return is_turn(dict.fromkeys(value, ""))  # its lists are the columns of a table of turns
        first = value[0] if isinstance(value, list) and value else None
        texts = isinstance(first, str) and len(value) > 1 and name not in ("turns", "items", "contents", "chat_history")
        pair = isinstance(first, list) and len(first) == 2 and all(isinstance(text, str) for text in first)
        return (is_turn(first) and name != "data") or texts or pair

    def _whole_chat(self, key: str) -> list[Message] | None:
        """The chat in `chosen`, where it has the user's turns too."""
        value = self.fields[key]
        if isinstance(value, str) and first_present(self.names, PROMPTS) is None and (turns := transcript(value)):
            self.said.note(f"{key}: a transcript of Human: and Assistant: is read as turns")
            value = turns
            self.fields = {**self.fields, key: turns}
        if not is_chat(value) or (isinstance(value, str) and not value.lstrip().startswith(("[{", "[\n"))):
            return None
        said, used = self.said, set(self.used)
        messages = self.chat(key)
        if any(message.role == "user" for message in messages):
            return messages
        self.said, self.used = said, used
        return None

    def _say_rejected(self, key: str) -> None:
        for name in REJECTED:
            if name in self.names:
                self.said.note(f"{key} is the response, {self.names[name]} is not used")

    def _unknown(self) -> RecordError:
        given = {name.lower() for name in self.fields}
        for names, others in ((PROMPTS, RESPONSES), (RESPONSES, PROMPTS)):
            null = next((name for name in self.fields if name.lower() in names and self.fields[name] is None), None)
            if null and given & {*others}:
                return RecordError(f"field {quoted(null)} is null")
        if null := next((name for name in CHATS[:2] if name in self.fields and self.fields[name] is None), None):
            return RecordError(f"field {quoted(null)} is null")
        return UnknownLayoutError(
            f"no layout that delift knows: {listing(self.fields)}; known are {', '.join(LAYOUTS)} and more; "
            "for another one name the fields with --prompt-field and --response-field"
        )

    # ------------------------------------------------------------------ chats and pairs

    def chat(self, key: str) -> list[Message]:
        """The turns in a field, each scored unless a mask excludes it."""
        self.used.add(key)
        messages = read_chat(self.fields[key], key, self.roles, self.said)
        if not any(message.role == "assistant" for message in messages):
            found = roles_found(self.fields[key])
            raise RecordError(f"field {quoted(key)} has no assistant turn (roles found: {found})")
        for name in LISTS_OF_MASKS:
            if isinstance(mask := self.fields.get(name), list) and mask:
                self.used.add(name)
                messages = masked(messages, mask, name, self.said)
        return messages

    def _pair(self, prompt: str, response: str) -> tuple[str, list[Message]]:
        self._say_rejected(response)
        others = (
            [self.names[name] for name in RESPONSES if name in self.names] if not self.reading.response_field else []
        )
        for other in others:
            if other not in (response, prompt) and self.fields[other] not in BLANK:
                self.said.note(f"{response} is scored, {other} left", ambiguous=True)
        for name in WORKINGS:
            if (key := self.names.get(name)) and key not in (prompt, response) and not self.reading.response_field:
                self.said.note(f"{response} is scored, {key} left", ambiguous=True)
        if self.fields.get("label") is False:
            self.said.note("label is false, which may mark an answer that is not wanted; it is scored", ambiguous=True)
        labels: list[str] = []
        before = self._history()
        asked = self._side(prompt, "user")
        if asked[-1].role == "user":
            asked[-1] = asked[-1]._replace(content=self._with_extras(asked[-1].content, prompt, response, labels))
        answer = self._side(response, "assistant", labels)
        return f"{prompt}/{response}", [*before, *asked, *answer]

    def _history(self) -> list[Message]:
        for name in HISTORIES:
            if (key := self.names.get(name)) and self.fields[key] and is_chat(self.fields[key]):
                self.used.add(key)
                return read_chat(self.fields[key], key, self.roles, self.said)
        return []

    def _side(self, name: str, role: str, labels: list[str] | None = None) -> list[Message]:
        """What field `name` says: a text as one turn of `role` ("user" or "assistant"), or a list of turns.

        Of a prompt that is a list of turns none is scored.
        """
        self.used.add(name if name in self.fields else name.split(".")[0])
        value = lookup(self.fields, name)
        if isinstance(value, dict) and isinstance(value.get("messages"), list):
            self.fields = {**self.fields, **{key: value[key] for key in TOOLS if key in value}}
            value = value["messages"]
        if isinstance(value, str) and value.lstrip().startswith("[{"):
            try:
                turns = as_list(value, name)
            except RecordError:
                turns = None
            value = turns if isinstance(turns, list) and all(map(is_turn, turns)) else value
        if is_turn(value):
            value = [value]
        if isinstance(value, list) and value and is_turn(value[0]):
            messages = read_chat(value, name, self.roles, self.said, scored=role == "assistant")
            if role == "assistant" and not any(message.role == "assistant" for message in messages):
                raise RecordError(f"field {quoted(name)} has no assistant turn (roles found: {roles_found(value)})")
            if role == "user" and not messages:
                raise RecordError(f"field {quoted(name)} is empty")
            return messages
        if role == "user":
            return [Message(role, self._text(name))]
        choices = labels if labels else None
        if (said := answer_of(value, choices, self.said, name)) is not None:
            if not said.strip():
                raise RecordError(f"field {quoted(name)} is empty")
            return [Message(role, said, scored=True)]
        if any(key in self.names for key in TOOLS) and (calls := listed_calls(value, f"field {quoted(name)}")):
            self.said.note(f"{name} is a list of calls, and scored as such")
            return [Message(role, "", scored=True, calls=calls)]
        thought = next((key for key in THOUGHTS if isinstance(self.fields.get(key), str) and key != name), None)
        reasoning = ""
        if thought and self.fields[thought].strip():
            self.used.add(thought)
            reasoning = self.fields[thought]
            self.said.note(f"{thought} is the thought before the response, and scored with it")
        return [Message(role, self._text(name), scored=True, reasoning=reasoning)]

    def _text(self, name: str) -> str:
        value = lookup(self.fields, name)
        self.used.add(name if name in self.fields else name.split(".")[0])
        if isinstance(value, bool | int | float):
            return literal(self.raw, name, value)
        if isinstance(value, str) and value.strip():
            return value
        if value is ABSENT:
            raise RecordError(f"no field {quoted(name)}: {listing(self.fields)}")
        if isinstance(value, list | dict) and value:
            return content_of(value, f"field {quoted(name)}").text
        fault = "empty" if isinstance(value, str) else f"{kind(value)}, not text"
        raise RecordError(f"field {quoted(name)} is {fault}")

    def _with_extras(self, text: str, prompt: str, response: str, labels: list[str]) -> str:
        """The prompt with what belongs to it, each after an empty line; `labels` takes those of choices."""
        for name in () if self.reading.prompt_field else ASKED:
            key = self.names.get(name)
            if key is None or key in (prompt, response) or not isinstance(asked := self.fields[key], str):
                continue
            if asked.strip() in text:  # the prompt quotes it
                self.used.add(key)
            elif prompt.lower() == "instruction":
                self.used.add(key)
                self.said.note(f"{key} follows {prompt} in the prompt")
                text = f"{text}\n\n{asked}"
            else:
                self.said.note(f"{prompt} is the prompt, {key} left", ambiguous=True)
        for name in EXTRAS:
            key = self.names.get(name)
            if key is None or key in (prompt, response) or self.fields[key] in BLANK:
                continue
            extra = extra_text(self.fields[key], key, self.raw, self.said)
            self.used.add(key)
            if extra.strip():
                text = f"{text}\n\n{extra}"
        found = choices_of(self.fields, self.names)
        if found is not None and not {*found.fields} & {prompt, response}:
            self.used |= {*found.fields}
            labels += found.labels
            text = f"{text}\n\n{found.text}"
        return text

    # ------------------------------------------------------------------ what stands beside the layout

    def refuse_media(self, messages: list[Message]) -> None:
        for name in MEDIA:
            value = self.fields.get(name)
            tag = f"<{name.rstrip('s')}>"
            shown = isinstance(value, str) and any(tag in message.content for message in messages)
            if (isinstance(value, list | dict) and value) or shown:
                raise RecordError(f"field {quoted(name)}: a text model cannot see it")

    def add_system(self, messages: list[Message]) -> list[Message]:
        """The messages with the system text that stands beside them, unless they begin with one."""
        for name in SYSTEMS:
            key = self.names.get(name)
            if key is None or not isinstance(value := self.fields[key], str | list | dict) or not value:
                continue
            text = content_of(value, f"field {quoted(key)}").text
            if not text.strip():
                continue
            if messages and messages[0].role == "system":
                if messages[0].content != text:
                    self.said.note(f"the chat's own system turn is read, {key} left", ambiguous=True)
                break
            self.used.add(key)
            return [Message("system", text), *messages]
        return messages

    def tools(self) -> str:
        """The JSON text of the tools, from the record or from a turn that brings them."""
        for name in TOOLS:
            if (key := self.names.get(name)) and (value := self.fields[key]) not in BLANK:
                tools = tools_of(value, name)
                if tools is None:
                    self.said.note(f"{key} is no list of tools that can be read: it is left")
                    continue
                self.used.add(key)
                return tools
        chat: Any = next((self.fields[key] for key in self.used if isinstance(self.fields.get(key), list)), [])
        first = chat[0] if chat else None
        if isinstance(first, Mapping) and first.get("tools"):
            return tools_of(first["tools"], "tools") or ""
        return ""
