"""Text with the record's parts known to token ids: structure comes from the template alone, never from a record."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .fill import Span

Tokens = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

# SentencePiece vocabularies put a space in front of every text they are given. This byte never merges with
# what follows it, so a text tokenized behind it keeps its own first character.
_GUARD = "\x01"
# llama.cpp looks for every control token in all of a text again for each one that it found: a text of so many
# characters and more goes to it in pieces.
LONG = 1 << 15

# What an assistant itself writes between tags that a vocabulary may have as tokens: no turn begins or ends with them.
_OWN_TAGS = re.compile(
    r"</?(seed:)?(think|thinking|thought|reasoning|tool_calls?|tool_code|function_calls?|answer|arg_key|arg_value"
    r"|function|invoke|parameter|parameters)>|\[/?THINK\]"
)
_STRUCTURAL = re.compile(r"<[|｜].*[|｜]>|\[/?[A-Z_]+\]|</?(tool_responses?|tools?)>")


class Vocabulary(Protocol):
    """What a template needs of a vocabulary (`delift_cli.model.Vocabulary` is one)."""

    size: int
    bos: int
    eos: int
    add_bos: bool
    adds_space: bool

    def token_array(self, text: str, *, special: bool) -> Tokens: ...
    def is_control(self, token: int) -> bool: ...
    def is_user_defined(self, token: int) -> bool: ...
    def is_end(self, token: int) -> bool: ...
    def swallows_space(self, token: int) -> bool: ...
    def text(self, token: int) -> str: ...
    def piece(self, token: int) -> bytes: ...


class Found(NamedTuple):
    """A token of structure as it is spelled in a text: text[start:stop]."""

    start: int
    stop: int
    token: int


class Speller:
    """Tokenizes what a template prints.

    Args:
        vocabulary: of the model.
        source: the template's text; user-defined tokens that it prints are structure.
    """

    def __init__(self, vocabulary: Vocabulary, source: str) -> None:
        self.vocabulary = vocabulary
        self._control: dict[str, int] = {}
        self._defined: dict[str, int] = {}
        self._special = np.zeros(vocabulary.size, np.bool_)
        for token in range(vocabulary.size):
            if vocabulary.is_control(token):
                self._control.setdefault(vocabulary.text(token), token)
                self._special[token] = True
            elif vocabulary.is_user_defined(token):
                self._special[token] = True
                text = vocabulary.text(token)
                tagged = len(text) > 2 and text[0] + text[-1] in ("<>", "[]")
                known = _STRUCTURAL.fullmatch(text) or _OWN_TAGS.fullmatch(text)
                if vocabulary.is_end(token) or known or (tagged and text in source):
                    self._defined.setdefault(text, token)
        self._spelled: dict[int, set[str]] = defaultdict(set)  # by length, all that is found before any other token
        for token in np.flatnonzero(self._special).tolist():
            text = vocabulary.text(token)
            self._spelled[len(text)].add(text)
        self._structure = {text: token for text, token in (self._control | self._defined).items() if text}
        self._lengths = sorted({len(text) for text in self._structure}, reverse=True)
        firsts = sorted({text[0] for text in self._structure})
        self._first = re.compile("|".join(map(re.escape, firsts)) or "(?!)")  # which is nowhere
        self._sizes = np.full(vocabulary.size, -1, np.int32)

    @cached_property
    def _guard(self) -> int:
        return len(self.vocabulary.token_array(_GUARD, special=False))

    # ------------------------------------------------------------------ tokens of structure as they are spelled

    def find(self, text: str, start: int = 0, stop: int | None = None) -> Iterator[Found]:
        """Tokens of structure that are spelled in text[start:stop], each the longest at its place."""
        stop = len(text) if stop is None else stop
        at = start
        while (found := self._first.search(text, at, stop)) is not None:
            at = found.start()
            for length in self._lengths:
                token = self._structure.get(text[at : at + length]) if at + length <= stop else None
                if token is not None:
                    yield Found(at, at + length, token)
                    at += length
                    break
            else:
                at += 1

    def end_in(self, text: str, start: int = 0, stop: int | None = None) -> int | None:
        """Where the first token that ends a generation ends in text[start:stop]."""
        for found in self.find(text, start, stop):
            if self.vocabulary.is_end(found.token):
                return found.stop
        return None

    def _posing(self, text: str, span: Span) -> bool:
        """Is there something in or across the borders of a record's text that would become structure?"""
        margin = self._lengths[0] - 1 if self._lengths else 0
        low, high = max(0, span.start - margin), min(len(text), span.stop + margin)
        if self._first.search(text, low, high) is None:
            return False
        # all that begins in the region, not only what is the longest at its place
        at = low
        while (found := self._first.search(text, at, high)) is not None:
            at = found.start()
            for length in self._lengths:
                spelled = text[at : at + length]
                touches = at + length > span.start and at < span.stop and at + length <= high
                if touches and spelled in self._structure and not (span.own and self._is_own(spelled)):
                    return True
            at += 1
        return False

    def _is_own(self, spelled: str) -> bool:
        return spelled in self._defined and _OWN_TAGS.fullmatch(spelled) is not None

    # ------------------------------------------------------------------ text to tokens

    def tokens(self, text: str, spans: Sequence[Span], *, behind_text: bool = False) -> Tokens:
        """Token ids of `text`, in one call as the model's own tooling tokenizes it.

        A record's text that spells structure is tokenized apart, without control tokens and cut within what a
        vocabulary would find all the same.

        Args:
            spans: the record's texts in it.
            behind_text: does more text stand in front of it?
        """
        posing = [span for span in spans if self._posing(text, span)]
        if not posing:
            return self._one(text, behind_text, special=True)
        parts: list[Tokens] = []
        at, behind = 0, behind_text
        for start, stop in _merged(posing):
            start = max(at, len(text[:start].rstrip(" ")))  # spaces are tokenized with what follows them
            for piece, trusted in ((text[at:start], True), (text[start:stop], False)):
                for bit in [piece] if trusted else self._bits(piece):
                    if bit:
                        parts.append(self._one(bit, behind, special=trusted))
                        behind = not (len(parts[-1]) and self._special[parts[-1][-1]])
            at = stop
        if at < len(text):
            parts.append(self._one(text[at:], behind, special=True))
        return np.concatenate([np.empty(0, np.int32), *parts])

    def _bits(self, text: str) -> Iterator[str]:
        """A record's text cut within each user-defined token that is spelled in it."""
        at = 0
        while (found := self._first.search(text, at)) is not None:
            here = found.start()
            if any(text[here : here + length] in self._defined for length in self._lengths):
                yield text[: here + 1]
                text, at = text[here + 1 :], 0
            else:
                at = here + 1
        yield text

    def _one(self, text: str, behind_text: bool, *, special: bool) -> Tokens:
        if not text:
            return np.empty(0, np.int32)
        if special and len(text) > 2 * LONG:
            first, *others = self._pieces(text)
            return np.concatenate(
                [self._whole(first, behind_text, special=True)]
                + [self._whole(piece, False, special=True) for piece in others]
            )
        return self._whole(text, behind_text, special=special)

    def _pieces(self, text: str) -> Iterator[str]:
        """A long text cut in front of control tokens, where its tokens are those of the pieces."""
        start = 0
        while len(text) - start > 2 * LONG:
            found = self.find(text, start + LONG)
            cut = next((each.start for each in found if self._parts(text, each)), None)
            if cut is None:
                break
            yield text[start:cut]
            start = cut
        yield text[start:]

    def _parts(self, text: str, found: Found) -> bool:
        """Is what stands before a token of structure tokenized alike whatever follows?"""
        across = (
            text[start : start + length] in texts
            for length, texts in self._spelled.items()
            for start in range(max(0, found.start - length + 1), found.start)
        )
        return not self.vocabulary.swallows_space(found.token) and not any(across)

    def _whole(self, text: str, behind_text: bool, *, special: bool) -> Tokens:
        if not (behind_text and self.vocabulary.adds_space):
            return self.vocabulary.token_array(text, special=special)
        return self.vocabulary.token_array(_GUARD + text, special=special)[self._guard :]

    # ------------------------------------------------------------------ tokens to places in the text

    def places(self, text: str, tokens: Tokens, *, behind_text: bool = False) -> Int64 | None:
        """int64 [tokens + 1]: where in `text`, in bytes, each token begins; None where that cannot be told."""
        sizes = self._size_of(tokens).astype(np.int64)
        if self.vocabulary.adds_space and len(tokens):
            special = self._special[tokens]
            opens = np.concatenate([[not behind_text], special[:-1]]) & ~special
            sizes -= opens
        total = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        places = np.concatenate([[0], np.cumsum(sizes)])
        if places[-1] == total:
            return places
        return self._places_by_structure(text, tokens, sizes)

    def _places_by_structure(self, text: str, tokens: Tokens, sizes: Int64) -> Int64 | None:
        """The same where white space is swallowed at control tokens, as some vocabularies want it."""
        data = text.encode("utf-8", "surrogatepass")
        places = np.empty(len(tokens) + 1, np.int64)
        at = begun = 0
        stops = [*np.flatnonzero(self._special[tokens]).tolist(), len(tokens)]
        for stop in stops:
            spelled = self.vocabulary.text(int(tokens[stop])).encode() if stop < len(tokens) else b""
            end = data.find(spelled, at) if spelled else len(data)
            run = int(sizes[begun:stop].sum())
            if end < 0:
                return None
            between = data[at:end]
            if len(between) != run:
                if len(between.lstrip()) == run:
                    at = end - run
                elif len(between.rstrip()) != run and run != 0:
                    return None
            places[begun:stop] = at + np.concatenate([[0], np.cumsum(sizes[begun:stop])])[:-1]
            if stop < len(tokens):
                places[stop] = end
                at = end + len(spelled)
            begun = stop + 1
        places[-1] = len(data)
        return places

    def _size_of(self, tokens: Tokens) -> npt.NDArray[np.int32]:
        sizes = self._sizes[tokens]
        if (sizes < 0).any():
            for token in np.unique(tokens[sizes < 0]).tolist():
                self._sizes[token] = len(self.vocabulary.piece(token))
            sizes = self._sizes[tokens]
        return sizes


def byte_places(text: str, places: Sequence[int]) -> Int64:
    """int64 [places]: how many bytes of UTF-8 stand in front of each of these characters of a text."""
    if text.isascii():
        return np.array(places, np.int64)
    cuts = sorted({0, *places})
    sizes = (len(text[start:stop].encode("utf-8", "surrogatepass")) for start, stop in pairwise(cuts))
    before = dict(zip(cuts, accumulate(sizes, initial=0), strict=True))
    return np.array([before[place] for place in places], np.int64)


def _merged(spans: Sequence[Span]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], span.stop)
        else:
            merged.append((span.start, span.stop))
    return merged
