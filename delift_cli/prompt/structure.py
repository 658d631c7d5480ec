"""What a chat template does, found by rendering small conversations: what it reads, where generation starts."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, Literal

from .fill import Render, common_length
from .jinja import described
from .messages import Traits, in_parts

_ASKED, _SAID, _THOUGHT, _NAME, _ANSWER = "qzasked", "qzsaid", "qzthought", "qzname", "qzanswer"
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_ARGUMENTS = '{"qzkey":  "qzvalue"}'  # two spaces: to know the text itself when it is printed
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "d",
        "parameters": {"type": "object", "properties": {"qzkey": {"type": "string", "description": "d"}}},
    },
}

Turn = dict[str, Any]


class Structure:
    """A template's habits; each is tried once."""

    def __init__(self, render: Render) -> None:
        self._render = render

    def _try(self, messages: list[Turn], **options: Any) -> str | None:
        # a template is somebody's program: whatever it raises means that it has no such form
        try:
            return self._render(in_parts(messages) if self._parts else messages, **options).text
        except Exception:
            return None

    @cached_property
    def _parts(self) -> bool:
        """Does it print what is said only where contents are lists of parts?"""

        def says(messages: list[Turn]) -> bool:
            try:
                text = self._render(messages).text
            except Exception:
                return False
            return _ASKED in text and _SAID in text

        turns = [_user(), _assistant()]
        return not says(turns) and says(in_parts(turns))

    @cached_property
    def traits(self) -> Traits:
        """What the template reads."""
        thought, splits = self._thoughts()
        calls, arguments, silence = self._calls()
        return Traits(
            thought=thought,
            splits=splits,
            tools=_NAME in (self._try([_user(), _assistant()], tools=[_TOOL]) or ""),
            calls=calls,
            answers=self._answers(calls, arguments, silence),
            arguments=arguments,
            silence=silence,
            strips=frozenset(role for role in ("system", "user", "assistant", "tool") if self._strips(role)),
            parts=self._parts,
        )

    def _thoughts(self) -> tuple[str | None, bool]:
        verbatim = f"<think>\n{_THOUGHT}\n</think>\n\n{_SAID}"
        inline = self._try([_user(), _assistant(verbatim)]) or ""
        for key in _THOUGHT_KEYS:
            given = self._try([_user(), {**_assistant(), key: _THOUGHT}]) or ""
            if _THOUGHT in given and _SAID in given:
                earlier = [self._earlier({**_assistant(), key: _THOUGHT}), self._earlier(_assistant(verbatim))]
                return key, _tags(given) == _tags(inline) and _tags(earlier[0]) == _tags(earlier[1])
        plain = self._try([_user(), _assistant()]) or ""
        if _THOUGHT in inline and (verbatim not in inline or inline.replace(verbatim, _SAID) != plain):
            return "content", True
        for key in _THOUGHT_KEYS:  # some print what was thought before a call alone
            turns = [_user(), {**_call("", json.loads(_ARGUMENTS)), key: _THOUGHT}, _answer(), _assistant()]
            if _THOUGHT in (self._try(turns) or ""):
                return key, True
        return None, False

    def _earlier(self, turn: Turn) -> str:
        return self._try([_user(), turn, _user("qzagain"), _assistant("qzend")]) or ""

    def _calls(self) -> tuple[bool, Literal["text", "mapping"], str | None]:
        mapping = json.loads(_ARGUMENTS)
        for silence in ("", None):
            text = self._called(silence, _ARGUMENTS) or ""
            given = self._called(silence, mapping) or ""
            if _ARGUMENTS in text and (not given or json.dumps(mapping) in given):
                return True, "text", silence
            if "qzvalue" in given and "{'qzkey'" not in given:
                return True, "mapping", silence
            if "qzvalue" in text:
                return True, "text", silence
        return False, "mapping", ""

    def _called(self, silence: str | None, arguments: Any) -> str | None:
        return self._try([_user(), _call(silence, arguments), _answer(), _assistant()])

    def _answers(self, calls: bool, arguments: str, silence: str | None) -> bool:
        turn = _call(silence, _given(arguments)) if calls else _assistant("qzcalls")
        return _ANSWER in (self._try([_user(), turn, _answer(), _assistant()]) or "")

    def _strips(self, role: str) -> bool:
        padded = " \n qz \n "
        turns = {
            "system": [{"role": "system", "content": padded}, _user(), _assistant()],
            "user": [{"role": "user", "content": padded}, _assistant()],
            "assistant": [_user(), {"role": "assistant", "content": padded}, _user(), _assistant()],
            "tool": [_user(), _assistant(), {**_answer(), "content": padded}, _assistant()],
        }[role]
        printed = self._try(turns)
        return printed is not None and "qz \n " not in printed

    @cached_property
    def lists_tools_last(self) -> bool:
        """Does it print the list of tools with the last question alone?"""
        turns = [_user(), _assistant(), _user("qzagain"), _assistant("qzend")]
        return _NAME in (self._try(turns, tools=[_TOOL]) or "").partition(_SAID)[2] and self.traits.tools

    # ------------------------------------------------------------------ generation and the end of a turn

    @cached_property
    def generation_prompt(self) -> str:
        """What the template adds where the model is to speak behind a user's turn; empty where it adds nothing."""
        for turns in ([_user()], [_user(), _assistant(), _user()]):
            with_it, without = self._try(turns, generate=True), self._try(turns)
            if with_it is not None and without is not None:
                return with_it[common_length(with_it, without) :]
        return ""

    def behind_answer(self, *, called: bool) -> str:
        """What the template prints between an answer, or a call, and the turn behind it."""
        if called and self.traits.calls:
            turns = [_user(), self._own_call, _answer(), _assistant()]
            first, then = self._call_text, _ANSWER
        else:
            turns = [_user(), _assistant(), _user("qzagain"), _assistant()]
            first, then = _SAID, "qzagain"
        printed = self._try(turns) or ""
        return printed.partition(first)[2].partition(then)[0] if then in printed else ""

    @cached_property
    def behind_call_unanswered(self) -> str:
        """What the template prints between a call and a user's turn behind it."""
        printed = self._try([_user(), self._own_call, _user("qzagain"), _assistant()]) or ""
        return printed.partition(self._call_text)[2].partition("qzagain")[0] if "qzagain" in printed else ""

    @cached_property
    def behind_thought(self) -> str:
        """What closes a thought in front of the last answer, without white space; empty where none is printed."""
        key = self.traits.thought
        inline = _assistant(f"<think>\n{_THOUGHT}\n</think>\n\n{_SAID}")
        turn = {**_assistant(), key: _THOUGHT} if key in _THOUGHT_KEYS else inline
        return (self._try([_user(), turn]) or "").partition(_THOUGHT)[2].partition(_SAID)[0].strip()

    @cached_property
    def behind_question(self) -> str:
        """What the template prints between a user's text and a plain answer."""
        return (self._try([_user(), _assistant()]) or "").partition(_ASKED)[2].partition(_SAID)[0]

    @cached_property
    def behind_last_answer(self) -> str:
        """What the template prints behind an answer that ends the conversation."""
        return (self._try([_user(), _assistant()]) or "").partition(_SAID)[2]

    @property
    def _own_call(self) -> Turn:
        """A turn that calls, in the form that the template reads."""
        return _call(self.traits.silence, _given(self.traits.arguments))

    @property
    def _call_text(self) -> str:
        """What is searched for to find that call in what is printed."""
        return _ARGUMENTS if self.traits.arguments == "text" else "qzvalue"

    @cached_property
    def _last_call(self) -> str:
        """A question and a call."""
        return self._try([_user(), self._own_call]) or ""

    @cached_property
    def before_call(self) -> str:
        """What the template prints in front of a call, and not in front of a plain answer."""
        head = self._last_call.partition(_ASKED)[2].partition(_NAME)[0]
        return head[common_length(head, self.behind_question) :]

    @cached_property
    def behind_last_call(self) -> str:
        """What the template prints behind a call that ends the conversation."""
        return self._last_call.partition(self._call_text)[2]

    @property
    def complaint(self) -> str:
        """Why the template cannot print the simplest conversation, in its own words where it has any."""
        try:
            turns = [_user(), _assistant(), _user("qzagain"), _assistant("qzend")]
            self._render(in_parts(turns) if self._parts else turns)
        except Exception as error:
            return described(error)
        return "a message is missing from what it prints, or printed twice"


def _tags(printed: str) -> tuple[int, int, bool]:
    """How often a thought is opened and closed, and whether it is there."""
    return printed.count("<think>"), printed.count("</think>"), _THOUGHT in printed


def _user(content: str = _ASKED) -> Turn:
    return {"role": "user", "content": content}


def _assistant(content: str = _SAID) -> Turn:
    return {"role": "assistant", "content": content}


def _call(content: str | None, arguments: Any) -> Turn:
    call = {"type": "function", "id": "qzcall001", "function": {"name": _NAME, "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def _given(arguments: str) -> Any:
    """A call's arguments as "text", or as the mapping that it spells."""
    return _ARGUMENTS if arguments == "text" else json.loads(_ARGUMENTS)


def _answer() -> Turn:
    return {"role": "tool", "name": _NAME, "content": _ANSWER, "tool_call_id": "qzcall001"}
