"""A list of turns, in any of the forms that public data give it, to messages.

A turn is {role, content}, {from, value}, Gemini's {role, parts} or the like; {"user": …, "assistant": …} and
{"input": …, "output": …} are two turns, as is a pair of texts; plain texts are the user's and the assistant's by
turns. The whole may be a dict of lists, or its JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from .fields import RecordError, as_list, kind, python_value, quoted
from .parts import Content, Said, calls_of, content_of
from .record import Message
from .roles import CALL, ROLES, known_roles

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
TEXT_KEYS = ("content", "value", "text", "message", "parts")
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
MASKS = ("weight", "loss", "train", "trainable", "training", "loss_weight", "train_on_turn")
_UNDERSTOOD = {
    *ROLE_KEYS,
    *TEXT_KEYS,
    *THOUGHTS,
    *MASKS,
    "tool_calls",
    "function_call",
    "name",
    "tool_call_id",
    "tools",
    "refusal",
}
_EXCHANGES = (("input", "output"), ("prompt", "response"), ("question", "answer"), ("instruction", "output"))
_BLANK: tuple[object, ...] = (None, "", [], {})
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
    return (role and any(key in value for key in (*TEXT_KEYS, "tool_calls", "function_call"))) or bool(_exchange(value))


def opens_chat(value: object) -> bool:
    """Is the first element of a list a turn by its role, so that the list is a chat?"""
    return (
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
                f"{error} (roles found: {roles_found(turns)}); known are {known_roles()}; "
                "name another one with --role NAME=assistant"
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
    if isinstance(inner := turn.get("data"), dict) and _typed(turn):
        turn = {**turn, **inner, "data": None, "type": turn["type"]}
    who = _name(turn)
    if who is None and (exchange := _exchange(turn, roles)):
        for key, role in exchange:
            content = content_of(turn[key], f"{where}, {quoted(key)}")
            if content.text.strip() or role == "assistant":
                _add(messages, role, content, turn if role == "assistant" else {}, where, scored, said)
        _ignore(turn, {key for key, _ in exchange}, name, said)
        return
    role = roles.get(who.strip().lower().strip("<|[]>:"), "") if isinstance(who, str) else ""
    if not role:
        what = f"the role {quoted(who)} is unknown" if isinstance(who, str) else "there is no role"
        raise _UnknownRoleError(f"{where}: {what}")
    text = next((turn[key] for key in TEXT_KEYS if turn.get(key) is not None), None)
    if role not in ("assistant", CALL) and any(turn.get(key) in (True, 1) for key in MASKS):
        said.note(f"{name}: a turn of the {role} that is marked to be trained on is context all the same")
    if role == CALL:
        _add_call(messages, text, turn, where, scored, said)
    elif role == "tool":
        content = content_of(text, where, any_value=True)
        answers = content.answers or (Message("tool", content.text),)
        for answer in answers:
            messages.append(
                answer._replace(
                    name=str(turn.get("name") or answer.name), call_id=str(turn.get("tool_call_id") or answer.call_id)
                )
            )
    else:
        calls = calls_of(turn.get("tool_calls"), turn.get("function_call"), where) if role == "assistant" else ()
        thought = next((turn[key] for key in THOUGHTS if isinstance(turn.get(key), str)), "")
        if text is None and role == "assistant":
            # it may be a call; where it says nothing at all it is not scored
            text = turn["refusal"] if isinstance(turn.get("refusal"), str) else ""
        content = content_of(text, where)
        content = content._replace(calls=(*content.calls, *calls), reasoning=content.reasoning or thought)
        _add(messages, role, content, turn, where, scored, said)
    understood = _UNDERSTOOD if role in ("tool", "assistant", CALL) else _UNDERSTOOD - {"name"}
    _ignore(turn, understood | {"type"} if _typed(turn) else understood, name, said)


def _exchange(turn: Mapping[str, Any], roles: Mapping[str, str] = ROLES) -> list[tuple[str, str]]:
    """The keys of a turn that names no role but has what the user and the assistant say, each with its role."""
    for user, assistant in _EXCHANGES:
        if turn.get(user) is not None and assistant in turn:
            return [(user, "user"), (assistant, "assistant")]
    keys = [(key, role) for key in turn if (role := roles.get(key.lower())) in ("system", "user", "assistant")]
    return [(key, role) for key, role in keys if isinstance(turn[key], str | list)]


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
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            value = _python_value(value)
    try:
        calls = calls_of(value if isinstance(value, list) else [value], None, where)
    except RecordError:
        # a call in a language of its own: the assistant's words, as they are
        text = content_of(next(turn[key] for key in TEXT_KEYS if turn.get(key) is not None), where, any_value=True).text
        said.note("a call that is no JSON object with a name stays text")
        messages.append(Message("assistant", text, bool(text.strip()) and scored and _unmasked(turn, where, said)))
        return
    wanted = scored and _unmasked(turn, where, said)
    if messages and messages[-1].role == "assistant" and messages[-1].scored == wanted:
        messages[-1] = messages[-1]._replace(calls=(*messages[-1].calls, *calls))
    else:
        messages.append(Message("assistant", "", wanted, calls=calls))


def _python_value(text: str) -> Any:
    try:
        return python_value(text)
    except ValueError:
        return None


def _unmasked(turn: Mapping[str, Any], where: str, said: Said) -> bool:
    """Does no mask exclude the turn?"""
    for key in MASKS:
        if (value := turn.get(key)) is not None:
            return mask_value(value, f"{where}: {quoted(key)}", said)
    return True


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


def _ignore(turn: Mapping[str, Any], understood: set[str], name: str, said: Said) -> None:
    for key, value in turn.items():
        if key not in understood and value not in _BLANK:
            said.ignore(f"{name}[].{key}")
