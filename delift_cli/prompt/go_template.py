"""Ollama's chat templates, which are Go's, as Jinja2: the parts of text/template that such templates use.

Ollama runs a template that reads `.Messages` once, and any other once for each exchange of a user and an assistant. It
prints in order to generate, so that what stands behind the last message asks the model to speak: here that is printed
only with `add_generation_prompt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import InputError

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+)|(?P<mark>:=|[=|(),])'
    r"|(?P<path>\$?[A-Za-z_0-9]*(?:\.[A-Za-z_0-9]+)+|\$[A-Za-z_0-9]*|\.)|(?P<word>[A-Za-z_]\w*))"
)
_COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_JSON = " | tojson(separators=(',', ':'))"
_TODAY = "strftime_now('%Y-%m-%d')"
_ROOT = {  # what Ollama hands to a template
    "System": "go.system",
    "Messages": "messages",
    "Tools": "tools",
    "Response": "''",
    "Prompt": "''",
    "Suffix": "''",
    "Think": "(enable_thinking | default(false))",
    "ThinkLevel": "(reasoning_effort | default(''))",
    "IsThinkSet": "(enable_thinking is defined)",
}
_EXCHANGE = {
    "System": "exchange.system",
    "Prompt": "exchange.prompt",
    "Response": "exchange.response",
    "First": "first",
}
_FIELDS = {  # of a message, a call, a tool
    "Content": ".content",
    "Role": ".role",
    "Thinking": ".thinking",
    "ToolCalls": ".tool_calls",
    "ToolName": ".name",
    "ToolCallID": ".tool_call_id",
    "Properties": "['properties']",
    "Items": "['items']",
}
_MESSAGES_HEAD = (
    "{% set go = namespace() %}{% set go.system = messages | selectattr('role', 'equalto', 'system') "
    "| map(attribute='content') | join('\\n\\n') %}"
)
_PUSH = (
    "{% set go.all = go.all + [{'system': go.s, 'prompt': go.p, 'response': go.r}] %}"
    "{% set go.s = '' %}{% set go.p = '' %}{% set go.r = '' %}"
)
_EXCHANGES_HEAD = (
    "{% set go = namespace(all=[], s='', p='', r='') %}{% for message in messages %}"
    "{% if message.role == 'system' %}{% if go.p or go.r %}" + _PUSH + "{% endif %}{% set go.s = message.content %}"
    "{% elif message.role == 'user' %}{% if go.p or go.r %}" + _PUSH + "{% endif %}{% set go.p = message.content %}"
    "{% elif message.role == 'assistant' %}{% set go.r = message.content %}"
    "{% else %}{{ raise_exception('it has no place for ' + message.role) }}{% endif %}{% endfor %}" + _PUSH
)


def is_go(source: str) -> bool:
    """Is this a template of Ollama's rather than a Jinja2 one?"""
    return (
        re.search(r"\{\{-?\s*(?:range\s+[.$(]|\$\w+ :?=|(?:[A-Za-z]+ )*\(*(?:[A-Za-z]+ )*\$?\.[A-Z])", source)
        is not None
    )


def jinja_of(source: str) -> str:
    """The Jinja2 template that prints what a template of Ollama's prints.

    Raises:
        InputError: it uses what is not known here, with what.
    """
    whole = any(".Messages" in action for _, action in _pieces(source))
    if not whole and not any(".Response" in action for _, action in _pieces(source)):
        source += "{{ .Response }}"
    return _Translation(source, whole).text


class _Scope(NamedTuple):
    """A block that is open: which, what the dot is outside of it, and which variables are known outside."""

    block: str
    dot: str
    names: dict[str, str]
    ends: int


class _Translation:
    def __init__(self, source: str, whole: bool) -> None:
        self._whole, self._dot, self._names = whole, "", dict[str, str]()
        self._made, self._scopes, self._behind, self._count = list[str](), list[_Scope](), False, 0
        pieces = list(_pieces(source))
        last = max((at for at, (_, action) in enumerate(pieces) if action == "end"), default=len(pieces))
        for at, (text, action) in enumerate(pieces):
            self._print(_quoted(text) if text else "")
            if action:
                self._action(action)
            if whole and at == last and not self._scopes:
                self._behind = True  # of what follows, all asks the model to speak
        if self._scopes:
            raise _unknown("a block without an end")
        made = "".join(self._made)
        if whole:
            self.text = _MESSAGES_HEAD + made
        else:
            self.text = (
                _EXCHANGES_HEAD
                + "{% for exchange in go.all %}{% set first = loop.first %}"
                + "{% if not loop.last or exchange.response or exchange.prompt or exchange.system %}"
                + made
                + "{% endif %}{% endfor %}"
            )

    def _print(self, expression: str) -> None:
        if not expression:
            return
        if self._behind:
            shown = "add_generation_prompt" if self._whole else "(exchange.response or not loop.last)"
            expression = f"{expression} if {shown} else ''"
        self._made.append("{{ " + expression + " }}")

    def _action(self, action: str) -> None:
        word, _, rest = action.partition(" ")
        if word == "end":
            self._end()
        elif word == "else":
            kind, _, condition = rest.strip().partition(" ")
            if kind == "if":
                self._made.append("{% elif " + self._value(condition) + " %}")
            elif not rest:
                self._made.append("{% else %}")
                self._dot = self._scopes[-1].dot if self._scopes else self._dot
            else:
                raise _unknown(action)
        elif word in ("break", "continue"):
            self._made.append("{% " + word + " %}")
        elif word == "if":
            self._open("if")
            self._made.append("{% if " + self._value(rest) + " %}")
        elif word == "with":
            value = self._value(rest)
            self._open("if")
            self._made.append("{% if " + value + " %}")
            self._dot = self._new("with")
            self._made.append("{% set " + self._dot + " = " + value + " %}")
        elif word == "range":
            self._range(rest)
        elif found := re.match(r"\$(\w+)\s*(:?=)\s*(.*)", action, re.DOTALL):
            value = self._value(found[3])
            name = self._declared(found[1]) if found[2] == ":=" else self._name(found[1])
            self._made.append("{% set " + name + " = " + value + " %}")
        elif word in ("define", "template", "block"):
            raise _unknown(action)
        else:
            self._print(self._shown(action))
            if not self._whole and ".Response" in action:
                self._behind = True

    def _open(self, block: str, ends: int = 1) -> None:
        self._scopes.append(_Scope(block, self._dot, dict(self._names), ends))

    def _end(self) -> None:
        if not self._scopes:
            raise _unknown("an end without a block")
        scope = self._scopes.pop()
        self._dot, self._names = scope.dot, scope.names
        self._made.append("{% end" + scope.block + " %}")

    def _range(self, rest: str) -> None:
        found = re.match(r"(?:\$(\w+)\s*(?:,\s*\$(\w+)\s*)?:=\s*)?(.*)", rest, re.DOTALL)
        assert found is not None
        first, second, over = found[1], found[2], self._value(found[3])
        self._open("for")
        self._count += 1
        item, value = f"item{self._count}", self._new("value")
        self._made.append(
            "{% for "
            + item
            + " in (("
            + over
            + " | list | sort) if "
            + over
            + " is mapping else ("
            + over
            + " or [])) %}"
            "{% set " + value + " = " + over + "[" + item + "] if " + over + " is mapping else " + item + " %}"
        )
        self._dot = value
        if second:
            key = self._declared(first)
            self._made.append("{% set " + key + " = " + item + " if " + over + " is mapping else loop.index0 %}")
        for name in filter(None, (second or first,)):
            self._made.append("{% set " + self._declared(name) + " = " + value + " %}")

    # ------------------------------------------------------------------ names

    def _new(self, name: str) -> str:
        self._count += 1
        return f"go.{name}{self._count}"

    def _declared(self, name: str) -> str:
        self._names[name] = self._new(f"v_{name}_")
        return self._names[name]

    def _name(self, name: str) -> str:
        if name not in self._names:
            raise _unknown(f"${name}")
        return self._names[name]

    # ------------------------------------------------------------------ expressions

    def _shown(self, action: str) -> str:
        """What an action prints: Go writes tools and arguments as JSON."""
        value = self._value(action)
        if re.fullmatch(r"\$?[\w.]*\.(Arguments|Tools|ToolCalls|Parameters|Properties|Function)", action):
            return value + _JSON
        return f"({value} or '')" if re.fullmatch(r"\$?[\w.]*\.\w+", action) else value

    def _value(self, text: str) -> str:
        tokens = [(found.lastgroup or "", found[found.lastgroup or 0]) for found in _tokens(text)]
        value, rest = self._pipeline(tokens)
        if rest:
            raise _unknown(text)
        return value

    def _pipeline(self, tokens: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
        value, tokens = self._command(tokens, [])
        while tokens and tokens[0] == ("mark", "|"):
            value, tokens = self._command(tokens[1:], [value])
        return value, tokens

    def _command(self, tokens: list[tuple[str, str]], piped: list[str]) -> tuple[str, list[tuple[str, str]]]:
        if not tokens:
            raise _unknown("an action that says nothing")
        if tokens[0][0] != "word" or tokens[0][1] in ("true", "false", "nil"):
            return self._operand(tokens)
        name, tokens, arguments = tokens[0][1], tokens[1:], list[str]()
        while tokens and tokens[0] not in (("mark", "|"), ("mark", ")")):
            value, tokens = self._operand(tokens)
            arguments.append(value)
        return _called(name, arguments + piped), tokens

    def _operand(self, tokens: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
        (kind, text), rest = tokens[0], tokens[1:]
        if kind == "text":
            plain = text[1:-1] if text[0] == "`" else _unescaped(text[1:-1])
            return _quoted(plain), rest
        if kind == "number":
            return text, rest
        if kind == "word":
            if text in ("true", "false", "nil"):
                return {"nil": "none"}.get(text, text), rest
            return _called(text, []), rest
        if (kind, text) == ("mark", "("):
            value, rest = self._pipeline(rest)
            if not rest or rest[0] != ("mark", ")"):
                raise _unknown("a bracket that is not closed")
            rest = rest[1:]
            if rest and rest[0][0] == "path" and rest[0][1].startswith(".") and len(rest[0][1]) > 1:
                return f"({value})" + _fields(rest[0][1][1:].split(".")), rest[1:]
            return f"({value})", rest
        if kind == "path":
            return self._path(text), rest
        raise _unknown(text)

    def _path(self, text: str) -> str:
        head, *steps = text.split(".")
        steps = [step for step in steps if step]
        if head not in ("", "$"):
            return self._name(head[1:]) + _fields(steps)
        if head == "" and self._dot:
            return self._dot + _fields(steps)
        if not steps:
            raise _unknown(text)
        known = _ROOT if self._whole else {**_ROOT, **_EXCHANGE}
        return known.get(steps[0], "none") + _fields(steps[1:])


def _pieces(source: str) -> Iterator[tuple[str, str]]:
    """Text and the action behind it, without white space that the action trims and without comments."""
    at, trims = 0, False
    for found in _ACTION.finditer(source):
        text = source[at : found.start()]
        text = text.lstrip() if trims else text
        yield text.rstrip() if found[1] else text, "" if found[2].startswith("/*") else found[2]
        at, trims = found.end(), found[3] is not None
    yield source[at:].lstrip() if trims else source[at:], ""


def _tokens(text: str) -> Iterator[re.Match[str]]:
    at, text = 0, text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _unknown(text)
        yield found
        at = found.end()


def _fields(steps: list[str]) -> str:
    return "".join(_FIELDS.get(step) or "." + re.sub(r"(?<!^)(?=[A-Z])", "_", step).lower() for step in steps)


def _called(name: str, arguments: list[str]) -> str:
    count = len(arguments)
    if name in _COMPARED and count == 2:
        return f"({arguments[0]} {_COMPARED[name]} {arguments[1]})"
    if name == "eq" and count > 2:
        return f"({arguments[0]} in [{', '.join(arguments[1:])}])"
    if name in ("and", "or") and count:
        return "(" + f" {name} ".join(arguments) + ")"
    if name == "not" and count == 1:
        return f"(not {arguments[0]})"
    if name == "len" and count == 1:
        return f"(({arguments[0]} or []) | length)"
    if name == "slice" and 1 <= count <= 3:
        return f"{arguments[0]}[{':'.join([*arguments[1:], ''][:2])}]"
    if name == "index" and count:
        return arguments[0] + "".join(f"[{argument}]" for argument in arguments[1:])
    if name == "json" and count == 1:
        return f"({arguments[0]}{_JSON})"
    if name == "printf" and count:
        return f"({arguments[0].replace('%v', '%s')} | format({', '.join(arguments[1:])}))"
    if name in ("print", "println") and count:
        return "(" + " ~ ".join(arguments) + ")"
    if name == "currentDate":
        return _TODAY
    raise _unknown(name)


def _quoted(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f"'{escaped}'"


def _unescaped(text: str) -> str:
    known = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
    return re.sub(r"\\(.)", lambda found: known.get(found[1], found[0]), text)


def _unknown(what: str) -> InputError:
    return InputError(
        f"its template is one of Ollama's in Go's language, with something that is not known here: {what[:80]}"
    )
