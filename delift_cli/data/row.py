"""A record while it is read: its fields as a prompt, as a response, and as what belongs to either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .chats import all_roles, is_chat, is_turn, opens_list, read_chat, roles_found
from .fields import ABSENT, BLANK, RecordError, as_list, blank, kind, listing, literal, lookup, quoted
from .names import ABOUT, ASKED, CHATS, EXTRAS, HISTORIES, MEDIA, SYSTEMS, TASKS, TEMPLATE_ARGUMENTS
from .options import Reading
from .parts import Said, content_of, extra_text, is_texts, listed_calls
from .questions import CHOICES, SEVERAL, Choices, answer_of, answers_in, choices_of
from .record import Message
from .thoughts import THOUGHTS, is_mode, thought_beside, thought_text
from .tools import TOOLS, tools_of
from .transcripts import opens_transcript, transcript

_EXTRAS = (*EXTRAS, *ABOUT)


class Row:
    """One record while it is read: which of its fields were used, and what there is to say."""

    def __init__(self, fields: dict[str, Any], raw: bytes, reading: Reading) -> None:
        self.fields, self.raw, self.reading = fields, raw, reading
        self.roles = all_roles(reading.roles)
        self.said = Said()
        self.used: set[str] = set()
        # the names of fields that have a value, by their lower case; as written goes first
        self.names = {name.lower(): name for name, value in fields.items() if value is not None}
        self.names |= {name: name for name, value in fields.items() if value is not None}
        for name in ("inputs", "targets"):  # as T5 keeps them, the numbers of the tokens beside their text
            if f"{name}_pretokenized" in self.names:
                self.names.pop(name, None)

    def history(self) -> list[Message]:
        """The turns before a pair."""
        for name in HISTORIES:
            if (key := self.names.get(name)) and self.fields[key] and is_chat(self.fields[key]):
                self.used.add(key)
                return read_chat(self.fields[key], key, self.roles, self.said)
        return []

    def side(self, name: str, role: str, choices: Choices | None = None) -> list[Message]:
        """What field `name` says: a text as one turn of `role` ("user" or "assistant"), or a list of turns.

        Of a prompt that is a list of turns none is scored.
        """
        self.used.add(name if name in self.fields else name.split(".")[0])
        value = lookup(self.fields, name)
        if isinstance(value, dict) and isinstance(value.get("messages"), list):
            self.fields = {**self.fields, **{key: value[key] for key in TOOLS if key in value}}
            value = value["messages"]
        if isinstance(value, str) and opens_list(value):
            try:
                turns = as_list(value, name)
            except RecordError:
                turns = None
            value = turns if isinstance(turns, list) and all(map(is_turn, turns)) else value
        if role == "assistant" and isinstance(value, str) and (answers := answers_in(value)):
            value = answers
        if is_turn(value):
            value = [value]
        if isinstance(value, list) and value and is_turn(value[0]) and not self._names_authors(name, value[0]):
            messages = read_chat(value, name, self.roles, self.said, scored=role == "assistant")
            if role == "assistant" and not any(message.role == "assistant" for message in messages):
                raise RecordError(f"field {quoted(name)} has no assistant turn (roles found: {roles_found(value)})")
            if role == "user" and not messages:
                raise RecordError(f"field {quoted(name)} is empty")
            if name.lower() in SEVERAL and len(messages) > 1 and all(each.role == "assistant" for each in messages):
                self.said.note(f"{name} has several answers: the first is scored", ambiguous=True)
                return messages[:1]
            return messages
        if role == "user":
            return self._asked(name) or [Message(role, self.text(name))]
        if (answer := answer_of(value, choices, self.said, name)) is not None:
            if not answer.strip():
                raise RecordError(f"field {quoted(name)} is empty")
            return [Message(role, answer, scored=True, reasoning=self._thought(name, answer))]
        if any(key in self.names for key in TOOLS) and (calls := listed_calls(value, f"field {quoted(name)}")):
            self.said.note(f"{name} is a list of calls, and scored as such")
            return [Message(role, "", scored=True, calls=calls)]
        if isinstance(value, list | dict) and value:
            said = content_of(value, f"field {quoted(name)}")
            thought = said.reasoning or self._thought(name, said.text)
            if not (said.text.strip() or said.calls or thought.strip()):
                raise RecordError(f"field {quoted(name)} is empty")
            return [Message(role, said.text, scored=True, reasoning=thought, calls=said.calls)]
        text = self.text(name)
        return [Message(role, text, scored=True, reasoning=self._thought(name, text))]

    def _names_authors(self, name: str, answer: Mapping[str, Any]) -> bool:
        """Are they answers of people, whose names stand where a chat has a role?"""
        who = answer.get("author")
        return name.lower() in SEVERAL and isinstance(who, str) and who.strip().lower() not in self.roles

    def _asked(self, name: str) -> list[Message]:
        """The turns of a prompt that is a transcript up to the assistant's next turn; none where it is another text."""
        value = lookup(self.fields, name)
        turns = transcript(value) if isinstance(value, str) and opens_transcript(value) else []
        if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip():
            turns.pop()
        if not turns or turns[-1]["role"] == "assistant":
            return []
        self.said.note(f"{name}: a transcript of Human: and Assistant: is read as turns")
        return read_chat(turns, name, self.roles, self.said, scored=False)

    def _thought(self, response: str, text: str) -> str:
        """The thought in a field beside the response; what cannot be one is left as any other field."""
        keys = {name: self.names[name] for name in THOUGHTS if self.names.get(name) not in (None, response)}
        found = {name: self.fields[key] for name, key in keys.items()}
        read = {name: value for name, value in found.items() if is_mode(value) or thought_text(value) is not None}
        name, thought = thought_beside(read, text, "", self.said)
        if name:
            self.used.add(self.names[name])
            self.said.note(f"{name} is the thought before the response, and scored with it")
        return thought

    def text(self, name: str) -> str:
        """The text of field `name`; RecordError where it has none."""
        value = lookup(self.fields, name)
        self.used.add(name if name in self.fields else name.split(".")[0])
        if isinstance(value, bool | int | float):
            return literal(self.raw, name, value)
        if isinstance(value, dict) and isinstance(value.get("text"), str) and "type" not in value:
            for key in value:
                if key != "text" and not blank(value[key]):
                    self.said.ignore(f"{name}.{key}")
            value = value["text"]
        if isinstance(value, str) and value.strip():
            return value
        if value is ABSENT:
            raise RecordError(f"no field {quoted(name)}: {listing(self.fields)}")
        if is_texts(value) and len(value) > 1:
            self.said.note(f"{name} is a list of texts: they are joined, an empty line between them")
        if isinstance(value, list | dict) and value:
            value = content_of(value, f"field {quoted(name)}").text
        if isinstance(value, str) and value.strip():
            return value
        fault = "empty" if isinstance(value, str) else f"{kind(value)}, not text"
        raise RecordError(f"field {quoted(name)} is {fault}")

    def with_extras(self, text: str, prompt: str, response: str) -> tuple[str, Choices | None]:
        """The prompt with what belongs to it, each after an empty line, and the choices that are in it."""
        for name in () if self.reading.prompt_field else ASKED:
            key = self.names.get(name)
            if key is None or key in (prompt, response) or not isinstance(case := self.fields[key], str):
                continue
            if case.strip() in text:  # the prompt quotes it
                self.used.add(key)
            elif prompt.lower() == "instruction":
                self.used.add(key)
                self.said.note(f"{key} follows {prompt} in the prompt")
                text = f"{text}\n\n{case}"
            else:
                self.said.note(f"{prompt} is the prompt, {key} left", ambiguous=True)
        asked = text
        for name in _EXTRAS:
            key = self.names.get(name)
            if key is None or key in (prompt, response) or not self._belongs(name, self.fields[key]):
                continue
            extra = extra_text(self.fields[key], key, self.raw, self.said)
            if name in ABOUT and asked.strip() in extra:  # it may quote the response, too
                self.said.note(f"{key} quotes {prompt} and is left", ambiguous=True)
                continue
            self.used.add(key)
            if not extra.strip() or (name in ABOUT and extra.strip() in text):  # the prompt quotes it
                continue
            text = f"{text}\n\n{extra}"
            if name in ABOUT:
                self.said.note(f"{key} follows {prompt} in the prompt")
        text = self._after_task(text, prompt, response)
        found = choices_of(self.fields, self.names)
        if found is None:
            self._say_unread_choices(prompt, response)
        if found is None or {*found.fields} & {prompt, response}:
            return text, None
        self.used |= {*found.fields}
        if not found.labels:
            self.said.note(f"{found.fields[0]} follows {prompt} in the prompt")
        return f"{text}\n\n{found.text}", found

    def say_left(self, chat: str, messages: list[Message]) -> None:
        """What could belong to the prompt, beside a chat that does not quote it."""
        for name in _EXTRAS:
            key = self.names.get(name)
            if key is None or key == chat or name in CHATS or not self._belongs(name, value := self.fields[key]):
                continue
            texts = [value] if isinstance(value, str) else value
            said = is_texts(texts) and all(any(text.strip() in each.content for each in messages) for text in texts)
            if not said and not blank(value):
                self.said.note(f"{chat} is read, {key} left", ambiguous=True)

    def _say_unread_choices(self, prompt: str, response: str) -> None:
        for name in CHOICES[:-1]:  # "choice" is mostly the one that was made
            key = self.names.get(name)
            if key and key not in (prompt, response) and not blank(self.fields[key]):
                self.said.note(f"{key} are no choices that can be read: left", ambiguous=True)

    def _belongs(self, name: str, value: Any) -> bool:
        """Can what stands in a field of this name be a part of the prompt?"""
        if name in CHATS:  # no chat: that would have been read
            return is_texts(value) or (isinstance(value, str) and not blank(value))
        return value not in BLANK and (name in EXTRAS or isinstance(value, str | list | dict))

    def _after_task(self, text: str, prompt: str, response: str) -> str:
        """The prompt after the task that it is a case of, or the conversation so far that is no list of turns."""
        for name in (*TASKS, *HISTORIES):
            key = self.names.get(name)
            if key is None or key in (prompt, response) or key in self.used:
                continue
            value = self.fields[key]
            if not is_texts(value) and not (isinstance(value, str) and value.strip()):
                continue
            if name in TASKS and not prompt.lower().startswith("input"):
                self.said.note(f"{prompt} is the prompt, {key} left", ambiguous=True)
                continue
            self.used.add(key)
            self.said.note(f"{key} precedes {prompt} in the prompt")
            text = f"{extra_text(value, key, self.raw, self.said)}\n\n{text}"
        return text

    def refuse_media(self, messages: list[Message]) -> None:
        for name in MEDIA:
            value = self.fields.get(name)
            tag = f"<{name.rstrip('s')}>"
            shown = isinstance(value, str) and value.strip() and any(tag in message.content for message in messages)
            if (isinstance(value, list | dict) and value) or shown:
                raise RecordError(f"field {quoted(name)}: a text model cannot see it")
            if isinstance(value, str) and value.strip():
                self.said.note(f"{name} is left: a text model cannot see it", ambiguous=True)

    def say_template_arguments(self) -> None:
        """A template gets the same arguments for all records, so that those of one are left."""
        given = self.fields.get(TEMPLATE_ARGUMENTS)
        if isinstance(given, dict) and not all(map(blank, given.values())):
            self.said.note(
                f"{TEMPLATE_ARGUMENTS} is left: a template gets the same for all records, by --template-arg",
                ambiguous=True,
            )

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
            self._say_other_systems(key, text)
            return [Message("system", text), *messages]
        return messages

    def _say_other_systems(self, system: str, text: str) -> None:
        for name in SYSTEMS:
            key = self.names.get(name)
            if key and key != system and isinstance(other := self.fields[key], str) and other.strip() not in text:
                self.said.note(f"{system} is the system text, {key} left", ambiguous=True)

    def tools(self) -> str:
        """The JSON text of the tools, from the record or from a turn that brings them."""
        beside = [(key, self.fields[key]) for name in TOOLS if (key := self.names.get(name))]
        chat: Any = next((self.fields[key] for key in self.used if isinstance(self.fields.get(key), list)), [])
        first = chat[0] if chat and isinstance(chat[0], Mapping) else {}
        for key, value in (*beside, *((name, first.get(name)) for name in TOOLS)):
            if value in BLANK:
                continue
            tools = tools_of(value, key.lower())
            if tools is None:
                self.said.note(f"{key} is no list of tools that can be read: it is left")
                continue
            self.used.add(key)
            if tools:
                return tools
        return ""
