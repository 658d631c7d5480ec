"""Pools in which choosing matters, made out of sound records: spoiled answers, near-copies, one task before all others.

What is wrong with a record stands in its id (`p3/17~swapped`), so that a subset can be counted.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

Record = dict[str, str]

BOILERPLATE = (
    "I'm sorry, but as an AI language model I cannot help with that request.",
    "As an AI language model, I do not have access to this information.",
    "Sure! Here is the answer to your question. Let me know if you need anything else!",
    "Thank you for your question. Please provide more context so that I can assist you further.",
    "Please refer to the documentation for more details.",
)
CHANGED = "~"  # in the ids of spoiled and of copied records, before how they were
CUT = 8  # characters below which an answer is not cut off


def swaps(order: Iterable[int], records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    """Places of two records each, of one task, whose answers differ; found as they come in `order`, the earlier first.

    None is in two pairs.
    """
    waiting: dict[str, list[int]] = defaultdict(list)
    for place in order:
        answer, others = records[place]["response"].strip(), waiting[records[place]["task"]]
        other = next((o for o in others if records[o]["response"].strip() != answer), None)
        if other is None:
            others.append(place)
        else:
            others.remove(other)
            yield other, place


def spoiled(records: list[Record], share: float, order: random.Random) -> list[Record]:
    """The records, a share of them with a wrong answer: a third swapped within a task, cut off, boilerplate each.

    Where too few answers can be swapped or cut off, boilerplate makes up for them.
    """
    wanted = round(share * len(records))
    answers: dict[str, tuple[str, str]] = {}  # by id: how it is spoiled, and its answer
    places = order.sample(records, len(records))
    for one, other in swaps(range(len(places)), places):
        if len(answers) + 2 > wanted // 3:
            break
        for record, wrong in ((places[one], places[other]), (places[other], places[one])):
            answers[record["id"]] = "swapped", wrong["response"]
    for record in places:
        if len(answers) >= 2 * wanted // 3:
            break
        if record["id"] not in answers and len(record["response"]) >= CUT:
            kept = int(len(record["response"]) * order.uniform(0.3, 0.7))
            answers[record["id"]] = "cut", record["response"][:kept].rstrip()
    for record in places:
        if len(answers) >= wanted:
            break
        if record["id"] not in answers:
            answers[record["id"]] = "boilerplate", order.choice(BOILERPLATE)
    return [
        {**record, "id": f"{record['id']}{CHANGED}{answers[record['id']][0]}", "response": answers[record["id"]][1]}
        if record["id"] in answers
        else record
        for record in records
    ]


def redundant(records: list[Record]) -> list[Record]:
    """Each record three times: as it is, behind an opening, and before a closing sentence; the answer stays."""
    return [
        {**record, "id": record["id"] + suffix, "prompt": form.format(record["prompt"])}
        for record in records
        for suffix, form in (
            ("", "{}"),
            (f"{CHANGED}opening", "Here is a task for you.\n\n{}"),
            (f"{CHANGED}closing", "{}\n\nGive the answer alone."),
        )
    ]
