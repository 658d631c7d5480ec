"""A record's turns as one text for a model: printed by the template, with what is scored in it marked."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from ..data.record import Message
from ..errors import InputError
from .fill import Laid, Render, Span, UnboundedError, common_length, lay
from .messages import Form, build
from .structure import Structure
from .tokens import Speller

STAND_INS = (Message("user", "qzquestion"), Message("assistant", "qzanswer"))  # in place of another record's turns


class Line(NamedTuple):
    """A conversation up to the last scored character, or up to where it was cut.

    Attributes:
        text: as the model sees it.
        spans: the record's texts in it.
        scored: (start, stop) of what is scored, ascending.
        ends: does an end-of-sequence token that the template does not print follow?
        added: what the generation prompt adds in front of the last turn and the template does not print there.
    """

    text: str
    spans: list[Span]
    scored: list[tuple[int, int]]
    ends: bool
    added: str

    def behind(self, text: str) -> Line:
        """The same with `text` of the template's in front of it."""
        by = len(text)
        spans = [span._replace(start=span.start + by, stop=span.stop + by) for span in self.spans]
        scored = [(start + by, stop + by) for start, stop in self.scored]
        return self._replace(text=text + self.text, spans=spans, scored=scored)


class Printer:
    """Prints conversations through one template, adapted where it does not take them as they are."""

    def __init__(self, name: str, structure: Structure, render: Render, speller: Speller, *, as_trained: bool) -> None:
        self.structure = structure
        self._name, self._render, self._speller, self._as_trained = name, render, speller, as_trained
        self._known: dict[tuple[object, ...], Form] = {}

    def lay(self, turns: Sequence[Message], tools: str, *, before: int = 0, after: int = 0) -> tuple[Laid, Form]:
        """The conversation as printed, and how it was adapted.

        Args:
            turns: the first `before` and the last `after` of them are stand-ins.

        Raises:
            InputError: the template cannot print it in any form.
        """
        traits = self.structure.traits
        signature = (tuple((t.role, bool(t.calls), bool(t.content.strip())) for t in turns), bool(tools), before, after)
        known = self._known.get(signature)
        offered = bool(tools) and not traits.tools
        forms = list(_forms(turns, offered=offered))
        refused: list[InputError] = []
        for form in ([known] if known else []) + [form for form in forms if form != known]:
            try:
                laid = lay(turns, tools, traits, form, self._render)
            except UnboundedError as error:
                raise InputError(f"{self._name} {error}; use --template plain or a Jinja2 file of your own") from None
            except InputError as error:
                refused.append(error)
                continue
            problem = _missing(laid, turns, before, after, offered=offered)
            if problem is None:
                self._known[signature] = form
                return laid, form
            refused.append(InputError(problem))
        roles = " / ".join(turn.role for turn in turns)
        shown = roles if len(roles) < 200 else f"{len(turns)} turns"
        reason = f"{self._name} cannot print a conversation of {shown}: it {refused[0]}"
        raise InputError(f"{reason}; use --template plain or a Jinja2 file of your own")

    # ------------------------------------------------------------------ what is scored

    def line(self, turns: Sequence[Message], laid: Laid, tools: str, form: Form, start: int = 0) -> Line:
        """What is scored of `laid`, cut behind the last of it; what stands before `start` is left out."""
        text, spans, added = laid.text, laid.spans, ""
        last = len(turns) - 1
        scored: list[tuple[int, int]] = []
        ends = False
        extents = _extents(spans, len(turns))
        firsts = sorted(span.start for span in spans if span.part != "name")
        names = _names(spans)
        stops = sorted(span.stop for span in spans)
        for place, turn in enumerate(turns):
            extent = extents[place]
            if not turn.scored or extent is None:
                continue
            first, stop = extent
            before = stops[at - 1] if (at := bisect.bisect_right(stops, first)) else 0
            behind = firsts[at] if (at := bisect.bisect_left(firsts, stop)) < len(firsts) else len(text)
            begin = before + self._header(text[before:first], called=bool(turn.calls))
            marked = [span for span in laid.generated if span[0] < stop and span[1] > first]
            if marked:
                begin, end = marked[0][0], marked[-1][1]
                scored += marked
                if place == last:
                    text = text[:end]
                continue
            if place == last and not self._as_trained:
                cut, added = self._prompted(turns, tools, form, text, before, first)
                opened = _opened(added, text[first:]) if cut == first else 0
                if opened:  # the record opens its thought itself
                    added = added.rstrip()[:-opened]
                if added:
                    printed = text[cut:first]
                    on = first if printed.strip() and added.endswith(printed) else cut  # a thought is closed once
                    text = text[:cut] + added + text[on:]
                    by = len(added) - (on - cut)
                    spans = [_moved(span, cut, by) for span in spans]
                    begin, stop = cut + len(added), stop + by
                    behind, names = len(text), _names(spans)
                if opened:
                    begin = cut + len(added) + opened
            found = self._ended(text, stop, behind, names)
            if place == last and found is None:
                called = self._is_call(turn, form)
                closing = self.structure.behind_answer(called=called)
                found = self._speller.end_in(closing)
                ends = found is None
                closed = self._closed_call(text[stop:behind], closing, found) if called else closing[: found or 0]
                text = text[:stop] + closed
                found = len(text)
            end = found if found is not None else stop + self._call_end(text[stop:behind]) if turn.calls else stop
            scored.append((begin, end))
            if place == last:
                text = text[:end]
        spans = [span._replace(start=span.start - start, stop=span.stop - start) for span in spans]
        return Line(
            text[start:],
            [span for span in spans if span.start >= 0 and span.stop <= len(text) - start],
            [(max(0, begin - start), end - start) for begin, end in scored],
            ends,
            added,
        )

    def _ended(self, text: str, start: int, stop: int, names: Sequence[tuple[int, int]]) -> int | None:
        """Where the first end of a turn ends in text[start:stop], past the `names` of a record in it."""
        if self._mid_end and text.startswith(self._mid_end, start):
            return start + len(self._mid_end)
        for low, high in names[bisect.bisect_left(names, (start, 0)) : bisect.bisect_left(names, (stop, 0))]:
            found = self._speller.end_in(text, start, low)
            if found is not None:
                return found
            start = high
        return self._speller.end_in(text, start, stop)

    def _call_end(self, tail: str) -> int:
        """How much of what stands behind a call the template prints there even where nothing follows."""
        last = self.structure.behind_last_call
        for closing in (self.structure.behind_answer(called=True), self.structure.behind_call_unanswered):
            following = closing[common_length(closing, last) :]
            if following and tail.endswith(following):  # numbers and brackets of its arguments stand before that
                return len(tail) - len(following)
        return common_length(tail, last)

    def _closed_call(self, tail: str, closing: str, end: int | None) -> str:
        """What stands behind a call that ends the conversation, with the turn's end that `closing` has up to `end`."""
        last = self.structure.behind_last_call
        same = common_length(closing, last)
        alone = last[same:]  # which may stand in `closing` too, behind what the template prints of earlier calls only
        if end is None:
            return tail.removesuffix(alone).rstrip()
        at = closing.find(alone, same, end)
        return tail.removesuffix(alone) + closing[same:end] if at < 0 else tail + closing[at + len(alone) : end]

    def _is_call(self, turn: Message, form: Form) -> bool:
        """Are its calls printed as the template prints calls?"""
        return bool(turn.calls) and self.structure.traits.calls and not form.spell

    def end(self, laid: Laid, turns: Sequence[Message], count: int) -> int:
        """Where what the first `count` turns say ends, with what closes a call but without the turn's end."""
        stop = max((span.stop for span in laid.spans if 0 <= span.turn < count), default=0)
        if not turns[count - 1].calls:
            return stop
        tail = laid.text[stop : min((span.start for span in laid.spans if span.start >= stop), default=None)]
        for found in self._speller.find(tail):
            if self._speller.vocabulary.is_end(found.token):
                return stop + found.start
        return stop + len(tail[: self._call_end(tail)].removesuffix(self._closing))

    def _header(self, head: str, *, called: bool) -> int:
        """Where generation starts in what stands between a turn and the text of an assistant's behind it."""
        prompt = self.structure.generation_prompt
        opening = self.structure.before_call if called else ""
        untold = len(head.removesuffix(opening))
        for length in range(len(prompt), 0, -1):
            at = head.rfind(prompt[:length])
            if at >= 0:
                kept = _whole_tags(prompt[:length])
                told = 2 * len(kept) >= len(prompt) or any(True for _ in self._speller.find(kept))
                return at + len(kept) if told else untold
        return untold

    def _prompted(
        self, turns: Sequence[Message], tools: str, form: Form, text: str, before: int, first: int
    ) -> tuple[int, str]:
        """What the generation prompt adds that the template does not print in front of the last turn, and where."""
        prompt = self.structure.generation_prompt
        if (
            not prompt
            or prompt in text[before:first]
            or (form.merge and len(turns) > 1 and turns[-2].role == "assistant")
        ):
            return first, ""
        asked = self._asked(turns[:-1], tools, form)
        if asked is None or (text.startswith(asked) and len(asked) <= first):
            return first, ""
        cut = len(_whole_tags(asked[: common_length(text[:first], asked)]))
        return (cut, asked[cut:]) if cut >= before else (first, "")

    def _asked(self, turns: Sequence[Message], tools: str, form: Form) -> str | None:
        """The conversation with the generation prompt; None where the template refuses that."""
        try:
            messages, listed = build(turns, tools, self.structure.traits, form, lambda text, turn, part: text)
            return self._render(messages, listed, generate=True).text
        except Exception:
            return None

    def closes_thought(self, turns: Sequence[Message], tools: str, form: Form) -> bool:
        """Has the generation prompt in front of the last turn closed its block of thought?"""
        closing = self.structure.behind_thought
        if self._as_trained or not closing or not self.structure.generation_prompt:
            return False
        return (self._asked(turns[:-1], tools, form) or "").rstrip().endswith(closing)

    # ------------------------------------------------------------------ behind another conversation

    def joint(self, text: str, bos: str) -> tuple[str, int]:
        """What joins a conversation that is printed alone to an answer in front of it, and where it goes on from."""
        between = self.structure.behind_answer(called=False)
        space = between[: len(between) - len(between.lstrip())]
        closing = self._closing or ("" if text.startswith(space) else space)
        opens = bool(bos) and text.startswith(bos) and not between[len(self._closing) :].startswith(bos)
        return closing, len(bos) if opens else 0

    @cached_property
    def _closing(self) -> str:
        """What the template prints behind an answer, whatever follows."""
        between = self.structure.behind_answer(called=False)
        same = common_length(between, self.structure.behind_last_answer)
        within = (found.start for found in self._speller.find(between) if found.start < same < found.stop)
        return self._mid_end or between[: next(within, same)]

    @cached_property
    def _mid_end(self) -> str:
        """What ends an answer that something follows, where a token of its own ends the last one, as in harmony."""
        between, last = self.structure.behind_answer(called=False), self.structure.behind_last_answer
        mid, end = next(self._speller.find(between), None), next(self._speller.find(last), None)
        if mid is None or end is None or between[: mid.start] != last[: end.start]:
            return ""
        is_end = self._speller.vocabulary.is_end
        ended = between[: mid.stop]  # what ends a question too opens no turn
        alike = self.structure.behind_question.startswith(ended)
        return ended if alike and is_end(end.token) and not is_end(mid.token) else ""


def _forms(turns: Sequence[Message], *, offered: bool) -> Iterator[Form]:
    """Ways to adapt a conversation, from none to all that could matter."""
    system = offered or any(turn.role == "system" for turn in turns)
    spoken = [turn.role for turn in turns if turn.role != "system"]
    calls = any(turn.calls or turn.role == "tool" for turn in turns)
    twice = calls or system or any(a == b for a, b in itertools.pairwise(turn.role for turn in turns))
    leading = bool(spoken) and spoken[0] != "user"
    ways = itertools.product(*((False, True) if way else (False,) for way in (calls, calls, leading, twice, system)))
    forms = sorted((Form(*reversed(way)) for way in ways), key=sum)
    yield from forms
    if "tool" in spoken:
        yield from (form._replace(retell=True) for form in forms if form.spell)


def _missing(laid: Laid, turns: Sequence[Message], before: int, after: int, *, offered: bool) -> str | None:
    """What keeps the text of each turn from being there once, in the order of the turns, between the stand-ins.

    Where tools are `offered` in a system message, they are to be there too.
    """
    low = max((s.stop for s in laid.spans if 0 <= s.turn < before), default=0)
    high = min((s.start for s in laid.spans if s.turn >= len(turns) - after), default=len(laid.text))
    spoken = [s.stop for s in laid.spans if before <= s.turn < len(turns) - after and turns[s.turn].role != "system"]
    high = min(high, max(spoken, default=high))  # a system message may stand in front of the last question alone
    if offered and not any(s.part == "tools" and low <= s.start and s.stop <= high for s in laid.spans):
        return "does not print the list of tools"
    said = [0] * len(turns)
    called = [False] * len(turns)
    reached = 0
    for span in laid.spans:
        if span.turn < 0 or span.part == "name":
            continue
        if before <= span.turn < len(turns) - after and not low <= span.start <= span.stop <= high:
            return f"prints turn {span.turn - before + 1} ({turns[span.turn].role}) elsewhere"
        if span.part == "content":
            said[span.turn] += max(1, span.stop - span.start)
            if turns[span.turn].role != "system":
                if span.turn < reached:
                    return f"prints turn {span.turn - before + 1} ({turns[span.turn].role}) in another place"
                reached = span.turn
        called[span.turn] |= span.part == "call"
    for place, turn in enumerate(turns):
        dropped = said[place] == 0 and (turn.calls or "</think>" in turn.content)  # some print calls or answers alone
        if turn.content.strip() and not dropped and (said[place] == 0 or place in laid.twice):
            how = "twice" if place in laid.twice else "not at all"
            return f"prints turn {place - before + 1} ({turn.role}) {how}"
        if turn.calls and not called[place]:
            return f"does not print the calls of turn {place - before + 1}"
        if place in laid.lacking:
            return f"does not print all of the calls of turn {place - before + 1}"
    return None


def _extents(spans: Sequence[Span], count: int) -> list[tuple[int, int] | None]:
    extents: list[tuple[int, int] | None] = [None] * count
    for span in spans:
        if span.turn >= 0 and span.part != "name":
            before = extents[span.turn]
            start, stop = (span.start, span.stop) if before is None else before
            extents[span.turn] = min(start, span.start), max(stop, span.stop)
    return extents


def _opened(added: str, said: str) -> int:
    """How much of what an assistant says a generation prompt has said already: the tag that opens its thought."""
    tag = re.search(r"(<[\w:|]*think[\w:|]*>|\[THINK\])\s*\Z", added)
    return len(tag[1]) if tag and said.startswith(tag[1]) else 0


def _names(spans: Sequence[Span]) -> list[tuple[int, int]]:
    return sorted((span.start, span.stop) for span in spans if span.part == "name")


def _moved(span: Span, cut: int, by: int) -> Span:
    return span._replace(start=span.start + by, stop=span.stop + by) if span.start >= cut else span


def _whole_tags(text: str) -> str:
    """`text` without a tag that is begun at its end and not closed."""
    return re.sub(r"<[^<>\s]*\Z", "", text)
