"""A stranger's Jinja2 template, compiled and rendered within limits on steps, time and memory.

The environment is the one of transformers' `apply_chat_template` (trim_blocks, lstrip_blocks, loop controls, its
`tojson`, `{% generation %}`), so that the text is the same; what it adds are the limits.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

from ..errors import InputError
from .meter import CALL, HOLDING, Limit, Meter

# Templates that print the date would make a utility depend on the day it was measured.
TEMPLATE_DATE = datetime.datetime(2025, 1, 1)

STEPS = 2_000_000  # in one rendering, beside some for each message and one for each character that is given
STEPS_PER_MESSAGE = 20_000
CHARACTERS = 1 << 22  # of one text, beside eight for each character that is given
TEXTS = 16  # of that length that may be made
LONGEST_SOURCE = 1 << 18  # characters of a template; the longest that models come with have 40,000
LARGEST = 100_000  # a width, a count or another number that is given to a filter or a method
_OPEN, _CLOSE = "\ufdee", "\ufdef"  # noncharacters around what {% generation %} encloses
_WIDE = re.compile(r"\d{5,}|\*")
_UNUSED = ("urlize", "striptags", "xmlattr", "wordwrap", "pprint", "random", "filesizeformat")
_UNUSED_METHODS = ("encode", "translate", "maketrans", "to_bytes", "from_bytes")  # which make what is not text, or more
_ANY_NUMBER = ("range", "namespace", "dict")  # functions that take a number as it is, or have a limit of their own
_LOOKING = ("in", "eq", "==", "equalto", "ne", "!=", "lt", "<", "le", "<=", "gt", ">", "ge", ">=", "lower", "upper")


class Printed(NamedTuple):
    """What a template printed; `generated` are the (start, stop) of what its {% generation %} blocks printed."""

    text: str
    generated: list[tuple[int, int]]


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
        if len(source) > LONGEST_SOURCE:
            raise InputError(f"{name} has {len(source):,} characters, as no chat template has")
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
        room = CHARACTERS + 8 * given
        total = TEXTS * room + given * messages  # some templates add to a text message after message
        meter.start(room, total, STEPS + STEPS_PER_MESSAGE * messages + given)
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


class _Counted:
    """An iterable whose every round is a step."""

    def __init__(self, items: Any, meter: Meter) -> None:
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


class _Namespace(jinja2.utils.Namespace):
    """`namespace()`, whose repr does not print what is in it: that could be itself, or as large as anything."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants too are computed within the limits
            extensions=[jinja2.ext.loopcontrols, _Generation],
        )
        self.meter = meter = Meter()
        meter.start(CHARACTERS, TEXTS * CHARACTERS, STEPS)
        self.concat = meter.joined  # type: ignore[method-assign]
        self.filters = {
            name: _limited(name, function, meter) for name, function in self.filters.items() if name not in _UNUSED
        }
        self.filters["tojson"] = _limited("tojson", _to_json, meter)
        self.filters[" counted"] = lambda items: _Counted(items, meter)
        self.filters[" joined"] = lambda items: meter.joined(map(str, items))
        self.filters[" used"], self.filters[" made"] = meter.use, meter.made
        self.tests = {
            name: _looking(function, meter) if name in _LOOKING else function for name, function in self.tests.items()
        }
        del self.globals["lipsum"]
        self.globals["namespace"] = _Namespace
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = TEMPLATE_DATE.strftime

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(jinja2.nodes.For):
            loop.iter = jinja2.nodes.Filter(loop.iter, " counted", [], [], None, None, lineno=loop.lineno)
        return _metered(tree)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right, self.meter)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        meter = __self.meter
        meter.step(CALL)
        harmless = isinstance(__obj, jinja2.runtime.Macro) or any(__obj is __self.globals[name] for name in _ANY_NUMBER)
        if not harmless:
            _check_arguments((*args, *kwargs.values()))
        for value in (*args, *kwargs.values()):
            meter.use(value)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            meter.use(owner)
            args = _check_method(owner, getattr(__obj, "__name__", ""), args, meter)
        return meter.made(super().call(__context, __obj, *args, **kwargs))

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, slice):
            self.meter.use(obj)
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _UNUSED_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        wrapped, owner, meter = super().wrap_str_format(value), getattr(value, "__self__", None), self.meter
        if wrapped is None or not isinstance(owner, str):
            return wrapped
        if _WIDE.search(owner) or re.search(r"\{[^{}]*\{", owner.replace("{{", "")):
            raise Limit("it formats with a width that is too large")

        def limited(*args: Any, **kwargs: Any) -> Any:
            largest = max(map(meter.size, (*args, *kwargs.values())), default=0)
            meter.make(len(owner) + owner.count("{") * largest)
            return wrapped(*args, **kwargs)

        return limited


def _metered(node: Any) -> Any:
    """The tree in which each `a ~ b` is joined by a filter that counts, what a literal holds is measured, and what is
    compared is looked at before."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_metered(item) if isinstance(item, jinja2.nodes.Node) else item for item in value])
        elif isinstance(value, jinja2.nodes.Node):
            setattr(node, name, _metered(value))
    if isinstance(node, jinja2.nodes.Concat):
        return _filtered(jinja2.nodes.List(node.nodes, lineno=node.lineno), " joined")
    if isinstance(node, jinja2.nodes.Compare):
        node.expr = _filtered(node.expr, " used")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, " used")
    literal = isinstance(node, jinja2.nodes.List | jinja2.nodes.Tuple | jinja2.nodes.Dict)
    if literal and getattr(node, "ctx", "load") == "load" and any(True for _ in node.find_all(_VARYING)):
        return _filtered(node, " made")
    return node


_VARYING = (jinja2.nodes.Name, jinja2.nodes.Filter, jinja2.nodes.Call, jinja2.nodes.BinExpr)


def _filtered(node: Any, name: str) -> jinja2.nodes.Filter:
    if isinstance(node, jinja2.nodes.Const):
        return node  # type: ignore[return-value]
    return jinja2.nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _check_operands(operator: str, left: Any, right: Any, meter: Meter) -> None:
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
                if isinstance(items, (str, bytes, list, tuple)) and isinstance(count, int):
                    meter.make(meter.size(items) * max(count, 0))
    elif operator == "%":
        if isinstance(left, str):
            _check_format(left, right, meter)
    elif isinstance(left, (str, bytes, list, tuple)) and isinstance(right, (str, bytes, list, tuple)):
        meter.use(left)
        meter.make(meter.size(left) + meter.size(right))


def _check_format(text: str, given: Any, meter: Meter) -> None:
    for found in re.finditer(r"%[^a-zA-Z%]*", text):
        if _WIDE.search(found.group()):
            raise Limit("it formats with a width that is too large")
    values = given.values() if isinstance(given, dict) else given if isinstance(given, tuple) else (given,)
    meter.make(len(text) + text.count("%") * max(map(meter.size, values), default=0))


def _check_arguments(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise Limit(f"it uses a number above {LARGEST:,} as a width or a count")


def _check_method(owner: str, method: str, args: tuple[Any, ...], meter: Meter) -> tuple[Any, ...]:
    """The arguments of a text's method, if what it makes is not too long."""
    if method == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        meter.make(len(owner) + owner.count(args[0]) * len(args[1]))
    elif method == "join" and args:
        parts = args[0] if isinstance(args[0], (str, *HOLDING)) else list(args[0])
        meter.make(len(owner) * len(parts) + meter.size(parts))
        return parts, *args[1:]
    elif method == "expandtabs":
        meter.make(len(owner) + owner.count("\t") * max((a for a in args if isinstance(a, int)), default=8))
    return args


def _looking(function: Any, meter: Meter) -> Any:
    """A test that looks through what it is given."""

    @functools.wraps(function)
    def limited(*args: Any) -> Any:
        for arg in args:
            meter.use(arg)
        return function(*args)

    return limited


def _limited(name: str, function: Any, meter: Meter) -> Any:
    """A filter that says no to what would make it run for ever, or fill the memory."""

    behind = 2 if hasattr(function, "jinja_pass_arg") else 1  # the filtered value, which is no width, and a context

    @functools.wraps(function)
    def limited(*args: Any, **options: Any) -> Any:
        meter.step(CALL)
        _check_arguments((*args[behind:], *options.values()))
        for value in (*args, *options.values()):
            meter.use(value)
            meter.step(4 * len(value) if isinstance(value, HOLDING) else 0)
        texts = [arg for arg in args if isinstance(arg, str)]
        if name == "replace" and len(texts) >= 3:
            _check_method(texts[0], "replace", tuple(texts[1:3]), meter)
        elif name == "join":
            args = _check_join(args, meter)
        elif name == "format" and texts:
            _check_format(texts[0], (*args, *options.values()), meter)
        elif name == "sum" and any(isinstance(value, (str, *HOLDING)) for value in (*args[3:], options.get("start"))):
            raise Limit("it sums what are no numbers")
        elif name in ("indent", "tojson"):
            width = max((a for a in (*args[behind:], *options.values()) if isinstance(a, int)), default=4)
            if width > (1000 if name == "indent" else 16):
                raise Limit("it indents by too much")
            meter.make(sum(len(text) + text.count("\n") * width for text in texts))
        result = function(*args, **options)
        return meter.made(result)

    return limited


def _check_join(args: tuple[Any, ...], meter: Meter) -> tuple[Any, ...]:
    """The arguments of `join` (the context, what is joined, and what by), if it is not too much."""
    context, items, *others = args
    items = items if isinstance(items, (str, *HOLDING)) else list(items)
    between = others[0] if others and isinstance(others[0], str) else ""
    meter.make(len(between) * len(items) + meter.size(items))
    return context, items, *others


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
