"""A list of turns, in any of the forms that public data give it, to messages.

A turn is {role, content}, {from, value}, Gemini's {role, parts} or the like; {"user": …, "assistant": …} and
{"input": …, "output": …} are two turns, as is a pair of texts; plain texts are the user's and the assistant's by
turns. The whole may be a dict of lists, or its JSON text.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from .fields import RecordError, as_list, blank, kind, listing, python_value, quoted, without_nulls
from .parts import ARGUMENTS, Content, Said, calls_of, content_of
from .record import Call, Message
from .roles import CALL, ROLES
from .thoughts import THOUGHTS, thought_beside, thought_text
from .tools import TOOLS

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
TEXT_KEYS = ("content", "value", "text", "message", "parts")
_TEXT_KEYS = {"tool": (*TEXT_KEYS, "result", "output", "response"), "assistant": (*TEXT_KEYS, "refusal")}
CALLS = ("tool_calls", "function_call", "tool_call", "function_calls")
MASKS = ("weight", "loss", "train", "trainable", "training", "loss_weight", "train_on_turn")
_INVERTED = ("masked",)  # true where the others are false
_MASKS_OF_PARTS = ("train_detail",)
_WORKINGS = {"thought", "thoughts", "cot", "rationale", "analysis", "thinking_blocks", "reasoning_details"}
_OF_ALL = {*ROLE_KEYS, *MASKS, *_INVERTED}
_UNDERSTOOD = {
    "system": _OF_ALL,
    "user": _OF_ALL,
    "assistant": {*_OF_ALL, *THOUGHTS, *CALLS, "name", "tool_call_id"},
    "tool": {*_OF_ALL, "name", "tool_call_id"},
    CALL: {*_OF_ALL, *CALLS, "name", "tool_call_id"},
}
# keys that say something about a turn, which is no part of what the turn says
_ABOUT = re.compile(
    r"id|uuid|index|model|status|source|usage|state|country|header|lang\w*|locale|meta\w*|time\w*|date|created\w*"
    r"|updated\w*|tags?|labels?|scores?|rating|annotations|logprobs|categor\w+|emotion|type|to|recipient|channel"
    r"|signature|\w+_(?:ids?|at|time|reason|fingerprint|hash|ip|model|name|type|scores?)",
    re.IGNORECASE,
)
_EXCHANGES = (("input", "output"), ("prompt", "response"), ("question", "answer"), ("instruction", "output"))
_SPOKEN = (*TEXT_KEYS, "answer", "response", "completion", "output")  # beside these a role's name is no speaker
_OPENING = re.compile(r"\s*\[\s*\{")
_FALSE, _TRUE = ("false", "no", "0", "0.0"), ("true", "yes", "1", "1.0")


class _UnknownRoleError(RecordError):
    """A turn of nobody that is known."""


def is_chat(value: object) -> bool:
    """Can this be a list of turns, by its form?"""
    if isinstance(value, str):
        return value.lstrip()[:1] in ("[", "{")
    if isinstance(value, dict):
        return bool(value) and all(isinstance(column, list) for column in value.values())
    return isinstance(value, list)


def is_turn(value: object) -> bool:
    """Does an object look like a turn rather than like a record or a part of a content?"""
    if not isinstance(value, dict):
        return False
    if isinstance(inner := value.get("data"), dict) and _typed(value):
        value = {**inner, "type": value["type"]}
    role = any(isinstance(value.get(key), str) for key in ROLE_KEYS) or _typed(value)
    return (role and any(key in value for key in (*TEXT_KEYS, *CALLS))) or bool(_exchange(value))


def is_exchange(value: object) -> bool:
    """Is it a question with its answer in one object, which could be a record of its own as well as two turns?"""
    return isinstance(value, dict) and any(asked in value and answer in value for asked, answer in _EXCHANGES)


def opens_list(text: str) -> bool:
    """May a text be the JSON text of a list of turns?"""
    return _OPENING.match(text) is not None


def opens_chat(value: object) -> bool:
    """Is the first element of a list a turn by its role, so that the list is a chat?"""
    return _names_role(value, ROLES) or (
        isinstance(value, dict) and is_turn(value) and any(isinstance(value.get(key), str) for key in ("role", "from"))
    )


def read_chat(value: object, name: str, roles: Mapping[str, str], said: Said, *, scored: bool = True) -> list[Message]:
    """The messages of the chat in field `name`.

    Args:
        roles: names of roles in lower case, each with its role; see `all_roles`.
        said: takes the notes, and the keys of turns that had no part in the reading.
        scored: may the assistant's turns be scored? Those that say nothing or that a mask excludes are not.

    Raises:
        RecordError: it is no list of turns, or a turn cannot be read.
    """
    field = f"field {quoted(name)}"
    turns = _listed(value, field)
    if turns and all(isinstance(turn, str) for turn in turns):
        said.note(f"{name}: a list of texts is read as the user's and the assistant's by turns")
        turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    elif turns and all(_names_role(turn, roles) for turn in turns):
        said.note(f"{name}: pairs of a role and a text are read as turns")
        turns = [{"role": turn[0], "content": turn[1]} for turn in turns]
    messages: list[Message] = []
    for place, turn in enumerate(turns, start=1):
        if isinstance(turn, dict) and len(turn) == 2 and type(text := turn.get("content")) is str and scored:
            who = turn.get("role")  # the commonest turn, for speed
            if who == "user" and text and not text.isspace():
                messages.append(Message("user", text))
                continue
            if who == "assistant":
                messages.append(Message("assistant", text, bool(text) and not text.isspace()))
                continue
        try:
            _read_turn(turn, f"{field}, turn {place}", name, roles, said, scored, messages)
        except _UnknownRoleError as error:
            raise RecordError(
                f"{error} (roles found: {roles_found(turns)}); known are system, user, assistant, tool and "
                "function_call, under many names; say which of them it is, as in --role NAME=assistant"
            ) from None
    return messages


def all_roles(given: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """The names of roles that are known, with those that the user gave."""
    return {**ROLES, **dict(given)} if given else ROLES


def roles_found(value: object) -> str:
    """The names of roles in a chat, for messages."""
    turns = value if isinstance(value, list) else []
    names = dict.fromkeys(name for turn in turns if isinstance(turn, dict) if isinstance(name := _name(turn), str))
    return ", ".join(quoted(name) for name in list(names)[:12]) or "none"


def _listed(value: object, field: str) -> list[Any]:
    if isinstance(value, str):
        value = as_list(value, field) if is_chat(value) else value
    if isinstance(value, dict) and is_chat(value):
        lengths = {len(column) for column in value.values()}
        if len(lengths) > 1:
            raise RecordError(f"{field} is a dict of lists that have different lengths")
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if isinstance(value, dict) and is_turn(value):
        return [value]
    if not isinstance(value, list):
        raise RecordError(f"{field} is {kind(value)}, not a list of turns")
    return value


def _name(turn: Mapping[str, Any]) -> object:
    for key in ROLE_KEYS:
        if (name := turn.get(key)) is not None:
            return name.get("role") if isinstance(name, dict) else name
    return turn["type"] if _typed(turn) else None


def _names_role(turn: Any, roles: Mapping[str, str]) -> bool:
    """Is it a role with what it says, as a list of two texts?"""
    pair = isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
    return pair and turn[0].strip().lower() in roles


def _typed(value: Mapping[str, Any]) -> bool:
    """Is the role of a turn in its `type`, as LangChain writes it? Other forms say there what kind a part is."""
    sort = value.get("type")
    return isinstance(sort, str) and ROLES.get(sort.lower()) in ("system", "user", "assistant", "tool")


def _read_turn(
    turn: Any, where: str, name: str, roles: Mapping[str, str], said: Said, scored: bool, messages: list[Message]
) -> None:
    """Add what a turn says to the messages before it."""
    if isinstance(turn, list) and len(turn) == 2:
        turn = {"input": turn[0], "output": turn[1]}
    if not isinstance(turn, dict):
        raise RecordError(
            f"{where}: there is no role: it is {kind(turn)}, where an object with role and content is due"
        )
    turn = without_nulls(turn)
    if isinstance(inner := turn.get("data"), dict) and _typed(turn):
        turn = {**turn, **inner, "data": None, "type": turn["type"]}
    who = _name(turn)
    if who is None and (exchange := _exchange(turn, roles)):
        _add_exchange(messages, turn, exchange, where, name, scored, said)
        return
    role = roles.get(who.strip().lower().strip("<|[]>:"), "") if isinstance(who, str) else ""
    if not role:
        if isinstance(who, str):
            raise _UnknownRoleError(f"{where}: the role {quoted(who)} is unknown")
        key = next((key for key in ROLE_KEYS if key in turn), "")
        fault = f"{key} is {kind(turn[key])}, where a text is due" if key else f"there is no role: {listing(turn)}"
        raise RecordError(f"{where}: {fault}")
    key = _text_key(turn, role)
    text = turn.get(key)
    more = (*(("type",) if _typed(turn) else ()), *(() if messages else TOOLS))
    if role == CALL and blank(text) and (turn.get("name") or turn.get("function")):
        text, more = (None if any(turn.get(key) for key in CALLS) else turn), (*more, "function", *ARGUMENTS)
    unread = _unread(turn, _UNDERSTOOD[role], (key, *more))
    if blank(text) and role in ("system", "user"):
        _refuse_unread(turn, unread, where)
    if role not in ("assistant", CALL) and _to_be_trained_on(turn):
        said.note(f"{name}: a turn of the {role} that is marked to be trained on is context all the same")
    if role == CALL:
        _add_call(messages, text, turn, where, scored, said)
    elif role == "tool":
        _add_answers(messages, text, turn, where)
    else:
        content = content_of(text, where) if role != "assistant" else _content(text, turn, where, name, said)
        _add(messages, role, content, turn, where, scored, said)
    if role == "assistant" and turn.get("channel") == "analysis":
        said.note(f"{name}: a turn on the channel analysis, where harmony thinks, is read as said", ambiguous=True)
    if blank(text) and not messages[-1].content.strip() and not messages[-1].calls:
        _refuse_unread(turn, unread, where)
    for other in unread:
        if messages and messages[-1].scored:
            if other in _MASKS_OF_PARTS:
                said.note(f"{name}: {other} masks parts of a turn, which is scored as a whole", ambiguous=True)
            if other in _WORKINGS and (thought_text(turn[other]) or "").strip() not in messages[-1].text:
                said.note(f"{name}: a turn's {other} may be a thought, and is left", ambiguous=True)
        said.ignore(f"{name}[].{other}")


def _add_exchange(
    messages: list[Message],
    turn: Mapping[str, Any],
    exchange: list[tuple[str, str]],
    where: str,
    name: str,
    scored: bool,
    said: Said,
) -> None:
    """What the user and the assistant say in one object; an answer that is null is none."""
    for key, role in exchange:
        if turn[key] is None:
            said.note(f"{name}: a turn's {key} is null: what was asked stays without an answer")
            continue
        content = content_of(turn[key], f"{where}, {quoted(key)}")
        if content.text.strip() or role == "assistant":
            _add(messages, role, content, turn if role == "assistant" else {}, where, scored, said)
    for other in _unread(turn, dict(exchange)):
        said.ignore(f"{name}[].{other}")


def _content(text: Any, turn: Mapping[str, Any], where: str, name: str, said: Said) -> Content:
    """What an assistant's turn says, thinks and calls; one that says nothing may do the others."""
    content = content_of("" if text is None else text, where)
    words, calls = _calls(turn, where, said)
    thought = thought_beside(turn, content.text, f"{where}: ", said)[1]
    if content.reasoning and thought not in ("", content.reasoning):
        said.note(f"{name}: the thought in a turn's content is read, the one beside it left", ambiguous=True)
    return Content(
        "\n".join(filter(None, (content.text, words))),
        content.reasoning or thought,
        (*content.calls, *calls),
        content.answers,
    )


def _add_answers(messages: list[Message], text: Any, turn: Mapping[str, Any], where: str) -> None:
    content = content_of(text, where, any_value=True)
    for answer in content.answers or (Message("tool", content.text),):
        name, call = turn.get("name") or answer.name, turn.get("tool_call_id") or answer.call_id
        messages.append(answer._replace(name=str(name), call_id=str(call)))


def _unread(turn: Mapping[str, Any], understood: Collection[str], more: tuple[str, ...] = ()) -> list[str]:
    """The keys of a turn that have something and no part in the reading; the first of `more` is that of its text."""
    keys = [key for key in turn if key not in understood and key not in more and not blank(turn[key])]
    return [key for key in keys if key not in TEXT_KEYS or not more or turn[key] != turn.get(more[0])]


def _text_key(turn: Mapping[str, Any], role: str) -> str:
    """The key of what a turn says: the first that has something, or else that is not null."""
    empty = ""
    for key in _TEXT_KEYS.get(role, TEXT_KEYS):
        if (value := turn.get(key)) is not None:
            if not blank(value):
                return key
            empty = empty or key
    return empty or TEXT_KEYS[0]


def _refuse_unread(turn: Mapping[str, Any], unread: list[str], where: str) -> None:
    """RecordError for a turn that says nothing where delift looks, but has something under a key that it does not
    know: that may be what the turn says."""
    for key in unread:
        if isinstance(turn[key], str | list | dict) and not _ABOUT.fullmatch(key):
            raise RecordError(f"{where}: it says nothing, and has {quoted(key)}, which delift does not know")


def _calls(turn: Mapping[str, Any], where: str, said: Said) -> tuple[str, tuple[Call, ...]]:
    """What an assistant's turn calls: in a language of its own, which stays text, and as names with arguments."""
    words: list[str] = []
    calls: list[Call] = []
    for key in CALLS:
        if not (value := turn.get(key)):
            continue
        if (
            key in ("tool_call", "function_calls")
            and isinstance(value, str)
            and not isinstance(_value(value), list | dict)
        ):
            said.note("a call that is no JSON object with a name stays text")
            words.append(value)
        else:
            calls += calls_of(value, f"{where}: {quoted(key)}")
            if any(map(_has_null_argument, value if isinstance(value, list) else [value])):
                said.note("a call has arguments that are null, as a table has those that are not there: they stay")
    return "\n".join(words), tuple(calls)


def _has_null_argument(call: Any) -> bool:
    inner = call.get("function", call) if isinstance(call, dict) else None
    given = inner.get("arguments") if isinstance(inner, dict) else None
    return isinstance(given, dict) and None in given.values()


def _exchange(turn: Mapping[str, Any], roles: Mapping[str, str] = ROLES) -> list[tuple[str, str]]:
    """The keys of a turn that names no role but has what the user and the assistant say, each with its role."""
    for user, assistant in _EXCHANGES:
        if turn.get(user) is not None and assistant in turn:
            return [(user, "user"), (assistant, "assistant")]
    if any(not blank(turn.get(key)) for key in _SPOKEN):
        return []
    keys = [(key, role) for key in turn if (role := roles.get(key.lower())) in ("system", "user", "assistant")]
    found = [(key, role) for key, role in keys if isinstance(turn[key], str | list)]
    # "model" mostly says whose answer it is
    named = len(turn) > 1 and [role for _, role in found if role != "system"] != ["user", "assistant"]
    return [(key, role) for key, role in found if key.lower() != "model" or not named]


def _add(
    messages: list[Message], role: str, content: Content, turn: Mapping[str, Any], where: str, scored: bool, said: Said
) -> None:
    messages.extend(content.answers)
    if role == "user" and not content.text.strip():
        if content.answers:
            return
        raise RecordError(f"{where} (user) is empty")
    if role != "assistant":
        messages.append(Message(role, content.text))
        return
    speaks = bool(content.text.strip() or content.calls or content.reasoning.strip())
    wanted = speaks and scored and _unmasked(turn, where, said)
    messages.append(Message(role, content.text, wanted, content.reasoning, content.calls))


def _add_call(
    messages: list[Message], value: Any, turn: Mapping[str, Any], where: str, scored: bool, said: Said
) -> None:
    """A turn that is a call joins the assistant's turn right before it; several in a row are parallel calls."""
    words, calls = _calls(turn, where, said)
    if not blank(value):
        try:
            calls += calls_of(_value(value) if isinstance(value, str) else value, where)
        except RecordError:
            # a call in a language of its own: the assistant's words, as they are
            said.note("a call that is no JSON object with a name stays text")
            words = "\n".join(filter(None, (content_of(value, where, any_value=True).text, words)))
    wanted = scored and bool(words.strip() or calls) and _unmasked(turn, where, said)
    if calls and not words and messages and messages[-1].role == "assistant" and messages[-1].scored == wanted:
        messages[-1] = messages[-1]._replace(calls=(*messages[-1].calls, *calls))
    else:
        messages.append(Message("assistant", words, wanted, calls=calls))


def _value(text: str) -> Any:
    """The value of a JSON text or of a Python literal; None where it is neither."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        with contextlib.suppress(ValueError):
            return python_value(text)
    return None


def _unmasked(turn: Mapping[str, Any], where: str, said: Said) -> bool:
    """Does no mask exclude the turn?"""
    given = [key for key in (*MASKS, *_INVERTED) if turn.get(key) is not None]
    wanted = {key: mask_value(turn[key], f"{where}: {quoted(key)}", said) != (key in _INVERTED) for key in given}
    if len({*wanted.values()}) > 1:
        said.note(f"{', '.join(given)} of a turn contradict each other: it is not scored", ambiguous=True)
    return all(wanted.values())


def _to_be_trained_on(turn: Mapping[str, Any]) -> bool:
    return any(turn.get(key) in (True, 1) for key in MASKS) or any(turn.get(key) is False for key in _INVERTED)


def mask_value(value: object, where: str, said: Said) -> bool:
    """Whether a mask lets a turn be scored: a number other than 0, or true."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value >= 0:
        if value not in (0, 1):
            said.note("weights of turns other than 0 and 1 count as 1")
        return value != 0
    if isinstance(value, str) and value.strip().lower() in (*_FALSE, *_TRUE):
        return value.strip().lower() in _TRUE
    raise RecordError(f"{where} is {json.dumps(value)[:40]}, where a weight (0 or more) or a truth value is due")
