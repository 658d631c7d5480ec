"""Fields to turns: what a record's fields mean is recognised record by record.

A chat goes first (`messages`, `conversations` and the other names in CHATS, each a list of turns or its JSON text);
then a pair of a prompt and a response, the first of PROMPTS and of RESPONSES that the record has. `input`, `context`,
`choices` and their like belong to the prompt and follow it after an empty line; `history` goes before it, `system` to
the front. A response beside a chat that ends with a question is its last turn. A record that is a list is a chat; one
that has nothing but `text` is scored as a whole. Where the record could be read in another way too, the reading says so
(`Read.said`).

In a chat every assistant turn is scored that says something and that no mask excludes; in a pair that is the response
(and, with history, the earlier answers). Turns behind the last scored one are left out: nothing in them can be scored.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from .chats import is_chat, is_exchange, is_turn, opens_list, read_chat, roles_found
from .fields import (
    ABSENT,
    BLANK,
    RecordError,
    UnknownLayoutError,
    as_list,
    blank,
    first_present,
    listing,
    lookup,
    quoted,
    without_nulls,
)
from .ids import ID_FIELDS
from .names import (
    ABOUT,
    CHATS,
    CHOSEN,
    HISTORIES,
    LAYOUTS,
    LISTS_OF_MASKS,
    PAIRS,
    PROMPTS,
    REJECTED,
    RESPONSES,
    UNWANTED,
    WORKINGS,
)
from .options import Reading
from .parts import Said, is_texts
from .record import Message
from .row import Row
from .scored import masked, up_to_last_scored
from .transcripts import ends_in_marks, has_marks, transcript

_IDS = frozenset(ID_FIELDS)

UNNAMED = "a record without the named fields is read by the fields that it has"


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
    try:
        return _interpret(fields, raw, reading)
    except RecursionError:
        raise RecordError("it is nested too deep to be read") from None


def _interpret(fields: dict[str, Any] | list[Any], raw: bytes, reading: Reading) -> Read:
    if isinstance(fields, list) and not (fields and (is_turn(fields[0]) or isinstance(fields[0], str | list))):
        raise RecordError("a list where an object with fields, or a list of turns, is expected")
    row = _Layouts(without_nulls(fields) if isinstance(fields, dict) else {"turns": fields}, raw, reading)
    layout, messages = ("list of turns", row.chat("turns")) if isinstance(fields, list) else row.recognise()
    row.refuse_media(messages)
    messages = row.add_system(messages)
    row.say_template_arguments()
    tools = row.tools()
    turns, dropped = up_to_last_scored(messages, reading.turns, in_chat=layout in row.fields, alone=layout == "text")
    for name, value in row.fields.items():
        if name not in row.used and name.lower() not in _IDS and value not in BLANK:
            row.said.ignore(name)
    if reading.strict and row.said.ambiguous:
        raise RecordError(f"it can be read in two ways: {row.said.ambiguous[0]}; leave out --strict to go on")
    return Read(layout, turns, tools, dropped, row.said)


class _Layouts(Row):
    """One record while its layout is found."""

    # ------------------------------------------------------------------ which layout

    def recognise(self) -> tuple[str, list[Message]]:
        """The layout, by the fields that are there, and all turns."""
        named = self._named()
        if named is not None:
            return named
        prompt, response = first_present(self.names, PROMPTS), first_present(self.names, RESPONSES)
        for name in CHOSEN:
            if (key := self.names.get(name)) and (chat := self._whole_chat(key)) is not None:
                self._say_rejected(key)
                self._say_other_chats(key, chat)
                self.say_left(key, chat)
                return key, chat
        for name in CHATS:
            if (key := self.names.get(name)) and self._holds_chat(name, self.fields[key]):
                if name in CHATS[:2] or not is_texts(self._list(key)):
                    return key, self._chat_and_response(key, prompt, response)
                if pair := next((pair for pair in PAIRS if pair[0] == name and pair[1] in self.names), None):
                    return self._pair(key, self.names[pair[1]])
                if not (prompt and response) or self._repeats(self._list(key), prompt, response):
                    return key, self._chat_and_response(key, prompt, response)
                if name not in ABOUT:
                    self.said.note(f"{prompt}/{response} is read, {key} left", ambiguous=True)
        if prompt and response:
            return self._pair(self.names[prompt], self.names[response])
        for name in (*HISTORIES, *CHATS):
            if (key := self.names.get(name)) and (name in CHATS[:2] or self._holds_chat(name, self.fields[key])):
                return key, self._chat_and_response(key, prompt, response)
        for asked, answer in PAIRS:
            if asked in self.names and answer in self.names:
                return self._pair(self.names[asked], self.names[answer])
        if isinstance(self.fields.get("text"), str) and not prompt and not response:
            self._refuse_message()
            self.said.note("text: all of it is scored, without a prompt")
            text = self.text("text")
            if has_marks(text):
                self.said.note(
                    "text has a chat in the marks of a template, which are scored as plain text: write it as messages",
                    ambiguous=True,
                )
            return "text", [Message("assistant", text, scored=True)]
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
        plain = _Layouts(self.fields, self.raw, Reading(turns=self.reading.turns, roles=self.reading.roles))
        try:
            found = plain.recognise()
        except RecordError:
            value = lookup(self.fields, missing)
            fault = f"field {quoted(missing)} is null" if value is None else f"no field {quoted(missing)}: "
            raise RecordError(fault if value is None else fault + listing(self.fields)) from None
        self.said, self.used = plain.said, plain.used
        self.said.note(UNNAMED)
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
        rows = name == "data" and "columns" in self.names  # those of a table, as pandas writes it
        return (is_turn(first) and name != "data") or texts or (pair and not rows)

    def _whole_chat(self, key: str) -> list[Message] | None:
        """The chat in `chosen`, where it has the user's turns too."""
        value = self.fields[key]
        if isinstance(value, str) and first_present(self.names, PROMPTS) is None and (turns := transcript(value)):
            self.said.note(f"{key}: a transcript of Human: and Assistant: is read as turns")
            value = turns
            self.fields = {**self.fields, key: turns}
        if not value or not is_chat(value) or (isinstance(value, str) and not opens_list(value)):
            return None
        said, used = self.said, set(self.used)
        messages = self.chat(key)
        if any(message.role == "user" for message in messages):
            return messages
        self.said, self.used = said, used
        return None

    def _repeats(self, texts: list[str], prompt: str, response: str) -> bool:
        """Is a list of texts the conversation of a pair, rather than what the pair is about?"""
        return any(text in (self.fields[self.names[prompt]], self.fields[self.names[response]]) for text in texts)

    def _list(self, key: str) -> Any:
        """The value of a field that holds a chat, out of its JSON text where it is one."""
        value = self.fields[key]
        return as_list(value, key) if isinstance(value, str) else value

    def _refuse_message(self) -> None:
        """A text that has a role, or a parent among other messages, is one turn of a chat."""
        role = self.names.get("role")
        if role and str(self.fields[role]).lower() in self.roles:
            raise RecordError(f"it is one message (a text with {quoted(role)}), no record: a chat is a list of turns")
        if "parent_id" in self.fields and "message_id" in self.fields:
            raise RecordError('it is one message (a text with "parent_id"), no record: a chat is a list of turns')

    def _say_rejected(self, key: str) -> None:
        what = "is read" if key.lower() in (*CHATS, *HISTORIES) else "is the response"
        for name in REJECTED:
            if name in self.names:
                self.said.note(f"{key} {what}, {self.names[name]} is not used")

    def _say_unwanted(self) -> None:
        for name in (self.names[name] for name in UNWANTED if name in self.names):
            value = self.fields[name]
            if value in (False, "0") or (isinstance(value, str) and value.lower() == "false"):
                self.said.note(
                    f"{name} is false, which may mark an answer that is not wanted; it is scored", ambiguous=True
                )

    def _say_other_chats(self, chosen: str, messages: list[Message]) -> None:
        """Chats beside the chosen one that do not say what it begins with."""
        for name in CHATS:
            key = self.names.get(name)
            if key is None or not self._holds_chat(name, self.fields[key]):
                continue
            with contextlib.suppress(RecordError):
                other = [message.content for message in read_chat(self.fields[key], key, self.roles, Said())]
                if other == [message.content for message in messages[: len(other)]]:
                    self.used.add(key)
                    continue
            self.said.note(f"{chosen} is read, {key} left", ambiguous=True)

    def _unknown(self) -> RecordError:
        given = {name.lower() for name in self.fields}
        for names, others in ((PROMPTS, RESPONSES), (RESPONSES, PROMPTS)):
            null = next((name for name in self.fields if name.lower() in names and self.fields[name] is None), None)
            if null and given & {*others}:
                return RecordError(f"field {quoted(null)} is null")
        if null := next((name for name in CHATS[:2] if name in self.fields and self.fields[name] is None), None):
            return RecordError(f"field {quoted(null)} is null")
        if isinstance(self.fields.get("columns"), list) and isinstance(self.fields.get("data"), list):
            return RecordError(
                '"data" are the rows of a table under "columns", no records: write an object for each (in pandas '
                'orient="records")'
            )
        objects = [(name, value) for name, value in self.fields.items() if isinstance(value, dict) and len(value) <= 8]
        inner = [f"{name}.{key}" for name, value in objects for key in value if key.isidentifier()]
        within = f" (in them {', '.join(map(quoted, inner[:8]))})" if inner else ""
        return UnknownLayoutError(
            f"no layout that delift knows: {listing(self.fields)}{within}; known are {', '.join(LAYOUTS)} and more; "
            "for another one name the fields with --prompt-field and --response-field"
        )

    # ------------------------------------------------------------------ chats and pairs

    def chat(self, key: str) -> list[Message]:
        """The turns in a field, each scored unless a mask excludes it."""
        return self._with_assistant(key, self._turns(key))

    def _with_assistant(self, key: str, messages: list[Message]) -> list[Message]:
        if not any(message.role == "assistant" for message in messages):
            fault = f"field {quoted(key)} has no assistant turn (roles found: {roles_found(self.fields[key])})"
            beside = f"; a response in another field: --prompt-field {key} --response-field FIELD"
            raise RecordError(fault + (beside if messages and len(self.fields) > 1 else ""))
        return messages

    def _turns(self, key: str) -> list[Message]:
        self.used.add(key)
        messages = read_chat(self.fields[key], key, self.roles, self.said)
        for name in LISTS_OF_MASKS:
            if isinstance(mask := self.fields.get(name), list) and mask:
                self.used.add(name)
                messages = masked(messages, mask, name, self.said)
        return messages

    def _chat_and_response(self, key: str, prompt: str | None, response: str | None) -> list[Message]:
        """The turns in a field; where they end without an answer, with the response that stands beside them."""
        self._say_unwanted()
        asked = self.names[prompt] if prompt else ""
        answer = self.names[response] if response and not blank(self.fields[self.names[response]]) else ""
        messages = self._turns(key)
        if answer and messages and messages[-1].role != "assistant":
            return self._answered(key, messages, asked, answer)
        self._say_rejected(key)
        self.say_left(key, messages)
        if answer and asked:
            if is_texts(self._list(key)) or not self._says_all([asked, answer], messages):
                self.said.note(f"{key} is read, {asked}/{answer} left", ambiguous=True)
        elif answer and (response in CHOSEN or key.lower() in HISTORIES) and not self._says(answer, messages[-1:]):
            self.said.note(f"{key} is read, {answer} left", ambiguous=True)
        for other in (self.names.get(answered) for of, answered in PAIRS if of == key.lower()):
            if other:
                self.said.note(f"{key} is read, {other} left", ambiguous=True)
        return self._with_assistant(key, messages)

    def _answered(self, key: str, messages: list[Message], asked: str, answer: str) -> list[Message]:
        """The messages of a field that end with a question, and the answer to it in another field."""
        self._say_rejected(answer)
        self._say_other_responses(asked, answer)
        if asked and not self._says(asked, messages):
            self.said.note(f"{key} is read, {asked} left", ambiguous=True)
        self.say_left(key, messages)
        self.said.note(f"{answer} is the answer to the last turn of {key}")
        found = self.side(answer, "assistant")
        whole = [message.content for message in found[: len(messages)]] == [message.content for message in messages]
        return found if whole else [*messages, *found]

    def _says(self, key: str, messages: list[Message]) -> bool:
        """Does a field say what one of the messages says, or a part of it?"""
        value = self.fields[key]
        return isinstance(value, str) and any(value.strip() in message.content for message in messages)

    def _says_all(self, keys: list[str], messages: list[Message]) -> bool:
        """Is what the fields say, one after the other, what the last messages say?"""
        return [self.fields[key] for key in keys] == [message.content for message in messages[-len(keys) :]]

    def _say_other_responses(self, prompt: str, response: str) -> None:
        if self.reading.response_field:
            return
        for name in RESPONSES:
            other = self.names.get(name)
            if other and other not in (response, prompt) and self.fields[other] not in BLANK:
                self.said.note(f"{response} is scored, {other} left", ambiguous=True)
        for name in WORKINGS:
            if (key := self.names.get(name)) and key not in (prompt, response):
                self.said.note(f"{response} is scored, {key} left", ambiguous=True)

    def _pair(self, prompt: str, response: str) -> tuple[str, list[Message]]:
        self._say_rejected(response)
        self._say_other_responses(prompt, response)
        self._say_unwanted()
        self._refuse_columns(prompt, response)
        before = self.history()
        asked = self.side(prompt, "user")
        if ends_in_marks(asked[-1].content):
            self.said.note(
                f"{prompt} ends in the marks of a template, and gets those of the model's besides; --template plain "
                "adds none",
                ambiguous=True,
            )
        choices = None
        if asked[-1].role == "user":
            text, choices = self.with_extras(asked[-1].content, prompt, response)
            asked[-1] = asked[-1]._replace(content=text)
        answer = self.side(response, "assistant", choices)
        return f"{prompt}/{response}", [*before, *asked, *answer]

    def _refuse_columns(self, prompt: str, response: str) -> None:
        """Several prompts and as many responses are the columns of a table, not a record."""
        asked, answer = lookup(self.fields, prompt), lookup(self.fields, response)
        if is_texts(asked) and is_texts(answer) and len(asked) == len(answer) > 1:
            raise RecordError(
                f"{prompt} and {response} are lists of {len(asked)} texts each, the columns of a table: write a record "
                "for each"
            )


def holds_pairs(fields: Any, layout: str) -> bool:
    """Is the chat of a record a list of questions with their answers, each of which could be a record?"""
    turns = fields.get(layout) if isinstance(fields, dict) else None
    return isinstance(turns, list) and bool(turns) and is_exchange(turns[0])
