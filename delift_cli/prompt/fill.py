"""A conversation through a template: the text that plain Jinja2 prints, and where in it each text of the record stands.

It is rendered twice, as it is and with a mark at both ends of each text. What the marked one prints without its marks
must be what the plain one prints; where it is not (a template looks at how a text begins, or rewrites it), the marks
are put elsewhere and tried again. So no character of a record is ever searched for to find a boundary, and the text
is the template's own to the last character.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..data.record import Message
from ..errors import InputError
from .jinja import Printed, described
from .messages import Form, Part, Traits, build
from .meter import Limit


class Render(Protocol):
    """Runs the template, with the generation prompt where `generate`; raises whatever the template raises."""

    def __call__(
        self, messages: list[dict[str, Any]], tools: list[Any] | None = None, *, generate: bool = False
    ) -> Printed: ...


# Brackets that hardly any text holds; printable, so that `repr` and the like leave them as they are.
_PAIRS = [(chr(code), chr(code + 1)) for code in (*range(0x2987, 0x2998, 2), 0x29FC, 0x27EC, 0x2E28, 0x2E24)]
_TAG = re.compile(r"(</?[\w:|]*think[\w:|]*>|\[/?THINK\])")
_ONE_MARK = {"head": 0.0, "middle": 0.5, "tail": 1.0}  # a single mark in a text, and where
_CORE = re.compile(r"\s*(.*\S)\s*", re.DOTALL)


class Span(NamedTuple):
    """text[start:stop] of what is printed is a record's text: of which turn, which part of it.

    `own` where an assistant says it, who may write the tags of thoughts and calls itself.
    """

    start: int
    stop: int
    turn: int
    part: Part
    own: bool = False


class Laid(NamedTuple):
    """A conversation as the template prints it.

    Attributes:
        text: what plain Jinja2 prints.
        spans: the record's texts in it, in the order of the text.
        generated: what {% generation %} blocks of the template enclose, (start, stop).
        twice: the turns whose content is printed more than once.
        lacking: the turns of whose calls a text is not printed.
    """

    text: str
    spans: list[Span]
    generated: list[tuple[int, int]]
    twice: frozenset[int] = frozenset()
    lacking: frozenset[int] = frozenset()


class UnboundedError(InputError):
    """A template that asks for more time or memory than one is given: no other form of the conversation is tried."""


def lay(turns: Sequence[Message], tools: str, traits: Traits, form: Form, render: Render) -> Laid:
    """Print a conversation.

    Raises:
        InputError: the template refuses it, or rewrites a text so that it cannot be told from the template's own.
    """
    plain = _printed(render, *build(turns, tools, traits, form, lambda text, turn, part: text))
    if "\ufdee" in tools or any("\ufdee" in text or "\ufdef" in text for text in _texts(turns)):
        raise InputError("a text holds U+FDEE or U+FDEF, which are not characters; remove them")
    first, last = _free_pair(turns, tools, plain.text)
    given = [_usual(turns, traits)]
    given += [dict.fromkeys(given[0], way) for way in ("inner", "split", *_ONE_MARK)]
    for ways in given:
        found = _marked(turns, tools, traits, form, render, ways, first, last, plain.text)
        if found is not None:
            return Laid(plain.text, found[0], plain.generated, *found[1:])
    # one text alone may be the odd one
    ways = dict(given[0])
    if (
        _marked(
            turns, tools, traits, form, render, dict.fromkeys(ways, "none") | {-1: "outer"}, first, last, plain.text
        )
        is None
    ):
        if any(mark in tools for mark in "<[|"):
            raise InputError("rewrites the list of tools so that its own text and the record's cannot be told apart")
        ways[-1] = "none"
    for place, turn in enumerate(turns if len(turns) <= 64 else ()):
        for way in ("outer", "inner", "split", *_ONE_MARK):
            trial = dict.fromkeys(ways, "none") | {place: way}
            if _marked(turns, tools, traits, form, render, trial, first, last, plain.text) is not None:
                ways[place] = way
                break
        else:
            if turn.content.strip():
                raise _rewritten(place)
            ways[place] = "none"
    found = _marked(turns, tools, traits, form, render, ways, first, last, plain.text)
    if found is None:
        raise _rewritten(0)
    return Laid(plain.text, found[0], plain.generated, *found[1:])


def _rewritten(place: int) -> InputError:
    return InputError(
        f"rewrites the text of turn {place + 1} so that its own text and the record's cannot be told apart"
    )


def _printed(render: Render, messages: list[dict[str, Any]], tools: list[Any] | None) -> Printed:
    try:
        return render(messages, tools)
    except Limit as error:
        raise UnboundedError(f"asks for too much: {error}") from None
    except Exception as error:
        raise InputError(f"refuses a conversation: {described(error)}") from None


def _texts(turns: Sequence[Message]) -> list[str]:
    texts = []
    for turn in turns:
        texts += [turn.content, turn.reasoning, turn.name, turn.call_id]
        texts += [text for call in turn.calls for text in call]
    return texts


def _free_pair(turns: Sequence[Message], tools: str, printed: str) -> tuple[str, str]:
    """Two characters that occur nowhere, not even escaped in JSON."""
    texts = [tools, printed, *_texts(turns)]
    for first, last in _PAIRS:
        spelled = (first, last, *(f"\\u{ord(c):04x}" for c in (first, last)))
        if not any(mark in text for text in texts for mark in spelled):
            return first, last
    raise InputError("the texts hold every kind of bracket that delift could mark them with (U+2987 to U+2998 …)")


def _usual(turns: Sequence[Message], traits: Traits) -> dict[int, str]:
    """Where the marks of each turn's texts go, to begin with; -1 is the list of tools."""
    ways = {-1: "outer"}
    for place, turn in enumerate(turns):
        ways[place] = "inner" if turn.role in traits.strips else "outer"
        if turn.role == "assistant" and (turn.reasoning or "think" in turn.content.lower()):
            ways[place] = "split"
    return ways


def _marked(
    turns: Sequence[Message],
    tools: str,
    traits: Traits,
    form: Form,
    render: Render,
    ways: dict[int, str],
    first: str,
    last: str,
    plain: str,
) -> tuple[list[Span], frozenset[int], frozenset[int]] | None:
    """The spans, by rendering with marks, with `twice` and `lacking`; None where the marks change what is printed."""
    marks: list[tuple[int, Part, str, int, int]] = []  # turn, part, the whole text, where this piece of it lies

    def wrap(text: str, turn: int, part: Part) -> str:
        pieces = _pieces(text, ways[turn])
        if not pieces:
            return text
        made, at = [], 0
        for start, stop in pieces:
            number = len(marks)
            marks.append((turn, part, text, start, stop))
            made += [text[at:start], f"{first}{number}{last}"]
            if ways[turn] not in _ONE_MARK:
                made += [text[start:stop], f"{first}{number}{last}"]
            at = stop
        return "".join((*made, text[at:]))

    try:
        text = render(*build(turns, tools, traits, form, wrap)).text
    except Exception:
        return None
    begins, ends = (f"(?:{mark}|\\\\u{ord(mark):04x})" for mark in (first, last))  # as they are, or escaped in JSON
    parts = re.split(f"{begins}(\\d+){ends}", text)
    if "".join(parts[::2]) != plain:
        return None
    opened: dict[int, int] = {}
    spans: list[Span] = []
    sources: list[tuple[str, int, int]] = []
    printed: Counter[int] = Counter()
    at = 0
    for place, part in enumerate(parts):
        if place % 2 == 0:
            at += len(part)
            continue
        turn, kind, whole, start, stop = marks[int(part)]
        printed[int(part)] += 1
        again = printed[int(part)] > (1 if ways[turn] in _ONE_MARK else 2)
        if kind == "call" and again:
            kind = "name"  # a tool's turn may begin with the name of what was called
        own = turn >= 0 and turns[turn].role == "assistant" and kind != "name"
        if ways[turn] in _ONE_MARK:
            left, right = _grown(plain, at, whole, start)
            spans.append(Span(at - left, at + right, turn, kind, own))
            sources.append((whole, start - left, start + right))
        elif int(part) in opened:
            spans.append(Span(opened.pop(int(part)), at, turn, kind, own))
            sources.append((whole, start, stop))
        else:
            opened[int(part)] = at
    if opened:  # a text is printed in part
        return None
    twice = {
        marks[number][0]
        for number, count in printed.items()
        if marks[number][1] == "content" and count > (1 if ways[marks[number][0]] in _ONE_MARK else 2)
    }
    lacking = {mark[0] for number, mark in enumerate(marks) if mark[1] == "call" and not printed[number]}
    return _joined(plain, spans, sources), frozenset(twice), frozenset(lacking)


def _pieces(text: str, way: str) -> list[tuple[int, int]]:
    """Where the marks go: the (start, stop) of the pieces of `text` between two of them."""
    if way == "none":
        return []
    if way == "outer":
        return [(0, len(text))]
    pieces, at = [], 0
    for place, part in enumerate([text] if way == "inner" else _TAG.split(text)):
        core = _CORE.fullmatch(part) if place % 2 == 0 else None
        if core:
            pieces.append((at + core.start(1), at + core.end(1)))
        at += len(part)
    if way in _ONE_MARK:
        share = _ONE_MARK[way]
        pieces = [(start + int(share * (stop - start)),) * 2 for start, stop in pieces]
    return pieces


def spoken_length(text: str) -> int:
    """The characters of `text` without the tags of thoughts, and white space around them."""
    return sum(stop - start for start, stop in _pieces(text, "split"))


def _grown(printed: str, at: int, whole: str, place: int) -> tuple[int, int]:
    """How far what is printed around `at` is `whole` around `place`: characters to the left, to the right."""
    right = common_length(printed[at : at + len(whole) - place], whole[place:])
    left = common_length(printed[max(0, at - place) : at][::-1], whole[:place][::-1])
    return left, right


def common_length(a: str, b: str) -> int:
    """How many characters two texts have in common at their heads."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _joined(printed: str, spans: list[Span], sources: list[tuple[str, int, int]]) -> list[Span]:
    """Pieces of one text that are printed as they follow each other in it are one span, tags at its ends included."""
    joined: list[Span] = []
    ends: list[tuple[str, int, int]] = []
    for span, (whole, start, stop) in sorted(zip(spans, sources, strict=True), key=lambda both: both[0].start):
        if joined and ends[-1][0] is whole and joined[-1][2:] == span[2:]:
            before, (_, begun, reached) = joined[-1], ends[-1]
            if start >= reached and printed[before.stop : span.start] == whole[reached:start]:
                joined[-1] = span._replace(start=before.start)
                ends[-1] = whole, begun, stop
                continue
        joined.append(span)
        ends.append((whole, start, stop))
    return [_with_tags(printed, span, *end) for span, end in zip(joined, ends, strict=True)]


def _with_tags(printed: str, span: Span, whole: str, start: int, stop: int) -> Span:
    head, tail = whole[:start], whole[stop:]
    if head.strip() and printed[max(0, span.start - len(head)) : span.start] == head:
        span = span._replace(start=span.start - len(head))
    if tail.strip() and printed.startswith(tail, span.stop):
        span = span._replace(stop=span.stop + len(tail))
    return span
