"""What one rendering of a stranger's template has used, and what more it may.

Every value that a template makes is measured when it is made: all its characters and items, as often as they occur,
for a list of ten lists of ten … of one text is written out, compared and hashed in full, in one step that nothing can
interrupt. What a step costs follows from the sizes of what it is given.
"""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from types import GeneratorType
from typing import Any

import jinja2

SECONDS = 20.0
CALL = 10  # steps
PER_STEP = 7  # as a power of two: characters and items that are looked through in the time of a step
DEEPEST = 300  # lists in lists: Python hashes them without a limit of its own
_LOOK = 256  # steps between looks at the clock
HOLDING = (list, tuple, dict, set, frozenset, KeysView, ValuesView, ItemsView)


class Limit(jinja2.TemplateError):
    """A template that asks for too much."""


class Meter:
    """Counts the steps and the sizes of one rendering after the other; Limit where one asks for too much."""

    def start(self, room: int, total: int, steps: int) -> None:
        """room: the characters and items of one value, total: of all texts that are made, which may live until
        Python's garbage collector comes by; steps: loop rounds, and calls (`CALL`) with their work."""
        self.room, self.total, self.steps = room, total, steps
        self.until, self._look = time.monotonic() + SECONDS, steps - _LOOK
        self._measured: dict[int, tuple[Any, int, int]] = {}  # by id: the value, kept alive, its size and depth
        self._held = 0

    def step(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise Limit("it takes too many steps")
        if self.steps < self._look:
            self._look = self.steps - _LOOK
            if time.monotonic() > self.until:
                raise Limit(f"it takes more than {SECONDS:.0f} seconds")

    def make(self, size: int) -> None:
        """Something of so many characters or items is about to be made."""
        self.total -= size
        if size > self.room or self.total < 0:
            raise Limit("it makes a text or a list that is too long")

    def size(self, value: Any) -> int:
        """Characters and items in all that is in a value, each as often as it occurs."""
        return self._measure(value)[0]

    def use(self, value: Any) -> Any:
        """The value, which is about to be looked through."""
        self.step(1 + (self.size(value) >> PER_STEP))
        return value

    def made(self, value: Any) -> Any:
        """The value, which was made just now, if it is not too large; what makes its items one by one is counted."""
        if isinstance(value, GeneratorType):
            return self._items(value)
        if isinstance(value, (str, bytes)):
            self.make(len(value))
        self.step(1 + (self.size(value) >> PER_STEP))
        return value

    def joined(self, parts: Iterable[Any]) -> str:
        """The texts, one after the other."""
        kept = []
        size = 0
        for part in parts:
            size += len(part)
            if size > self.room:
                raise Limit("it makes a text or a list that is too long")
            self.step()
            kept.append(part)
        self.make(size)
        return "".join(kept)

    def _items(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.step()
            yield self.made(item)

    def _measure(self, value: Any) -> tuple[int, int]:
        """Size and depth. What is in a value was measured before, or is measured once: a list that is in another
        twice is not walked through twice."""
        if isinstance(value, (str, bytes)):
            return len(value), 0
        if not isinstance(value, HOLDING):
            return 1, 0
        known = self._measured.get(id(value))
        if known is not None:
            return known[1:]
        size, depth = len(value), 0
        self.step(size >> 4)
        if size > self.room >> 4:  # items are larger than characters, and slower to go through
            raise Limit("it makes a text or a list that is too long")
        for item in _inside(value):
            inner, deep = self._measure(item)
            size, depth = size + inner, max(depth, deep)
        depth += 1
        if size > self.room:
            raise Limit("it makes a text or a list that is too long")
        if depth > DEEPEST:
            raise Limit("it puts lists into lists too deeply")
        self._held += len(value)
        if self._held > self.room:
            self._measured, self._held = {}, len(value)
        self._measured[id(value)] = value, size, depth
        return size, depth


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for pair in value.items():
            yield from pair
    else:
        yield from value
