"""A stranger's template: what has no end, or no bound, is refused in one line and soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile
from delift_cli.prompt.jinja import Jinja
from delift_cli.prompt.meter import Limit
from delift_cli.prompt.template import ChatTemplate

HOSTILE = {
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a text times a number": "{{ 'a' * 10**10 }}",
    "a list times a number": "{{ ([0] * 10**9) | length }}",
    "a wide format": "{{ '%9999999999d' | format(1) }}",
    "a wide format by operator": "{{ '%9999999999d' % 1 }}",
    "a width that is given": "{{ '%*d' | format(10**9, 1) }}",
    "a wide replacement field": "{{ '{:>9999999999}'.format(1) }}",
    "a width in a field": "{{ '{:>{}}'.format(1, 10**9) }}",
    "much latin": "{{ lipsum(n=10**9) }}",
    "a long range": "{% for i in range(10**9) %}{% endfor %}",
    "a large power": "{{ (10**100)**10**9 }}",
    "squares of squares": "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "doubling by +": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling a list": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling in a block": "{% set n = namespace(x='a') %}{% for i in range(99) %}"
    "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
    "padding": "{{ 'a'.ljust(10**9) }}",
    "padding by filter": "{{ 'a' | center(10**9) }}",
    "replacing": "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
    "replacing by method": "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "joining": "{{ range(99999) | join('a' * 10**6) }}",
    "joining by method": "{{ ('a' * 10**6).join(['b'] * 99999) }}",
    "indenting": "{{ ('a\n' * 10**6) | indent(1000) }}",
    "indenting json": "{{ {'a': 1} | tojson(indent=10**9) }}",
    "filling batches": "{{ [1] | batch(10**9, 0) | list }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "lists of lists": "{% set x = [1] * 100000 %}{% set y = [x] * 10000 %}{{ y }}",
    "a list of long texts": "{{ ['a' * 10**6] * 10000 }}",
    "doubling by lists": "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}"
    "{% endfor %}{{ n.x }}",
    "doubling by objects": "{% set n = namespace(x=1) %}{% for i in range(40) %}{% set n.x = {1: n.x, 2: n.x} %}"
    "{% endfor %}{{ n.x | tojson }}",
    "doubling by a macro": "{% set n = namespace(x=1) %}{% macro m() %}{% set n.x = varargs %}{% endmacro %}"
    "{% for i in range(40) %}{{ m(n.x, n.x) }}{% endfor %}{{ n.x }}",
    "comparing doubled lists": "{% set a, b = namespace(x=[1]), namespace(x=[1]) %}{% for i in range(40) %}"
    "{% set a.x, b.x = [a.x, a.x], [b.x, b.x] %}{% endfor %}{{ a.x == b.x }}",
    "hashing deep tuples": "{% set n = namespace(x=1) %}{% for i in range(99999) %}{% set n.x = (n.x,) %}{% endfor %}"
    "{{ {n.x: 1} }}",
    "formatting a long text often": "{{ ('%(a)s' * 500) % {'a': 'a' * 10**6} }}",
    "formatting it by filter": "{{ ('%s' * 500) | format(*(['a' * 10**6] * 500)) }}",
    "formatting it by method": "{{ ('{0}' * 500).format('a' * 10**6) }}",
    "joining a text by a long one": "{{ ('a' * 10**6).join('b' * 500) }}",
    "joining what is made one by one": "{{ range(500) | map('string') | join('a' * 10**6) }}",
    "sorting often": "{% set x = ['a'] * 200000 %}{% for i in range(999) %}{% set y = x | sort %}{% endfor %}",
    "searching often": "{% set x = ['a'] * 200000 %}{% for i in range(99999) %}{{ 'b' in x }}{% endfor %}",
    "searching by test": "{% set x = ['a'] * 200000 %}{% for i in range(99999) %}{% if 'b' is in(x) %}{% endif %}"
    "{% endfor %}",
    "summing lists": "{{ ([[1] * 500] * 500) | sum(start=[]) }}",
    "filters behind filters": "{{ (['a'] * 200000)" + " | select('string')" * 99 + " | list }}",
    "printing for ever": "{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_what_has_no_end_is_ended(source: str) -> None:
    begun = time.process_time()
    with pytest.raises(Exception, match=r".") as caught:
        Jinja(source, "a template").render({}, 0, 1)
    assert isinstance(caught.value, (Limit, OverflowError, InputError)), caught.value
    assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("name", ["loops in loops", "a text times a number", "much latin", "a wide format"])
def test_such_a_template_of_a_model_is_refused_in_one_line(tiny_model: Callable[..., Path], name: str) -> None:
    vocabulary = ModelFile(tiny_model()).vocabulary
    with pytest.raises(InputError, match="the model's chat template cannot print two turns") as caught:
        ChatTemplate(HOSTILE[name], vocabulary)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["{{ 'a'.encode() * 10**10 }}", "{{ 'a'.translate({97: 'b'}) }}", "{{ (5).to_bytes(9) }}"]
)
def test_methods_that_make_no_text_are_not_there(source: str) -> None:
    with pytest.raises(jinja2.TemplateError, match="unsafe"):
        Jinja(source, "a template").render({}, 0, 1)


def test_a_namespace_in_a_namespace_is_not_printed() -> None:
    source = "{% set n = namespace(x=1) %}{% set n.x = n %}{{ n }}"
    assert Jinja(source, "a template").render({}, 0, 1).text == "<Namespace>"


def test_a_template_has_an_end_itself() -> None:
    with pytest.raises(InputError, match="as no chat template has"):
        Jinja("{{ 1 }}" * 100_000, "a template")


def test_what_templates_do_is_not_limited() -> None:
    source = (
        "{% for m in messages %}{{ loop.index ~ '/' ~ loop.length ~ (' last' if loop.last) + '!' * 3 }}"
        "{{ '%05.1f|' % 2 }}{{ '%s' | format(m) }}{{ ', '.join(['a', 'b']) }}{{ '{}-{:>3}'.format(1, 'x') }}"
        "{{ 'a-b' | replace('-', '+') }}{{ [1, 2] | tojson(indent=2) }}{{ 2 ** 10 }}{% endfor %}"
    )
    printed = Jinja(source, "t").render({"messages": ["x", "y"]}, 2, 2).text
    tail = "a, b1-  xa+b[\n  1,\n  2\n]1024"
    assert printed == f"1/2!!!002.0|x{tail}2/2 last!!!002.0|y{tail}"


def test_many_messages_may_loop_over_each_other() -> None:
    """Templates that look from each message at all others: a chat of 1,600 turns is 2.6 million rounds."""
    source = "{% for m in messages %}{% for other in messages %}{% endfor %}{{ m }}{% endfor %}"
    assert Jinja(source, "t").render({"messages": ["a"] * 1600}, 1600, 1600).text == "a" * 1600


def test_generation_blocks() -> None:
    printed = Jinja("a{% generation %}bc{% set x = 1 %}{% endgeneration %}d{% generation %}e{% endgeneration %}", "t")
    assert printed.render({}, 0, 0) == ("abcde", [(1, 3), (4, 5)])


def test_a_number_of_a_record_may_be_any() -> None:
    """A call's argument is no width, and no count: templates print numbers by filters and hand them to macros."""
    source = (
        "{% macro shown(x) %}{% set n = namespace(x=x) %}{{ n.x }}{% endmacro %}"
        "{{ x | tojson }} {{ x | tojson(ensure_ascii=False) }} {{ x | string }} {{ shown(x) }} {{ dict(x=x).x | int }}"
        "{{ [x] | first }}{{ x | default(0) }}"
    )
    printed = Jinja(source, "t").render({"x": 1_700_000_000}, 0, 1).text
    assert printed == " ".join(["1700000000"] * 5) + "1700000000" * 2
