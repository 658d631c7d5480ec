"""A stranger's Jinja2 template, compiled and rendered within limits on steps, time and memory.

The environment is the one of transformers' `apply_chat_template` (trim_blocks, lstrip_blocks, loop controls, its
`tojson`, `{% generation %}`), so that the text is the same; what it adds are the limits.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from ..errors import InputError

# Templates that print the date would make a utility depend on the day it was measured.
TEMPLATE_DATE = datetime.datetime(2025, 1, 1)

STEPS = 2_000_000  # loop rounds and calls in one rendering, beside some for each message
STEPS_PER_MESSAGE = 20_000
CALL = 10  # steps
SECONDS = 20.0
CHARACTERS = 1 << 24  # of one text, beside eight for each character that is given
LARGEST = 100_000  # a width, a count or another number that is given to a filter or a method
_OPEN, _CLOSE = "\ufdee", "\ufdef"  # noncharacters around what {% generation %} encloses
_WIDE = re.compile(r"\d{5,}|\*")
_UNUSED = ("urlize", "striptags", "xmlattr", "wordwrap", "pprint", "random", "filesizeformat")


class Printed(NamedTuple):
    """What a template printed; `generated` are the (start, stop) of what its {% generation %} blocks printed."""

    text: str
    generated: list[tuple[int, int]]


class Limit(jinja2.TemplateError):
    """A template that asks for too much."""


class Jinja:
    """A compiled template.

    Args:
        source: its text.
        name: what errors call it.

    Raises:
        InputError: it is not valid Jinja2.
    """

    def __init__(self, source: str, name: str) -> None:
        self._environment = _Sandbox()
        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{name} is not valid Jinja2: line {error.lineno}: {error.message}") from None
        except Exception as error:  # nested too deeply for Python
            raise InputError(f"{name} is not valid Jinja2: {described(error)}") from None

    def render(self, variables: dict[str, Any], given: int, messages: int) -> Printed:
        """Run the template.

        Args:
            given: characters in the variables, from which the limit on what is printed follows.
            messages: how many there are, from which the limit on steps follows.

        Raises:
            Exception: whatever the template raises; Limit where it asks for too much.
        """
        meter = self._environment.meter
        meter.start(CHARACTERS + 8 * given, STEPS + STEPS_PER_MESSAGE * messages)
        try:
            context = self._template.new_context(variables)
            text = meter.joined(self._template.root_render_func(context))
        except RecursionError:
            raise Limit("it calls itself too deeply") from None
        except MemoryError:
            raise Limit("it takes more memory than there is") from None
        if _OPEN not in text:
            return Printed(text, [])
        return _without_marks(text)


class _Meter:
    """What one rendering has used."""

    def start(self, room: int, steps: int) -> None:
        self.room, self.total, self.steps = room, 64 * room, steps
        self.until = time.monotonic() + SECONDS

    def step(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise Limit("it takes too many steps")
        if self.steps & 0x3FF < steps and time.monotonic() > self.until:
            raise Limit(f"it takes more than {SECONDS:.0f} seconds")

    def make(self, size: int) -> None:
        """Something of so many characters or items is about to be made."""
        self.total -= size
        if size > self.room or self.total < 0:
            raise Limit("it makes a text that is too long")

    def joined(self, parts: Iterable[str]) -> str:
        kept = []
        size = 0
        for part in parts:
            size += len(part)
            if size > self.room:
                raise Limit("it makes a text that is too long")
            kept.append(part)
        self.make(size)
        return "".join(kept)


class _Counted:
    """An iterable whose every round is a step."""

    def __init__(self, items: Any, meter: _Meter) -> None:
        self._items, self._meter = items, meter

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._meter.step()
            yield item


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, with which some templates mark what to train on."""

    tags = {"generation"}  # noqa: RUF012 (Jinja2's own protocol)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opened, closed = (jinja2.nodes.Output([jinja2.nodes.TemplateData(mark)]) for mark in (_OPEN, _CLOSE))
        return jinja2.nodes.Scope([opened, *body, closed], lineno=line)


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants too are computed within the limits
            extensions=[jinja2.ext.loopcontrols, _Generation],
        )
        self.meter = meter = _Meter()
        meter.start(CHARACTERS, STEPS)
        self.concat = meter.joined  # type: ignore[method-assign]
        self.filters = {
            name: _limited(name, function, meter) for name, function in self.filters.items() if name not in _UNUSED
        }
        self.filters["tojson"] = _limited("tojson", _to_json, meter)
        self.filters[" counted"] = lambda items: _Counted(items, meter)
        self.filters[" joined"] = lambda items: meter.joined(map(str, items))
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = TEMPLATE_DATE.strftime

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(jinja2.nodes.For):
            loop.iter = jinja2.nodes.Filter(loop.iter, " counted", [], [], None, None, lineno=loop.lineno)
        return _with_joins(tree)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right, self.meter)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.meter.step(CALL)
        if __obj is not __self.globals["range"]:
            _check_arguments((*args, *kwargs.values()))
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, getattr(__obj, "__name__", ""), args, __self.meter)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        owner = getattr(value, "__self__", None)
        if isinstance(owner, str) and getattr(value, "__name__", "") in ("format", "format_map"):
            if _WIDE.search(owner) or re.search(r"\{[^{}]*\{", owner.replace("{{", "")):
                raise Limit("it formats with a width that is too large")
            self.meter.make(len(owner))
        return super().wrap_str_format(value)


def _with_joins(node: Any) -> Any:
    """Each `a ~ b` as a filter that counts."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_with_joins(item) if isinstance(item, jinja2.nodes.Node) else item for item in value])
        elif isinstance(value, jinja2.nodes.Node):
            setattr(node, name, _with_joins(value))
    if isinstance(node, jinja2.nodes.Concat):
        parts = jinja2.nodes.List(node.nodes, lineno=node.lineno)
        return jinja2.nodes.Filter(parts, " joined", [], [], None, None, lineno=node.lineno)
    return node


def _check_operands(operator: str, left: Any, right: Any, meter: _Meter) -> None:
    numbers = isinstance(left, int) and isinstance(right, int)
    if operator == "**":
        if numbers and abs(right) * left.bit_length() > 4096:
            raise Limit("it makes a number that is too large")
    elif operator == "*":
        if numbers:
            if left.bit_length() + right.bit_length() > 8192:
                raise Limit("it makes a number that is too large")
        else:
            for items, count in ((left, right), (right, left)):
                if isinstance(items, (str, list, tuple)) and isinstance(count, int):
                    meter.make(len(items) * max(count, 0))
    elif operator == "%":
        if isinstance(left, str):
            _check_format(left, meter)
    elif isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
        meter.make(len(left) + len(right))


def _check_format(text: str, meter: _Meter) -> None:
    for found in re.finditer(r"%[^a-zA-Z%]*", text):
        if _WIDE.search(found.group()):
            raise Limit("it formats with a width that is too large")
    meter.make(len(text))


def _check_arguments(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise Limit(f"it uses a number above {LARGEST:,} as a width or a count")


def _check_method(owner: str, method: str, args: tuple[Any, ...], meter: _Meter) -> None:
    if method == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        meter.make(len(owner) + owner.count(args[0]) * len(args[1]))
    elif method == "join" and args and isinstance(args[0], (list, tuple)):
        meter.make(len(owner) * len(args[0]) + sum(len(part) for part in args[0] if isinstance(part, str)))
    elif method == "expandtabs":
        meter.make(len(owner) + owner.count("\t") * max((a for a in args if isinstance(a, int)), default=8))


def _limited(name: str, function: Any, meter: _Meter) -> Any:
    """A filter that says no to numbers that would make it run for ever, or fill the memory."""

    @functools.wraps(function)
    def limited(*args: Any, **options: Any) -> Any:
        meter.step(CALL)
        _check_arguments((*args, *options.values()))
        texts = [arg for arg in args if isinstance(arg, str)]
        if name == "replace" and len(texts) >= 3:
            _check_method(texts[0], "replace", tuple(texts[1:3]), meter)
        elif name == "join" and isinstance(args[-1], str) and hasattr(args[-2], "__len__"):
            meter.make(len(args[-1]) * len(args[-2]))
        elif name == "format" and texts:
            _check_format(texts[0], meter)
        elif name in ("indent", "tojson"):
            width = max((a for a in (*args, *options.values()) if isinstance(a, int)), default=4)
            if width > 1000:
                raise Limit("it indents by too much")
            meter.make(sum(len(text) + text.count("\n") * width for text in texts))
        result = function(*args, **options)
        if isinstance(result, str):
            meter.make(len(result))
        return result

    return limited


def _without_marks(text: str) -> Printed:
    parts = re.split(f"([{_OPEN}{_CLOSE}])", text)
    spans, opened, at = [], [], 0
    for part in parts:
        if part == _OPEN:
            opened.append(at)
        elif part == _CLOSE:
            start = opened.pop() if opened else at
            if not opened:
                spans.append((start, at))
        else:
            at += len(part)
    return Printed("".join(part for part in parts if part not in (_OPEN, _CLOSE)), spans)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def described(error: Exception) -> str:
    """An exception of somebody's template in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:297] + "…"
