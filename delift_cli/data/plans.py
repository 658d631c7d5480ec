"""Reading at speed: what was learned of one record's fields holds for the next one that has the same.

Most records of a file have the same fields and nothing out of the ordinary. For those a plan says which fields are
what; it only counts and checks, and hands anything else (another type, a field that has a value now and had none
before) to `layouts.interpret`. A plan is used only after it gave the same conversation as `interpret` did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .chats import MASKS, all_roles, opens_list
from .fields import BLANK
from .ids import ID_FIELDS
from .layouts import Read
from .names import (
    ABOUT,
    CHATS,
    EXTRAS,
    HISTORIES,
    LISTS_OF_MASKS,
    MEDIA,
    PAIRS,
    PROMPTS,
    REJECTED,
    RESPONSES,
    SYSTEMS,
    TASKS,
    TEMPLATE_ARGUMENTS,
    UNWANTED,
    WORKINGS,
)
from .options import Reading
from .questions import CHOICES, is_option, may_hold_answers
from .record import Message
from .thoughts import THOUGHTS
from .tools import TOOLS
from .transcripts import ends_in_marks, opens_transcript

_MEANING = {
    *CHATS,
    *PROMPTS,
    *RESPONSES,
    *EXTRAS,
    *ABOUT,
    *TASKS,
    *HISTORIES,
    *SYSTEMS,
    *MEDIA,
    *TOOLS,
    *THOUGHTS,
    *CHOICES,
    *REJECTED,
    *WORKINGS,
    TEMPLATE_ARGUMENTS,
}
_MEANING |= {*LISTS_OF_MASKS, *MASKS, *UNWANTED}
_PAIRS = frozenset(map("/".join, PAIRS))
_MEANING_BESIDE_PAIRS = _MEANING | {name for pair in PAIRS for name in pair}
_MOST = 1000  # plans that are kept
_REST = ("", (), "", "")  # of a Message: reasoning, calls, name, call_id


class _Plan:
    """How to read the records with certain fields, and how many were."""

    __slots__ = ("blank", "count", "ignored", "layout", "read", "watched")

    def __init__(
        self,
        layout: str,
        read: Callable[[dict[str, Any]], int | None],
        ignored: list[str],
        watched: list[str],
    ) -> None:
        self.layout, self.read, self.ignored, self.watched = layout, read, ignored, watched
        self.count = 0
        self.blank: Counter[str] = Counter()


class Plans:
    """The plans of a source, by the names of fields in their order."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._roles = all_roles(reading.roles)
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def quick(self, fields: Any) -> int | None:
        """The hash of an ordinary record's conversation, which is counted; None where `interpret` has to see it."""
        if type(fields) is not dict:
            return None
        plan = self._plans.get(tuple(fields))
        if plan is None:
            return None
        for name in plan.watched:
            value = fields[name]
            if value is not None and value != "" and value != []:
                return None
        conversation = plan.read(fields)
        if conversation is None:
            return None
        for name in plan.ignored:
            if not (value := fields[name]) and value in BLANK:
                plan.blank[name] += 1
        plan.count += 1
        return conversation

    def learn(self, fields: dict[str, Any] | list[Any], read: Read, conversation: int) -> None:
        """Make a plan of what `interpret` found in `fields`, where that is ordinary."""
        said = read.said
        if type(fields) is not dict or said.notes or said.ambiguous or read.dropped or read.tools:
            return
        if tuple(fields) in self._plans or len(self._plans) >= _MOST or any("[]" in name for name in said.ignored):
            return
        plan = self._plan(fields, read.layout)
        if plan is not None:
            self._plans[tuple(fields)] = plan
            if self.quick(fields) != conversation:
                del self._plans[tuple(fields)]
            plan.count = 0
            plan.blank.clear()

    def _plan(self, fields: dict[str, Any], layout: str) -> _Plan | None:
        system = next((name for name in fields if name.lower() in SYSTEMS), None)
        used = {system}
        if layout in fields:
            used.add(layout)
            read = _chat(layout, system, self._roles, last=self._reading.turns == "last")
        else:
            prompt, _, response = layout.partition("/")
            if prompt not in fields or response not in fields:
                return None
            extra = next((name for name in fields if name.lower() in EXTRAS and name not in (prompt, response)), None)
            used |= {prompt, response, extra}
            read = _pair(prompt, response, extra, system)
        others = [name for name in fields if name not in used]
        # what means something in a pair of its own alone can change the reading of such pairs alone
        meaning = _MEANING_BESIDE_PAIRS if layout.lower() in _PAIRS else _MEANING
        watched = [name for name in others if name.lower() in meaning or is_option(name)]
        ignored = [name for name in others if name.lower() not in ID_FIELDS and name not in watched]
        return _Plan(layout, read, ignored, watched)

    def count_into(self, layouts: Counter[str], ignored: dict[str, Counter[str]]) -> None:
        """Add what was read by plans to the counts of layouts and of ignored fields."""
        for plan in self._plans.values():
            layouts[plan.layout] += plan.count
            for name in plan.ignored:
                if (count := plan.count - plan.blank[name]) > 0:
                    ignored.setdefault(plan.layout, Counter())[name] += count


def hash_of(turns: Sequence[Message], tools: str) -> int:
    """A number that two conversations share where they are the same, and else as good as never."""
    if tools or any(turn[3:] != _REST for turn in turns):
        return hash((tuple(turns), tools))
    return hash(tuple([part for turn in turns for part in turn[:3]]))


def _pair(prompt: str, response: str, extra: str | None, system: str | None) -> Callable[[dict[str, Any]], int | None]:
    def read(fields: dict[str, Any]) -> int | None:
        asked, answer = fields[prompt], fields[response]
        if type(asked) is not str or type(answer) is not str:
            return None
        if not asked or asked.isspace() or not answer or answer.isspace():
            return None
        if opens_list(asked) or opens_list(answer) or opens_transcript(asked) or may_hold_answers(answer):
            return None
        if ends_in_marks(asked):
            return None
        if extra is not None and (more := fields[extra]):
            if type(more) is not str:
                return None
            if not more.isspace():
                asked = f"{asked}\n\n{more}"
        if system is not None and (text := fields[system]):
            if type(text) is not str:
                return None
            if not text.isspace():
                return hash(("system", text, False, "user", asked, False, "assistant", answer, True))
        return hash(("user", asked, False, "assistant", answer, True))

    return read


def _chat(
    name: str, system: str | None, roles: Mapping[str, str], *, last: bool
) -> Callable[[dict[str, Any]], int | None]:
    def read(fields: dict[str, Any]) -> int | None:
        chat = fields[name]
        if type(chat) is not list:
            return None
        parts: list[Any] = []
        end = len(chat) - 1
        asked = answered = False
        for place, turn in enumerate(chat):
            if type(turn) is not dict or len(turn) != 2:
                return None
            who, text = turn.get("role"), turn.get("content")
            if who is None:
                who, text = turn.get("from"), turn.get("value")
            if type(who) is not str or type(text) is not str:
                return None
            role = roles.get(who)
            answered = role == "assistant"
            if role == "user":
                asked = True
            elif not answered and role != "system":
                return None
            if role != "system" and (not text or text.isspace()):
                return None
            parts += (role, text, answered and (not last or place == end))
        if not asked or not answered:
            return None
        if system is not None and (text := fields[system]):
            if type(text) is not str or parts[0] == "system":
                return None
            if not text.isspace():
                parts[:0] = ("system", text, False)
        return hash(tuple(parts))

    return read
