"""Records to tokens: the model's own chat template, split by structure into example prefix, target prompt and response.

A conversation is rendered once for each *structure* (its sequence of roles) with a marker in place of every
message; what stands between the markers are the template's own pieces. Record texts are then put between the
pieces, so no character of a record is ever searched for to find a boundary. A template that rewrites a text
(trims it, drops think tags of earlier turns, fills them in the last) is caught by rendering with that one text
in place of its marker.
"""

from __future__ import annotations

import datetime
import json
import os.path
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import numpy as np
import numpy.typing as npt

from ..data.record import Message, Record
from ..errors import InputError

Tokens = npt.NDArray[np.int32]

PLAIN = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{{- message.content + '\\n\\n' -}}
{%- else -%}{{- message.content + '\\n' -}}{%- endif -%}
{%- endfor -%}"""

# Templates that print the date would make a utility depend on the day it was measured.
TEMPLATE_DATE = datetime.datetime(2025, 1, 1)

# SentencePiece vocabularies put a space in front of every text they are given. This byte never merges with
# what follows it, so a text tokenized behind it keeps its own first character.
_GUARD = "\x01"


class Tokenizer(Protocol):
    """What a template needs of a vocabulary (`delift_cli.model.Vocabulary` is one)."""

    bos: int
    eos: int
    add_bos: bool
    adds_space: bool

    def tokenize(self, text: str, *, special: bool) -> list[int]: ...
    def is_control(self, token: int) -> bool: ...
    def is_end(self, token: int) -> bool: ...
    def text(self, token: int) -> str: ...


class Target(NamedTuple):
    """A record in the role of a target: token ids, int32.

    ``alone`` is its context without an example (from the very first token), ``after`` its context behind an
    example whose system message is the same or when it has none, ``after_system`` the same with its own system
    message repeated, for an example that has another one. ``response`` ends with the end-of-turn token.
    """

    alone: Tokens
    after: Tokens
    after_system: Tokens
    response: Tokens


@dataclass(frozen=True)
class _Piece:
    """Text of the template (control tokens are parsed) or of a record (they are not)."""

    text: str
    trusted: bool


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, with which some templates mark what to train on: prints what it encloses."""

    tags = {"generation"}  # noqa: RUF012 (Jinja2's own protocol)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass
class ChatTemplate:
    """A Jinja2 chat template bound to a vocabulary.

    Args:
        source: the template's text, as `tokenizer.chat_template` of a GGUF has it.
        vocabulary: tokenizes, and says which tokens are control and end-of-turn tokens.
        name: what errors call it.

    Raises:
        InputError: it is not valid Jinja2, or does not print a user's and an assistant's turn.
    """

    source: str
    vocabulary: Tokenizer
    name: str = "the model's chat template"
    _compiled: jinja2.Template = field(init=False, repr=False)
    _pieces: dict[tuple[str, ...], list[str] | None] = field(init=False, repr=False, default_factory=dict)
    _known_controls: dict[str, list[int]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = TEMPLATE_DATE.strftime
        try:
            self._compiled = environment.from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{self.name} is not valid Jinja2: line {error.lineno}: {error.message}") from None
        except Exception as error:  # nested too deeply for Python
            raise InputError(f"{self.name} is not valid Jinja2: {_described(error)}") from None
        if self._split(("user", "assistant", "user", "assistant")) is None:
            raise InputError(
                f"{self.name} cannot print two turns of user and assistant: {self._complaint()}; "
                "use --template plain or a Jinja2 file of your own"
            )

    # ------------------------------------------------------------------ records to tokens

    def example(self, record: Record, *, limit: int | None = None) -> Tokens:
        """The tokens of `record` as an earlier turn, up to the last one of its response (not the turn's end).

        With `limit`, a longer prompt loses its middle; a record that cannot be made to fit raises InputError.
        """

        def encode(prompt: tuple[Message, ...]) -> Tokens:
            turns = [*self._leading(prompt), Message("assistant", record.response)]
            pieces = self._fill(turns, ("user", "assistant"))
            context, response = _move_spaces(pieces[: 2 * len(turns) - 1], pieces[2 * len(turns) - 1])
            return _array(self._with_bos(self._tokens(context)) + self._response_tokens(context, response))

        return _shorten(record, encode, limit)

    def further_example(self, record: Record, *, system: bool, limit: int | None = None) -> Tokens:
        """The tokens of `record` as an earlier turn behind another example, from the end of that one's response on.

        Its own system message is repeated where `system`, and left out otherwise. `limit` as for `example`.
        """
        around = ("user", "assistant")

        def encode(prompt: tuple[Message, ...]) -> Tokens:
            if prompt[0].role == "system" and not system:
                prompt = prompt[1:]
            elif self._split((*around, *_roles(prompt), "assistant", *around)) is None and prompt[0].role == "system":
                prompt = _fold_system(prompt)
            turns = [*prompt, Message("assistant", record.response)]
            pieces = self._fill(turns, around, start=around)
            context, response = _move_spaces(pieces[: 2 * len(turns) - 1], pieces[2 * len(turns) - 1])
            return _array(self._tokens(context, behind_text=True) + self._response_tokens(context, response))

        return _shorten(record, encode, limit)

    def target(self, record: Record, *, limit: int | None = None) -> Target:
        """The tokens of `record` as a target; `limit` bounds its context and response together."""
        response = Message("assistant", record.response)

        def encode(prompt: tuple[Message, ...]) -> Target:
            alone = self._fill([*self._leading(prompt), response])
            context, answer = _move_spaces(alone[:-2], alone[-2])
            first = self._with_bos(self._tokens(context))
            bare = self._after(prompt[1:] if prompt[0].role == "system" else prompt, response)
            own = self._after(prompt, response) if prompt[0].role == "system" else bare
            return Target(
                _array(first),
                _array(bare),
                _array(own),
                _array(self._response_tokens(context, answer) + self._end_of_turn(alone[-1].text)),
            )

        return _shorten(record, encode, limit)

    def _after(self, prompt: tuple[Message, ...], response: Message) -> list[int]:
        """Context tokens of a target that follows an example: from the end of the example's response on."""
        before = ("user", "assistant")
        if prompt[0].role == "system" and self._split((*before, *_roles(prompt), "assistant")) is None:
            prompt = _fold_system(prompt)
        pieces = self._fill([*prompt, response], start=before)
        context, _ = _move_spaces(pieces[:-2], pieces[-2])
        return self._tokens(context, behind_text=True)

    def _leading(self, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        """The prompt at the head of a conversation; its system message joins the user's where it must."""
        if prompt[0].role == "system" and self._split((*_roles(prompt), "assistant")) is None:
            return _fold_system(prompt)
        return prompt

    # ------------------------------------------------------------------ structure

    def _render(self, messages: list[dict[str, str]]) -> str:
        vocabulary = self.vocabulary
        return self._compiled.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=False,
            bos_token=vocabulary.text(vocabulary.bos) if vocabulary.bos >= 0 else "",
            eos_token=vocabulary.text(vocabulary.eos) if vocabulary.eos >= 0 else "",
        )

    def _complaint(self) -> str:
        """Why the template cannot print the simplest conversation, in its own words where it has any."""
        roles = ("user", "assistant", "user", "assistant")
        try:
            self._render(_marked(roles))
        except Exception as error:
            return _described(error)
        return "a message is missing from what it prints, or printed twice"

    def _split(self, roles: tuple[str, ...]) -> list[str] | None:
        """The template's own text around each message: len(roles) + 1 pieces, None where it has no such form."""
        if roles not in self._pieces:
            self._pieces[roles] = self._split_rendered(roles)
        return self._pieces[roles]

    def _split_rendered(self, roles: tuple[str, ...]) -> list[str] | None:
        # a template is somebody's program: whatever it raises means that it has no such form
        try:
            rest = self._render(_marked(roles))
        except Exception:
            return None
        if any(rest.count(_marker(place)) != 1 for place in range(len(roles))):
            return None
        pieces = []
        for place in range(len(roles)):
            piece, found, rest = rest.partition(_marker(place))
            if not found:  # printed in another order
                return None
            pieces.append(piece)
        return [*pieces, rest]

    def _fill(
        self, turns: Sequence[Message], after: tuple[str, ...] = (), *, start: tuple[str, ...] = ()
    ) -> list[_Piece]:
        """Template pieces and record texts in turn, for `turns` between marked turns `start` and `after`.

        The first piece is what the template prints before the first of `turns`: all of it when `start` is
        empty, otherwise what follows the last message of `start`.
        """
        roles = (*start, *_roles(turns), *after)
        pieces = self._split(roles)
        if pieces is None:
            raise InputError(
                f"{self.name} cannot print a conversation of {' / '.join(roles)}; "
                "use --template plain or a Jinja2 file of your own"
            )
        filled = []
        for place, turn in enumerate(turns, start=len(start)):
            piece, text = self._printed(roles, pieces, place, turn.content)
            filled += [_Piece(piece, trusted=True), _Piece(text, trusted=False)]
        filled.append(_Piece(pieces[len(start) + len(turns)], trusted=True))
        return filled

    def _printed(self, roles: tuple[str, ...], pieces: list[str], place: int, content: str) -> tuple[str, str]:
        """`content` as the template prints it at this place of the conversation, and the piece in front of it.

        That piece ends where the text begins to change what is printed: a think block that the template leaves
        empty in front of a plain answer belongs to the text of one that brings its own.
        """
        messages = _marked(roles)
        messages[place]["content"] = content
        before = "".join(pieces[at] + _marker(at) for at in range(place))
        behind = pieces[place + 1] + "".join(_marker(at) + pieces[at + 1] for at in range(place + 1, len(roles)))
        try:
            rendered = self._render(messages)
        except Exception as error:
            raise InputError(f"{self.name} refuses a text: {_described(error)}") from None
        text = rendered[len(before) : len(rendered) - len(behind)]
        piece = os.path.commonprefix([pieces[place], text])  # noqa: RUF071 (of any strings)
        if rendered != before + text + behind or self._controls(piece) != self._controls(pieces[place]):
            raise InputError(
                f"{self.name} changes its structure with the text of a message; "
                "use --template plain or a Jinja2 file of your own"
            )
        return piece, text[len(piece) :]

    # ------------------------------------------------------------------ tokens

    def _controls(self, piece: str) -> list[int]:
        """The control tokens of a piece of the template."""
        if piece not in self._known_controls:
            tokens = self.vocabulary.tokenize(piece, special=True)
            self._known_controls[piece] = list(filter(self.vocabulary.is_control, tokens))
        return self._known_controls[piece]

    def _tokens(self, run: list[_Piece], *, behind_text: bool = False) -> list[int]:
        """Token ids of one run of text.

        The run is tokenized in one call, as the model's own tooling does it, unless a record's text would
        become a control token there; then each piece is tokenized by itself, record texts without control
        tokens.
        """
        whole = self._tokenize("".join(piece.text for piece in run), behind_text, special=True)
        controls = [token for piece in run if piece.trusted for token in self._controls(piece.text)]
        if list(filter(self.vocabulary.is_control, whole)) == controls:
            return whole
        parts: list[int] = []
        for piece in run:
            behind = behind_text if not parts else not self.vocabulary.is_control(parts[-1])
            parts += self._tokenize(piece.text, behind, special=piece.trusted)
        return parts

    def _response_tokens(self, context: list[_Piece], response: list[_Piece]) -> list[int]:
        last = next((piece for piece in reversed(context) if piece.text), _Piece("", trusted=True))
        before = self.vocabulary.tokenize(last.text, special=last.trusted)[-1:]
        behind_text = any(not self.vocabulary.is_control(token) for token in before)
        return self._tokenize("".join(piece.text for piece in response), behind_text, special=False)

    def _tokenize(self, text: str, behind_text: bool, *, special: bool) -> list[int]:
        if not text:
            return []
        if not (behind_text and self.vocabulary.adds_space):
            return self.vocabulary.tokenize(text, special=special)
        guard = self.vocabulary.tokenize(_GUARD, special=False)
        tokens = self.vocabulary.tokenize(_GUARD + text, special=special)
        return tokens[len(guard) :]

    def _with_bos(self, tokens: list[int]) -> list[int]:
        vocabulary = self.vocabulary
        if vocabulary.add_bos and tokens[:1] != [vocabulary.bos]:
            return [vocabulary.bos, *tokens]
        return tokens

    def _end_of_turn(self, tail: str) -> list[int]:
        """What the template prints after a response, up to the token that ends the turn.

        That is its first end-of-generation token, else its first control token, else its first token; a
        template that prints nothing there ends the turn with the vocabulary's end-of-sequence token.
        """
        tokens = self._tokenize(tail, True, special=True)
        for ends in (self.vocabulary.is_end, self.vocabulary.is_control):
            for place, token in enumerate(tokens):
                if ends(token):
                    return tokens[: place + 1]
        return tokens[:1] or [self.vocabulary.eos]


def load_template(choice: str | None, own: str | None, vocabulary: Tokenizer) -> ChatTemplate:
    """The template that `--template` asks for.

    Args:
        choice: None (the model's own, else plain), `plain`, or the path of a Jinja2 file.
        own: the chat template in the model's metadata, if it has one.

    Raises:
        InputError: no such file, or not a usable template.
    """
    if choice is None and own:
        return ChatTemplate(own, vocabulary)
    if choice in (None, "plain"):
        return ChatTemplate(PLAIN, vocabulary, "the plain template")
    path = Path(str(choice))
    try:
        return ChatTemplate(path.read_text(encoding="utf-8-sig"), vocabulary, f"template {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read template {path}: {error}; give a Jinja2 file or 'plain'") from None


def _shorten(record: Record, encode: Callable[[tuple[Message, ...]], Any], limit: int | None) -> Any:
    """`encode(prompt)`, with the middle of the prompt's messages cut, the longest first, until it fits `limit`."""
    prompt = record.prompt
    encoded = encode(prompt)
    if limit is None or _length(encoded) <= limit:
        return encoded
    for place in sorted(range(len(prompt)), key=lambda at: -len(record.prompt[at].content)):
        fits, too_long = 0, len(prompt[place].content)
        shortest = _cut(prompt, place, fits)
        encoded = encode(shortest)
        if _length(encoded) > limit:
            prompt = shortest
            continue
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            candidate = encode(_cut(prompt, place, middle))
            if _length(candidate) <= limit:
                fits, encoded = middle, candidate
            else:
                too_long = middle
        return encoded
    raise InputError(
        f"record {record.id} (line {record.line}) needs {_length(encoded):,} tokens even with its prompt cut, "
        f"{limit:,} are left for it; raise --ctx or leave it out"
    )


def _cut(prompt: tuple[Message, ...], place: int, kept: int) -> tuple[Message, ...]:
    """`prompt` with `kept` characters of one message, half from its head and half from its tail."""
    content = prompt[place].content
    shorter = f"{content[: kept - kept // 2]} […] {content[len(content) - kept // 2 :]}"
    return (*prompt[:place], prompt[place]._replace(content=min(content, shorter, key=len)), *prompt[place + 1 :])


def _length(encoded: Tokens | Target) -> int:
    if isinstance(encoded, Target):
        return max(len(encoded.alone), len(encoded.after_system)) + len(encoded.response)
    return len(encoded)


def _move_spaces(context: list[_Piece], response: _Piece) -> tuple[list[_Piece], list[_Piece]]:
    """Spaces that the template prints right before a response are tokenized with it, as in running text."""
    last = context[-1]
    bare = last.text.rstrip(" ")
    return [*context[:-1], _Piece(bare, True)], [_Piece(last.text[len(bare) :], True), response]


def _fold_system(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system message as the first lines of the first user turn, for templates without a place for it."""
    system, first = prompt[0], prompt[1]
    if not system.content.strip():
        return prompt[1:]
    if first.role != "user":
        return (Message("user", system.content), *prompt[1:])
    return (Message("user", f"{system.content}\n\n{first.content}"), *prompt[2:])


def _roles(turns: Sequence[Message]) -> tuple[str, ...]:
    return tuple(turn.role for turn in turns)


def _marker(place: int) -> str:
    return f"⟦delift-message-{place}⟧"


def _marked(roles: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"role": role, "content": _marker(place)} for place, role in enumerate(roles)]


def _array(tokens: list[int]) -> Tokens:
    return np.asarray(tokens, dtype=np.int32)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _described(error: Exception) -> str:
    """An exception of somebody's template in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
