"""Fields to turns: what a record's fields mean is recognised record by record.

    prompt/response, prompt/completion, question/answer    two texts
    instruction/output, instruction/response               Alpaca, GPTeacher, Dolly: an "input" (or "context")
                                                           that is not blank follows after an empty line
    messages                                               OpenAI chat: a list of {role, content}
    conversations                                          ShareGPT: a list of {from, value}

The first of these whose fields are all there (null counts as absent) is taken. In a chat the last assistant
turn is the response and what precedes it the prompt; turns after it are ignored, for nothing in them can be
scored. Where a text is expected a list of turns is taken too (TRL's conversational prompt/completion). A
top-level "system" (or "system_prompt") text becomes a system turn unless the chat begins with one.
"""

from __future__ import annotations

from typing import Any

from .fields import ABSENT, RecordError, first_present, kind, listing, lookup, quoted
from .record import Message

_PAIR_LAYOUTS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
)
_CHAT_LAYOUTS = ("messages", "conversations")
LAYOUTS = (*map("/".join, _PAIR_LAYOUTS), *_CHAT_LAYOUTS)
_PROMPT_FIELDS, _RESPONSE_FIELDS = (tuple(dict.fromkeys(side)) for side in zip(*_PAIR_LAYOUTS, strict=True))
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
}


def read_pair(
    fields: dict[str, Any], prompt_field: str | None, response_field: str | None
) -> tuple[str, tuple[Message, ...], str]:
    """Layout, prompt and response of one record."""
    if prompt_field is None and response_field is None:
        layout, turns = _recognise(fields)
    else:
        layout, turns = _named(fields, prompt_field, response_field)
    if turns[0].role != "system":
        given = (fields.get(name) for name in ("system", "system_prompt"))
        turns[:0] = [Message("system", text) for text in given if isinstance(text, str) and text.strip()][:1]
    *prompt, response = turns
    if not prompt or prompt[-1].role != "user":
        before = f"follows a turn of the {prompt[-1].role}" if prompt else "is the first turn"
        raise RecordError(f"the response {before}, not one of the user")
    return layout, tuple(prompt), response.content


def _recognise(fields: dict[str, Any]) -> tuple[str, list[Message]]:
    """The layout, by the fields that are there, and the turns up to and with the response."""
    for prompt, response in _PAIR_LAYOUTS:
        if fields.get(prompt) is not None and fields.get(response) is not None:
            return _both(fields, prompt, response)
    for name in _CHAT_LAYOUTS:
        if fields.get(name) is not None:
            return name, _chat(fields[name], name, until_response=True)
    for layout in LAYOUTS:
        names = layout.split("/")
        if all(name in fields for name in names):
            raise RecordError(f'field "{next(name for name in names if fields[name] is None)}" is null')
    raise RecordError(
        f"no layout that delift knows: {listing(fields)}; known are {', '.join(LAYOUTS)}; "
        "for another one name the fields with --prompt-field and --response-field"
    )


def _named(fields: dict[str, Any], prompt_field: str | None, response_field: str | None) -> tuple[str, list[Message]]:
    """The same for fields that the user named, both or one of them."""
    prompt = prompt_field or first_present(fields, _PROMPT_FIELDS)
    response = response_field or first_present(fields, _RESPONSE_FIELDS)
    if prompt and response:
        return _both(fields, prompt, response)
    if prompt and isinstance(chat := lookup(fields, prompt), list):
        return prompt, _chat(chat, prompt, until_response=True)
    missing, usual = ("response", _RESPONSE_FIELDS) if prompt else ("prompt", _PROMPT_FIELDS)
    raise RecordError(
        f"no field for the {missing}: {listing(fields)}, none of which is {', '.join(usual)}; "
        f"name it with --{missing}-field"
    )


def _both(fields: dict[str, Any], prompt: str, response: str) -> tuple[str, list[Message]]:
    return f"{prompt}/{response}", _turns(fields, prompt, "user") + _turns(fields, response, "assistant")


def _turns(fields: dict[str, Any], name: str, role: str) -> list[Message]:
    """What field `name` says: a text as one turn of `role` ("user" or "assistant"), or a list of turns."""
    value = lookup(fields, name)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _chat(value, name, until_response=role == "assistant")
    text = _text(fields, name)
    if (name, role) == ("instruction", "user"):
        # Alpaca and GPTeacher say "input", Dolly says "context".
        extra = next((key for key in ("input", "context") if fields.get(key) not in (None, "")), None)
        if extra and str(fields[extra]).strip():
            text = f"{text}\n\n{_text(fields, extra)}"
    return [Message(role, text)]


def _text(fields: dict[str, Any], name: str) -> str:
    value = lookup(fields, name)
    if isinstance(value, str) and value.strip():
        return value
    if value is ABSENT:
        raise RecordError(f"no field {quoted(name)}: {listing(fields)}")
    fault = "empty" if isinstance(value, str) else f"{kind(value)}, not text"
    raise RecordError(f"field {quoted(name)} is {fault}")


def _chat(value: object, name: str, *, until_response: bool) -> list[Message]:
    """The turns of a chat in field `name`; with `until_response` up to the assistant's last.

    A turn is {role, content} or {from, value}. Only a system turn may be blank: to a template a blank one can
    mean something else than none.
    """
    field = f"field {quoted(name)}"
    if not isinstance(value, list):
        raise RecordError(f"{field} is {kind(value)}, not a list of turns")
    names = [turn.get("role", turn.get("from")) if isinstance(turn, dict) else None for turn in value]
    roles = [_ROLES.get(name.strip().lower()) if isinstance(name, str) else None for name in names]
    end = len(value)
    if until_response:
        if "assistant" not in roles:
            raise RecordError(f"{field} has no assistant turn")
        end -= roles[::-1].index("assistant")
    messages = []
    for place, (turn, role) in enumerate(zip(value[:end], roles, strict=False), start=1):
        where = f"{field}, turn {place}"
        if role is None:
            said = names[place - 1]
            what = f"the role {quoted(said)} is unknown" if isinstance(said, str) else "there is no role"
            raise RecordError(f"{where}: {what}; known are {', '.join(_ROLES)}")
        content = _content(turn.get("content", turn.get("value")), where)
        if role != "system" and not content.strip():
            raise RecordError(f"{where} ({role}) is empty")
        messages.append(Message(role, content))
    if not messages:
        raise RecordError(f"{field} is empty")
    return messages


def _content(value: object, where: str) -> str:
    """A turn's text: a string, or OpenAI's list of text parts, which are joined as chat templates do."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RecordError(f"{where}: the content is {kind(value)}, not text")
    texts = [part.get("text") if isinstance(part, dict) else part for part in value]
    if not all(isinstance(text, str) for text in texts):
        raise RecordError(f"{where}: a part of the content is not text")
    return "".join(map(str, texts))
