"""Ollama's templates: translated to Jinja2 they print what Ollama prints, and records go through them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from go_templates import EACH, ONCE, TOOLS
from trait_templates import CONVERSATIONS, TRAITS, answer, call, record, said, user

from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile, Vocabulary
from delift_cli.prompt.builtin import BUILT_IN, load_template
from delift_cli.prompt.go_template import is_go, jinja_of
from delift_cli.prompt.jinja import Jinja

TURNS = [("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]


@pytest.fixture(scope="module")
def vocabulary(tiny_model: Callable[..., Path]) -> Vocabulary:
    return ModelFile(tiny_model(chat_template=None)).vocabulary


def printed(source: str, turns: list[tuple[str, str]], *, generate: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    variables = {"messages": messages, "tools": None, "add_generation_prompt": generate}
    return Jinja(jinja_of(source), "it").render(variables, 1000, len(turns)).text


@pytest.mark.parametrize("name", ONCE | EACH)
def test_what_is_printed(name: str) -> None:
    source, expected = (ONCE | EACH)[name]
    assert is_go(source)
    assert printed(source, TURNS, generate=True) == expected
    answered = printed(source, [*TURNS, ("assistant", "A2")], generate=False)
    assert "A2" in answered
    assert not answered.endswith("<|im_start|>assistant\n")  # nobody is asked to speak


@pytest.mark.parametrize("name", ["roles", "the last one", "with an end"])
def test_records_as_through_the_jinja_template_of_the_same_tags(vocabulary: Vocabulary, name: str) -> None:
    notes: list[str] = []
    go, own = load_template(None, (ONCE | EACH)[name][0], vocabulary, say=notes.append), BUILT_IN["chatml"]
    assert notes == [note for note in notes if "translated" in note] != []
    chatml = load_template(None, own, vocabulary)
    for kind in ("a pair", "with a system message", "several turns", "unicode", "lines and marks"):
        given = CONVERSATIONS[kind]
        assert go.view(given).text == chatml.view(given).text
        ours, theirs = go.target(given), chatml.target(given)
        for part in ("alone", "after", "response", "scored"):
            assert getattr(ours, part).tolist() == getattr(theirs, part).tolist()


def test_tools(vocabulary: Vocabulary) -> None:
    chat = load_template(None, TOOLS, vocabulary)
    given = record(
        user("Tide?"), said(calls=(call("tide", place="Brest"),)), answer("4.1 m"), said("4.1 m."), tools=True
    )
    assert (chat.traits.tools, chat.traits.calls, chat.traits.answers) == (True, True, True)
    text = chat.view(given).text
    assert text.startswith('<|im_start|>system\nTools:\n{"type": "function", "function": {"name":"tide",')
    assert '<|im_start|>assistant\n<tool_call>\n{"name": "tide", "arguments": {"place":"Brest"}}\n</tool_call>' in text
    assert text.endswith("<tool_response>\n4.1 m\n</tool_response><|im_end|>\n<|im_start|>assistant\n4.1 m.<|im_end|>")
    assert chat.target(given).scored[-1]


def test_jinja_is_not_taken_for_go() -> None:
    assert not [name for name, source in (TRAITS | BUILT_IN).items() if is_go(source)]


@pytest.mark.parametrize(
    "source",
    [
        '{{ define "x" }}{{ end }}{{ .Prompt }}',
        "{{ toTypeScriptType .Prompt }}",
        "{{ if .Prompt }}",
        "{{ .Prompt }}{{ end }}",
        "{{ $x }}{{ .Prompt }}",
        "{{ (len .Prompt }}",
        "{{ range .Messages }}{{ else if .Role }}{{ template }}",
        "{{ .Prompt ? }}",
    ],
)
def test_what_is_not_known_is_refused_with_what_to_do(vocabulary: Vocabulary, source: str) -> None:
    with pytest.raises(InputError, match=r"one of Ollama's in Go's language, .*--template FILE"):
        load_template(None, "<|im_start|>" + source, vocabulary)
