"""Records to tokens: what a model with this chat template and this vocabulary sees of them, and what is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from ..data.record import Message, Record
from ..errors import InputError
from .conversation import STAND_INS, Line, Printer
from .fill import Laid, spoken_length
from .jinja import TEMPLATE_DATE, Jinja, Printed, described
from .messages import Form, Traits, adapted
from .meter import Limit
from .shorten import shorten
from .structure import Structure
from .thoughts import split_thoughts, without_thought
from .tokens import Speller, Tokens, Vocabulary, byte_places
from .view import View, view

Mask = npt.NDArray[np.bool_]

AS_TRAINED = "as trained"
_FAR = 64  # characters for each token that fits, beyond which a text is looked at before it is tokenized
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token")

__all__ = ["AS_TRAINED", "TEMPLATE_DATE", "ChatTemplate", "Mask", "Target", "Tokens"]


class Target(NamedTuple):
    """A record in the role of a target: token ids, int32.

    ``alone`` is its context without an example (from the very first token), ``after`` its context behind an
    example whose system message and tools are the same or when it has none, ``after_system`` the same with its own
    repeated, for an example that has others. ``response`` reaches from the first scored token to the last; those that
    are scored are True in ``scored``, bool [response]: what each scored turn says, with its end of turn.
    """

    alone: Tokens
    after: Tokens
    after_system: Tokens
    response: Tokens
    scored: Mask

    def first_scored(self, count: int | None) -> Target:
        """The same up to the scored token number `count` (default: all of them)."""
        places = np.flatnonzero(self.scored)
        if count is None or len(places) <= count:
            return self
        stop = int(places[count - 1]) + 1
        return self._replace(response=self.response[:stop], scored=self.scored[:stop])


class _Encoded(NamedTuple):
    """A line as tokens, int32, and which of them are scored."""

    tokens: Tokens
    scored: Mask

    def parted(self) -> tuple[Tokens, Tokens, Mask]:
        """Context, response, and what is scored of it."""
        first = int(self.scored.argmax()) if self.scored.any() else len(self.scored)
        return self.tokens[:first], self.tokens[first:], self.scored[first:]


@dataclass
class ChatTemplate:
    """A Jinja2 chat template bound to a vocabulary.

    Args:
        source: the template's text, as `tokenizer.chat_template` of a GGUF has it.
        vocabulary: tokenizes, and says which tokens are control and end-of-turn tokens.
        name: what errors call it.
        arguments: further variables for the template, such as {"enable_thinking": False}.
        as_trained: score a last turn as the template prints it in a conversation, not behind what its generation
            prompt adds (an opened or empty block of thought).

    Raises:
        InputError: it is not valid Jinja2, or does not print a user's and an assistant's turn.
    """

    source: str
    vocabulary: Vocabulary
    name: str = "the model's chat template"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    as_trained: bool = False

    def __post_init__(self) -> None:
        taken = [name for name in self.arguments if name in _GIVEN]
        if taken:
            raise InputError(f"--template-arg {taken[0]}: what the records and the vocabulary give cannot be replaced")
        self._jinja = Jinja(self.source, self.name)
        self._speller = Speller(self.vocabulary, self.source)
        self._noted: dict[str, set[tuple[str, int]]] = {}
        self._no_tools: list[Any] | None = None
        try:
            self._render([{"role": "user", "content": "qzasked"}, {"role": "assistant", "content": "qzsaid"}])
        except Limit as error:
            self._refuse(described(error))
        except Exception:
            pass  # what it needs besides is found out below
        if not self._is_usable():
            complaint = self._structure.complaint
            self._no_tools = []  # some templates for tools alone do not ask whether there are any
            if not self._is_usable():
                self._refuse(complaint)

    def _is_usable(self) -> bool:
        """Does it print two turns? What was found out about it before is found out anew."""
        self._structure = Structure(self._render)
        self._printer = Printer(self.name, self._structure, self._render, self._speller, as_trained=self.as_trained)
        try:
            self._printer.lay([*STAND_INS, Message("user", "qzagain"), Message("assistant", "qzend")], "")
        except InputError:
            return False
        return True

    def _refuse(self, complaint: str) -> NoReturn:
        raise InputError(
            f"{self.name} cannot print two turns of user and assistant: {complaint}; "
            "use --template plain or a Jinja2 file of your own"
        )

    # ------------------------------------------------------------------ what is said about it

    def notes(self) -> list[str]:
        """What was dropped or adapted in the records so far, a line with a count for each kind."""
        return [f"{text}: {len(records):,} record{'s' * (len(records) > 1)}" for text, records in self._noted.items()]

    def describe(self) -> dict[str, Any]:
        """What of the template a cache's numbers depend on, for its manifest."""
        prompt = self._structure.generation_prompt
        given = {"arguments": dict(self.arguments)} if self.arguments else {}
        return {
            "name": self.name,
            "text": self.source,
            "scored from": AS_TRAINED if self.as_trained else "behind the generation prompt",
            "generation prompt": prompt,
            **given,
        }

    @property
    def traits(self) -> Traits:
        """What the template reads."""
        return self._structure.traits

    def _note(self, record: Record, text: str) -> None:
        self._noted.setdefault(text, set()).add((record.id, record.line))

    # ------------------------------------------------------------------ records to tokens

    def example(self, record: Record, *, limit: int | None = None, most: int | None = None) -> Tokens:
        """The tokens of `record` as an earlier turn, up to the last one of what it says (not the turn's end).

        With `limit`, a longer one loses the middle of what is not scored; a record that cannot be made to fit raises
        InputError. So does, without being tokenized to its end, one that is far above `most`.
        """
        self._check_size(record, most)

        def encode(turns: tuple[Message, ...]) -> Tokens:
            after = self._after(record.tools)
            laid, form = self._printer.lay([*turns, *after], record.tools, after=len(after))
            self._tell(record, turns, laid, form)
            stop = self._printer.end(laid, turns, len(turns))
            return self._with_bos(self._encode(_between(laid, 0, stop)).tokens)

        return shorten(record, self._own(record), encode, len, limit)

    def further_example(self, record: Record, *, system: bool, limit: int | None = None) -> Tokens:
        """The tokens of `record` as an earlier turn behind another example, from the end of that one's response on.

        Its own system message and tools are repeated where `system`, and left out otherwise. `limit` as for `example`.
        """

        def encode(turns: tuple[Message, ...]) -> Tokens:
            after = self._after(record.tools if system else "")
            behind = self._behind(turns, record.tools, own=system, after=after)
            stop = self._printer.end(behind.laid, behind.turns, len(behind.turns) - len(after))
            line = _between(behind.laid, behind.start, stop).behind(behind.opening)
            return self._encode(line, behind_text=True).tokens

        return shorten(record, self._own(record), encode, len, limit)

    def target(self, record: Record, *, limit: int | None = None, most: int | None = None) -> Target:
        """The tokens of `record` as a target; `limit` and `most` bound its context and response together."""
        self._check_size(record, most)

        def encode(turns: tuple[Message, ...]) -> Target:
            turns, laid, form = self._lay(record, turns)
            line = self._alone(record, turns, laid, form)
            alone, response, scored = self._encode(line).parted()
            if not scored.any():
                raise InputError(f"{self.name} prints nothing of what is scored in this record")
            bare = self._context(record, turns, "", response, own=False)
            has_own = turns[0].role == "system" or bool(record.tools)
            own = self._context(record, turns, record.tools, response, own=True) if has_own else bare
            return Target(self._with_bos(alone), bare, own, response, scored)

        return shorten(record, self._own(record), encode, _length, limit)

    def view(self, record: Record) -> View:
        """What the model sees of `record` alone, in pieces, decoded from its very tokens."""
        turns, laid, form = self._lay(record, self._own(record))
        line = self._alone(record, turns, laid, form)
        encoded = self._encode(line)
        return view(self._with_bos(encoded.tokens), encoded.scored, line, self._speller)

    def _lay(self, record: Record, turns: tuple[Message, ...]) -> tuple[tuple[Message, ...], Laid, Form]:
        """A target as printed alone, and its turns: without a thought where the generation prompt has closed it."""
        laid, form = self._printer.lay(turns, record.tools)
        last, bare = turns[-1], without_thought(turns[-1])
        if bare != last and self._printer.closes_thought(turns, record.tools, form):
            turns = (*turns[:-1], bare)
            laid, form = self._printer.lay(turns, record.tools)
            if last.reasoning.strip() or spoken_length(last.content) > spoken_length(bare.content):
                self._note(record, "the last thought is not shown, for the generation prompt has closed it")
        self._tell(record, turns, laid, form)
        return turns, laid, form

    def _alone(self, record: Record, turns: tuple[Message, ...], laid: Laid, form: Form) -> Line:
        line = self._printer.line(turns, laid, record.tools, form)
        if line.added:
            self._note(record, f"scored behind {line.added!r}, which the generation prompt adds")
        return line

    def _check_size(self, record: Record, most: int | None) -> None:
        """Refuse what is too long by far: a text of 50 MB takes a minute and 2 GB to tokenize."""
        size = sum(len(turn.content) for turn in record.turns)
        if most is None or (size <= _FAR * most and len(record.turns) <= most):
            return
        head = "\n".join(turn.content for turn in record.turns[:most])[: _FAR * most // 2]
        if len(record.turns) > most or len(self.vocabulary.token_array(head, special=False)) > most:
            raise InputError(
                f"its {len(record.turns):,} turns, {size:,} characters in all, have more than the {most:,} tokens that "
                "fit; use --truncate, a larger --ctx, or --skip-invalid to leave it out"
            )

    def _own(self, record: Record) -> tuple[Message, ...]:
        """The record's turns with thoughts where the template reads them."""
        return split_thoughts(record.turns, self._structure.traits)

    def _context(
        self, record: Record, turns: tuple[Message, ...], tools: str, response: Tokens, *, own: bool
    ) -> Tokens:
        """Context tokens of a target that follows an example: from the end of the example's response on."""
        behind = self._behind(turns, tools, own=own)
        line = self._printer.line(behind.turns, behind.laid, behind.tools, behind.form, behind.start)
        line = line.behind(behind.opening)
        context, found, _ = self._encode(line, behind_text=True).parted()
        if not np.array_equal(found, response):
            self._note(record, "printed in other words behind another record, and scored as it is printed alone")
        return context

    def _behind(self, turns: tuple[Message, ...], tools: str, *, own: bool, after: tuple[Message, ...] = ()) -> _Behind:
        """`turns` behind an answer, with their own system message and tools or without."""
        bare = turns[1:] if turns[0].role == "system" else turns
        if own and tools:  # the template may print them in its head or in any turn: all of it is repeated
            shown = (*turns, *after)
            laid, form = self._printer.lay(shown, tools, after=len(after))
            opening, start = self._printer.joint(laid.text, self._bos_text)
            return _Behind(laid, shown, tools, form, start, opening)
        shown = (*STAND_INS, *(turns if own else bare), *after)
        laid, form = self._printer.lay(shown, "", before=len(STAND_INS), after=len(after))
        return _Behind(laid, shown, "", form, self._printer.end(laid, shown, len(STAND_INS)))

    def _after(self, tools: str) -> tuple[Message, ...]:
        """What stands behind an example when it is printed; nothing where that would take its tools away."""
        return () if tools and self._structure.lists_tools_last else STAND_INS

    # ------------------------------------------------------------------ text to tokens

    @property
    def _bos_text(self) -> str:
        return self.vocabulary.text(self.vocabulary.bos) if self.vocabulary.bos >= 0 else ""

    def _render(
        self, messages: list[dict[str, Any]], tools: list[Any] | None = None, *, generate: bool = False
    ) -> Printed:
        variables = {
            "messages": messages,
            "tools": self._no_tools if tools is None else tools,
            "documents": None,
            "add_generation_prompt": generate,
            "bos_token": self._bos_text,
            "eos_token": self.vocabulary.text(self.vocabulary.eos) if self.vocabulary.eos >= 0 else "",
            **self.arguments,
        }
        return self._jinja.render(variables, _size(messages) + _size(tools), len(messages))

    def _encode(self, line: Line, *, behind_text: bool = False) -> _Encoded:
        """Tokens of a line; one that lies across the border of what is scored counts as scored."""
        tokens = self._speller.tokens(line.text, line.spans, behind_text=behind_text)
        scored = np.zeros(len(tokens), np.bool_)
        if line.scored:
            places = self._speller.places(line.text, tokens, behind_text=behind_text)
            if places is None:
                return self._encode_apart(line, behind_text)
            bounds = byte_places(line.text, [at for part in line.scored for at in part]).reshape(-1, 2)
            for begin, end in bounds.tolist():
                first, last = np.searchsorted(places[1:], begin, side="right"), np.searchsorted(places[:-1], end)
                while first > 0 and places[first - 1] >= begin:  # a space that SentencePiece puts in front
                    first -= 1
                scored[first:last] = True
        return self._ended(tokens, scored, line)

    def _encode_apart(self, line: Line, behind_text: bool) -> _Encoded:
        """The same where tokens cannot be placed in the text: what is scored is tokenized by itself."""
        parts, masks, at = [], [], 0
        for start, stop in [*line.scored, (len(line.text), len(line.text))]:
            for low, high, scored in ((at, start, False), (start, stop, True)):
                piece = _between(Laid(line.text, line.spans, []), low, high)
                parts.append(self._speller.tokens(piece.text, piece.spans, behind_text=behind_text or low > 0))
                masks.append(np.full(len(parts[-1]), scored))
            at = stop
        return self._ended(np.concatenate(parts), np.concatenate(masks), line)

    def _ended(self, tokens: Tokens, scored: Mask, line: Line) -> _Encoded:
        if line.ends and self.vocabulary.eos >= 0:
            tokens, scored = np.append(tokens, np.int32(self.vocabulary.eos)), np.append(scored, True)
        return _Encoded(tokens, scored)

    def _with_bos(self, tokens: Tokens) -> Tokens:
        vocabulary = self.vocabulary
        if vocabulary.add_bos and (len(tokens) == 0 or tokens[0] != vocabulary.bos):
            return np.concatenate([np.array([vocabulary.bos], np.int32), tokens])
        return tokens

    def _tell(self, record: Record, turns: Sequence[Message], laid: Laid, form: Form) -> None:
        """Note what the template does not print, and how the record was adapted to it."""
        for text in adapted(record.tools, turns, form, self._structure.traits):
            self._note(record, text)
        thoughts = {span.turn for span in laid.spans if span.part == "reasoning"}
        if any(turn.reasoning and place not in thoughts for place, turn in enumerate(turns)):
            self._note(record, "thoughts are not shown, for the template does not print them there")
        whole = [0] * len(turns)
        for span in laid.spans:
            if span.part == "content" and span.turn < len(turns):
                whole[span.turn] += span.stop - span.start
        for size, turn in zip(whole, turns, strict=True):
            if turn.calls and turn.content.strip() and size == 0:
                self._note(record, "text beside a call is not shown, for the template prints the call alone")
            if "</think>" in turn.content and size < spoken_length(turn.content):
                self._note(record, "thoughts within an answer are not shown, for the template drops them there")


class _Behind(NamedTuple):
    """What is printed behind an answer: `opening`, and what is laid out from `start` on."""

    laid: Laid
    turns: tuple[Message, ...]
    tools: str
    form: Form
    start: int
    opening: str = ""


def _between(laid: Laid, start: int, stop: int) -> Line:
    spans = [s._replace(start=s.start - start, stop=s.stop - start) for s in laid.spans if start <= s.start < stop]
    return Line(laid.text[start:stop], spans, [], False, "")


def _length(target: Target) -> int:
    return max(len(target.alone), len(target.after_system)) + len(target.response)


def _size(value: Any) -> int:
    """Characters in what is handed to a template."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0
