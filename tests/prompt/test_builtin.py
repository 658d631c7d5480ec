"""Which template a run uses: the model's own or one of its named ones, a built-in one, a file, Ollama's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf_models as g
import pytest
from trait_templates import CONVERSATIONS, record, said, user

from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile, Vocabulary
from delift_cli.model.places.beside import templates_of_config
from delift_cli.prompt.builtin import BUILT_IN, PLAIN, load_template, parse_arguments
from delift_cli.prompt.chosen import chat_template

EXPECTED = {
    "plain": "What is it?\nA word.{eos}",
    "alpaca": "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nWhat is it?\n\n### Response:\nA word.{eos}",
    "chatml": "<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\nA word.<|im_end|>",
    "gemma": "{bos}<start_of_turn>user\nWhat is it?<end_of_turn>\n<start_of_turn>model\nA word.<end_of_turn>{eos}",
    "llama2": "{bos}[INST] What is it? [/INST] A word. {eos}",
    "llama3": "{bos}<|start_header_id|>user<|end_header_id|>\n\nWhat is it?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA word.<|eot_id|>{eos}",
    "mistral": "{bos}[INST] What is it?[/INST] A word.{eos}",
    "vicuna": "USER: What is it?\nASSISTANT: A word.{eos}",
    "zephyr": "<|user|>\nWhat is it?{eos}\n<|assistant|>\nA word.{eos}",
}


@pytest.fixture(scope="module")
def vocabulary(tiny_model: Callable[..., Path]) -> Vocabulary:
    return ModelFile(tiny_model(chat_template=None)).vocabulary


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_templates(vocabulary: Vocabulary, name: str) -> None:
    chat = load_template(name, None, vocabulary)
    eos, bos = vocabulary.text(vocabulary.eos), vocabulary.text(vocabulary.bos)
    text = chat.view(CONVERSATIONS["a pair"]).text
    expected = EXPECTED[name].format(eos=eos, bos=bos)
    if name in ("gemma", "llama3"):  # their end of turn is no token of this vocabulary: its own one follows
        expected = expected.replace("<end_of_turn>" + eos, eos).replace("<|eot_id|>" + eos, eos)
    assert text == expected
    for conversation in CONVERSATIONS.values():
        asked = chat.target(conversation)
        assert asked.scored[-1]
        assert len(chat.example(conversation))


def test_several_turns_end_each(vocabulary: Vocabulary) -> None:
    for name in ("alpaca", "vicuna", "zephyr", "mistral", "llama2"):
        chat = load_template(name, None, vocabulary)
        asked = chat.target(CONVERSATIONS["several turns"])
        assert asked.response[asked.scored].tolist().count(vocabulary.eos) == 2


def test_named_templates_of_a_model(vocabulary: Vocabulary) -> None:
    own = {"tool_use": g.TRIM, "default": g.CHATML}
    assert load_template(None, own, vocabulary).source == g.CHATML
    chosen = load_template("tool_use", own, vocabulary)
    assert (chosen.source, chosen.name) == (g.TRIM, "the model's chat template tool_use")
    assert load_template(None, {"rag": g.TRIM}, vocabulary).source == g.TRIM
    with pytest.raises(InputError, match="tool_use, plain, alpaca, chatml"):
        load_template("nonsense", own, vocabulary)
    with pytest.raises(InputError, match="cannot read template nonsense: No such file or directory; give"):
        load_template("nonsense", own, vocabulary)


def test_a_tokenizer_config(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"chat_template": g.TRIM}))
    assert load_template(str(path), g.CHATML, vocabulary).source == g.TRIM
    entries = [{"name": "tool_use", "template": g.CHATML}, {"name": "default", "template": g.TRIM}, 3, {"name": 1}]
    path.write_text(json.dumps({"chat_template": entries}))
    assert load_template(str(path), g.CHATML, vocabulary).source == g.TRIM
    assert templates_of_config({"chat_template": entries}) == {"tool_use": g.CHATML, "default": g.TRIM}
    for text in ("{", "[" * 100_000, "{}", '{"chat_template": 3}', "[]"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"tokenizer_config\.json (is not valid JSON|has no chat_template)"):
            load_template(str(path), g.CHATML, vocabulary)


def test_a_model_without_a_template(vocabulary: Vocabulary, tiny_model: Callable[..., Path]) -> None:
    said_so: list[str] = []
    assert load_template(None, None, vocabulary, say=said_so.append).source == PLAIN
    assert len(said_so) == 1
    assert "no chat template" in said_so[0]
    assert "--template chatml" in said_so[0]  # its vocabulary has those tokens
    other = ModelFile(tiny_model("spm", chat_template=None)).vocabulary
    load_template(None, "", other, say=said_so.append)
    assert "--template alpaca or chatml" in said_so[1]
    load_template("plain", None, vocabulary, say=said_so.append)
    load_template(None, g.CHATML, vocabulary, say=said_so.append)
    assert len(said_so) == 2


def test_arguments() -> None:
    given = parse_arguments(["enable_thinking=false", "effort=low", "n=3", "text=a=b", 'names=["a"]'])
    assert given == {"enable_thinking": False, "effort": "low", "n": 3, "text": "a=b", "names": ["a"]}
    for bad in ("enable_thinking", "=3", "a b=3"):
        with pytest.raises(InputError, match="give NAME=VALUE"):
            parse_arguments([bad])


def test_arguments_that_the_records_give(vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="--template-arg messages"):
        load_template("plain", None, vocabulary, arguments={"messages": []})


def test_the_view_is_the_tokens(vocabulary: Vocabulary) -> None:
    chat = load_template("chatml", None, vocabulary)
    given = record(user("a é日 <|im_end|> b"), said("two\n\nwords"), user("more"), said("three"))
    view, asked = chat.view(given), chat.target(given)
    assert (view.tokens, view.scored) == (len(asked.alone) + len(asked.response), int(asked.scored.sum()))
    assert view.text == (
        "<|im_start|>user\na é日 <|im_end|> b<|im_end|>\n<|im_start|>assistant\ntwo\n\nwords<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\nthree<|im_end|>"
    )
    own = [piece.text for piece in view.pieces if not piece.is_template]
    assert own == ["a é日 <|im_end|> b", "two\n\nwords", "more", "three"]
    assert [p.text for p in view.pieces if p.is_scored] == ["two\n\nwords", "<|im_end|>", "three", "<|im_end|>"]


def test_named_templates_of_a_model_and_of_what_lies_beside_it(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    named = ModelFile(tiny_model(metadata={"tokenizer.chat_template.tool_use": g.TRIM}))
    assert chat_template(named).source == g.CHATML
    assert chat_template(named, "tool_use").source == g.TRIM
    bare = tmp_path / "bare.gguf"
    shutil.copy(tiny_model(chat_template=None), bare)
    (tmp_path / "chat_template.jinja").write_text(g.TRIM)
    said: list[str] = []
    assert chat_template(ModelFile(bare), say=said.append).source == g.TRIM
    assert "chat_template.jinja" in said[0]
