"""What an assistant thought before it spoke, where the data have it within the answer."""

from __future__ import annotations

import re

from ..data.record import Message
from .messages import Traits

_THOUGHT = re.compile(r"\s*<think>\n*(.*?)\n*</think>\n*", re.DOTALL)


def split_thoughts(turns: tuple[Message, ...], traits: Traits) -> tuple[Message, ...]:
    """`turns` with a leading `<think>…</think>` as the thought of its turn.

    Only where the template reads thoughts from a field of their own and does not find them in the answer itself.
    """
    if traits.thought in (None, "content") or traits.splits:
        return turns
    return tuple(map(_split, turns))


def _split(turn: Message) -> Message:
    found = _THOUGHT.match(turn.content) if turn.role == "assistant" and not turn.reasoning else None
    if not found:
        return turn
    return turn._replace(reasoning=found.group(1), content=turn.content[found.end() :])


def without_thought(turn: Message) -> Message:
    """The same without what was thought before it."""
    found = _THOUGHT.match(turn.content)
    return turn._replace(reasoning="", content=turn.content[found.end() :] if found else turn.content)
