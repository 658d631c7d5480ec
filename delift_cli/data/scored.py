"""Which turns of a conversation are scored, and where it ends."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .chats import mask_value
from .fields import RecordError, quoted
from .options import Turns
from .parts import Said
from .record import Message


def masked(messages: list[Message], mask: list[Any], name: str, said: Said) -> list[Message]:
    """The messages under a list of masks in field `name`: one for each turn, or one for each of the assistant's."""
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    if len(mask) not in (len(messages), len(answers)):
        raise RecordError(
            f"field {quoted(name)} has {len(mask)} entries, for {len(messages)} turns, {len(answers)} of which "
            "are the assistant's"
        )
    places = answers if len(mask) == len(answers) else range(len(messages))
    found = list(messages)
    for place, value in zip(places, mask, strict=True):
        wanted = value is None or mask_value(value, f"field {quoted(name)}", said)
        found[place] = found[place]._replace(scored=found[place].scored and wanted)
    return found


def up_to_last_scored(
    messages: list[Message], turns: Turns, *, in_chat: bool, alone: bool
) -> tuple[tuple[Message, ...], dict[str, int]]:
    """The turns up to the last scored one, and how many are not scored or left out, by reason.

    Args:
        turns: whether all that may be are scored, or the last of them only.
        in_chat: do turns that say nothing or are masked count where they are context?
        alone: may the response have no prompt?

    Raises:
        RecordError: nothing can be scored, or no turn of the user precedes what is.
    """
    places = [place for place, message in enumerate(messages) if message.scored]
    if not places:
        raise _nothing_scored(messages)
    last = places[-1]
    if not alone and all(message.role in ("system", "assistant") for message in messages[:last]):
        before = f"follows a turn of the {messages[last - 1].role}" if last else "is the first turn"
        raise RecordError(f"the response {before}, and no turn of the user precedes it")
    dropped: Counter[str] = Counter()
    for place, message in enumerate(messages):
        if message.role == "assistant" and not message.scored:
            if place > last or in_chat:
                dropped["masked" if message.content.strip() or message.calls or message.reasoning else "empty"] += 1
        elif place > last:
            dropped["unanswered"] += 1
    kept = messages[: last + 1]
    if turns == "last" and len(places) > 1:
        kept = [message._replace(scored=False) for message in kept[:-1]] + kept[-1:]
    return tuple(kept), dict(dropped)


def _nothing_scored(messages: list[Message]) -> RecordError:
    if not messages:
        return RecordError("there is no turn in it")
    last = max((place for place, message in enumerate(messages) if message.role == "assistant"), default=0)
    if messages[last].content.strip() or messages[last].calls:
        return RecordError("every assistant turn is masked: there is nothing to score")
    return RecordError(f"turn {last + 1} (assistant) is empty, and no other one can be scored")
