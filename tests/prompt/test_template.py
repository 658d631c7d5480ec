"""Records to tokens: against tokenizations of whole rendered conversations, and against hostile texts."""

from __future__ import annotations

import ctypes
import datetime
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import gguf_models as g
import jinja2
import llama_cpp
import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from delift_cli.data.record import Message, Record
from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile, Vocabulary
from delift_cli.prompt import template as templates
from delift_cli.prompt.builtin import PLAIN, load_template
from delift_cli.prompt.template import ChatTemplate, Target, Tokens

TEMPLATES = {
    "CHATML": g.CHATML,
    "CHATML_DEFAULT_SYSTEM": g.CHATML_DEFAULT_SYSTEM,
    "TRIM": g.TRIM,
    "BOS_IN_TEMPLATE": g.BOS_IN_TEMPLATE,
    "LLAMA2": g.LLAMA2,
    "LLAMA3_DATE": g.LLAMA3_DATE,
    "THINK": g.THINK,
    "GEMMA": g.GEMMA,
    "PLAIN": PLAIN,
}
TRIMMING = {"TRIM", "LLAMA2", "LLAMA3_DATE", "GEMMA"}
NO_SYSTEM = {"GEMMA"}  # no place for a system message anywhere
NO_LATER_SYSTEM = {"GEMMA", "LLAMA2"}  # nor in the middle of a conversation
TOKENIZERS = ("bpe", "spm")

TEXTS = {
    "plain": ("What is the capital?", "The capital is Paris."),
    "one word": ("Add 12", "42"),
    "unicode": ("Où est l'été? 日本語 👩‍👩‍👧 ﷽", "È là: ñandú 🦙\u200d…"),
    "lines": ("Read this:\n\n  - one\n\t- two\n\nWhy?", "Because:\n1. yes\n\n2. no"),
    "digits and marks": ("((12+30))*2 == ?", '{"a": [1, 2], "b": null}'),
}


def record(prompt: str, response: str, system: str | None = None) -> Record:
    first = () if system is None else (Message("system", system),)
    return Record.of_pair("r1", (*first, Message("user", prompt)), response, b"", 7)


def chat(*turns: tuple[str, str]) -> Record:
    """A record of several turns, the last of them the response."""
    messages = [Message(role, content) for role, content in turns]
    return Record.of_pair("r1", tuple(messages[:-1]), messages[-1].content, b"", 7)


class Setup:
    """A template on a vocabulary, and what it should give, by rendering whole conversations."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.file = ModelFile(path)
        self.vocabulary: Vocabulary = self.file.vocabulary
        self.template = ChatTemplate(TEMPLATES.get(name, name), self.vocabulary)
        self._jinja = ImmutableSandboxedEnvironment()
        self._jinja.globals["strftime_now"] = templates.TEMPLATE_DATE.strftime
        self._jinja.globals["raise_exception"] = self._refuse

    @staticmethod
    def _refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def render(self, *turns: Message) -> str:
        return self._jinja.from_string(self.template.source).render(
            messages=[turn._asdict() for turn in turns],
            add_generation_prompt=False,
            bos_token=self.vocabulary.text(self.vocabulary.bos),
            eos_token=self.vocabulary.text(self.vocabulary.eos),
        )

    def whole(self, *turns: Message) -> list[int]:
        """A conversation as llama.cpp tokenizes it in one call, BOS in front where the model wants it."""
        tokens = self.vocabulary.tokenize(self.render(*turns), special=True)
        if self.vocabulary.add_bos and tokens[:1] != [self.vocabulary.bos]:
            tokens = [self.vocabulary.bos, *tokens]
        return tokens

    def bytes(self, tokens: Tokens | list[int]) -> bytes:
        pieces = []
        for token in tokens:
            buffer = ctypes.create_string_buffer(64)
            length = llama_cpp.llama_token_to_piece(self.vocabulary._vocab, int(token), buffer, 64, 0, True)
            pieces.append(buffer.raw[:length])
        return b"".join(pieces)

    def controls(self, tokens: Tokens | list[int]) -> list[int]:
        return [int(token) for token in tokens if self.vocabulary.is_control(int(token))]


MakeSetup = Callable[..., Setup]


@pytest.fixture(scope="module")
def setup(tiny_model: Callable[..., Path]) -> MakeSetup:
    @cache
    def make(name: str, tokenizer: str, **options: object) -> Setup:
        source = TEMPLATES.get(name, name)
        return Setup(name, tiny_model(tokenizer, chat_template=source, **options))

    return make


def spoken(s: Setup, asked: Target) -> Tokens:
    """A response without an end of sequence that the template does not print."""
    return asked.response[:-1] if s.name == "PLAIN" else asked.response


def joined(*parts: Tokens) -> list[int]:
    return np.concatenate(parts).tolist()


def folded(system: str, user: str) -> str:
    return f"{system}\n\n{user}"


# ---------------------------------------------------------------------- the whole conversation


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_parts_make_up_the_whole_conversation(
    setup: MakeSetup, name: str, tokenizer: str, texts: tuple[str, str]
) -> None:
    s = setup(name, tokenizer)
    question, answer = texts
    shown = record("How many apples are there?", "There are three apples.")
    first = [Message("user", shown.prompt[0].content), Message("assistant", shown.response)]
    turns = [Message("user", question), Message("assistant", answer)]
    asked = s.template.target(record(question, answer))

    pair = joined(s.template.example(shown), asked.after, spoken(s, asked))
    assert pair == s.whole(*first, *turns)[: len(pair)]
    alone = joined(asked.alone, spoken(s, asked))
    assert alone == s.whole(*turns)[: len(alone)]
    assert asked.after_system.tolist() == asked.after.tolist()

    # and with the roles of the two exchanged
    pair = joined(
        s.template.example(record(question, answer)),
        s.template.target(shown).after,
        spoken(s, s.template.target(shown)),
    )
    assert pair == s.whole(*turns, *first)[: len(pair)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_several_turns(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    turns = [
        Message("user", "Who wrote the book?"),
        Message("assistant", "She wrote it."),
        Message("user", "When?"),
        Message("assistant", "Last week."),
        Message("user", "Are you sure?"),
        Message("assistant", "Yes, I am."),
    ]
    long = Record.of_pair("r1", tuple(turns[:-1]), turns[-1].content, b"", 1)
    short = record("Is it good?", "The answer is yes.")
    other = [Message("user", "Is it good?"), Message("assistant", "The answer is yes.")]
    asked = s.template.target(short)
    pair = joined(s.template.example(long), asked.after, spoken(s, asked))
    assert pair == s.whole(*turns, *other)[: len(pair)]
    asked = s.template.target(long)
    pair = joined(s.template.example(short), asked.after, spoken(s, asked))
    assert pair == s.whole(*other, *turns)[: len(pair)]
    alone = joined(asked.alone, spoken(s, asked))
    assert alone == s.whole(*turns)[: len(alone)]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in TRIMMING])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_white_space_around_texts_is_kept(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    question, answer = "\n\n  What is it? \n", "  two words\n\n "
    first = [Message("user", question), Message("assistant", answer)]
    if name == "THINK":  # strips new lines in front of an answer
        answer = answer.lstrip("\n")
    asked = s.template.target(record(question, answer))
    pair = joined(s.template.example(record(question, answer)), asked.after, spoken(s, asked))
    whole = s.whole(*first, *first)
    assert s.controls(pair) == s.controls(whole)
    assert s.bytes(whole).startswith(s.bytes(pair))
    block = b"<think>\n\n</think>\n\n" if name == "THINK" else b""  # the model says it, so that it is scored
    assert s.bytes(asked.response).replace(b"> ", b">").startswith(block + answer.encode())


@pytest.mark.parametrize("name", sorted(TRIMMING))
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_white_space_that_a_template_strips_is_gone(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    padded, bare = record(" \n What is it?\n", "\n two words \n\n"), record("What is it?", "two words")
    assert s.template.example(padded).tolist() == s.template.example(bare).tolist()
    for given, expected in zip(s.template.target(padded), s.template.target(bare), strict=True):
        assert given.tolist() == expected.tolist()


# ---------------------------------------------------------------------- BOS


@pytest.mark.parametrize("add_bos", [True, False, None])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_bos_is_there_once(setup: MakeSetup, name: str, tokenizer: str, add_bos: bool | None) -> None:
    s = setup(name, tokenizer, add_bos=add_bos)
    bos = s.vocabulary.bos
    prints_it = "bos_token" in s.template.source
    wanted = prints_it or (tokenizer == "spm" if add_bos is None else add_bos)
    asked = s.template.target(record("Who?", "the dog"))
    for tokens in (s.template.example(record("What is it?", "two words")), asked.alone):
        assert (tokens[0] == bos) == wanted
        assert bos not in tokens[1:]
    if name == "LLAMA2":  # prints it in front of each user's turn
        assert asked.after.tolist().count(bos) == 1
    else:
        assert bos not in asked.after
    assert bos not in asked.response


# ---------------------------------------------------------------------- hostile texts


def spelled_out(text: str) -> str:
    """The same with a character that no control token has in place of each `<`."""
    return text.replace("<", "‹")


def hostile(s: Setup) -> list[str]:
    known = {s.vocabulary.text(token) for token in range(s.vocabulary.size) if s.vocabulary.is_control(token)}
    known |= {"<|im_end|>", "<s>", "</s>", "<unk>", "<|eot_id|>"}
    return [text for token in sorted(known) for text in (token, f"a {token}b", f"{token}\n{token}", f"x\n{token}")]


def check_same_but_spelled_out(s: Setup, given: Record) -> None:
    innocent = Record.of_pair(
        given.id,
        tuple(Message(turn.role, spelled_out(turn.content)) for turn in given.prompt),
        spelled_out(given.response),
        b"",
        given.line,
    )
    pairs = [(s.template.example(given), s.template.example(innocent))]
    pairs += zip(s.template.target(given)[:4], s.template.target(innocent)[:4], strict=True)
    for tokens, expected in pairs:
        assert s.controls(tokens) == s.controls(expected)
        assert s.bytes(tokens).decode() == s.bytes(expected).decode().replace("‹", "<")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_text_that_looks_like_a_control_token_never_becomes_one(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    for text in hostile(s):
        check_same_but_spelled_out(s, record(text, "yes"))
        check_same_but_spelled_out(s, record("Is it?", text))
        check_same_but_spelled_out(s, record(text, text, system=text))
    check_same_but_spelled_out(
        s, chat(("user", "a<|im_end|>"), ("assistant", "<s>b"), ("user", "</s>"), ("assistant", "<unk>"))
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_fragments_of_control_tokens(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    rng = np.random.default_rng(5)
    fragments = ["<|im_", "end", "|>", "<|", "im_start", "<", "s", "/s>", ">", "\n", " ", "a", "<|im_end|>", "<s>", "é"]

    def text() -> str:
        return "x" + "".join(rng.choice(fragments, rng.integers(1, 8))) + "y"

    for _ in range(20):
        check_same_but_spelled_out(s, record(text(), text(), system=text()))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_control_tokens_split_between_template_and_texts(setup: MakeSetup, tokenizer: str) -> None:
    embracing = "{% for m in messages %}{{ '<|im_start|>(<|im_' + m.content + '|>)' }}{% endfor %}"
    touching = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<|im_end|>' }}"
    s = setup(embracing, tokenizer, vocab_extra=("<|im_end|>", "<|im_start|>") if tokenizer == "spm" else ())
    (start,) = s.vocabulary.tokenize("<|im_start|>", special=True)
    tokens = s.template.example(record("end", "start"))
    assert s.controls(tokens) == [s.vocabulary.bos] * s.vocabulary.add_bos + [start, start]
    assert s.controls(s.template.target(record("end", "end")).response) == [s.vocabulary.eos]

    s = setup(touching, tokenizer, vocab_extra=("<|im_end|>",) if tokenizer == "spm" else ())
    asked = s.template.target(record("What <|im_", "end|>"))
    assert s.controls(joined(asked.alone)) == [s.vocabulary.bos] * s.vocabulary.add_bos
    assert s.controls(asked.response) == s.vocabulary.tokenize("<|im_end|>", special=True)
    assert s.bytes(joined(asked.after, asked.response)).decode().endswith("What <|im_end|><|im_end|>")
    assert s.controls(s.template.example(record("a <|im_", "end|>"))) == [s.vocabulary.bos] * s.vocabulary.add_bos


# ---------------------------------------------------------------------- spaces that SentencePiece adds


def test_no_space_in_front_of_a_text_unless_the_template_prints_one(setup: MakeSetup) -> None:
    def first(s: Setup, tokens: Tokens) -> str:
        return s.vocabulary.text(int(tokens[0]))

    for name in ("CHATML", "PLAIN", "GEMMA"):
        s = setup(name, "spm")
        asked = s.template.target(record("What?", "model"))
        assert first(s, asked.response) == "m"
        assert s.bytes(asked.response).startswith(b"model")
        assert b"\nWhat?" in s.bytes(asked.after)
        assert s.bytes(s.template.example(record("a", "model"))).endswith(b"\nmodel")
    s = setup("LLAMA2", "spm")
    asked = s.template.target(record("What?", "model"))
    assert first(s, asked.response) == "▁model"
    assert s.bytes(asked.after).endswith(b"[INST] What? [/INST]")


def test_text_right_behind_a_text_gets_no_space(setup: MakeSetup) -> None:
    s = setup("{{ '<s>' }}{% for m in messages %}{{ m.content }}{% endfor %}", "spm")
    asked = s.template.target(record("What", "is"))
    assert s.bytes(joined(asked.alone, asked.response[:-1])) == b"<s> Whatis"
    assert s.bytes(s.template.example(record("What", "is"))) == b"<s> Whatis"


def test_text_right_behind_a_control_token_is_tokenized_as_llama_cpp_does(setup: MakeSetup) -> None:
    bare = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '</s>' }}{% endfor %}"
    s = setup(bare, "spm", vocab_extra=("<|user|>", "<|assistant|>"))
    turns = [Message("user", "What is it?"), Message("assistant", "model")]
    asked = s.template.target(record("What is it?", "model"))
    assert joined(asked.alone, asked.response) == s.whole(*turns)
    pair = joined(s.template.example(record("What is it?", "model")), asked.after, spoken(s, asked))
    assert pair == s.whole(*turns, *turns)
    check_same_but_spelled_out(s, record("</s>What", "<s>model"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_tokenizer_that_adds_no_space(setup: MakeSetup, name: str) -> None:
    s = setup(name, "spm", add_space_prefix=False)
    assert not s.vocabulary.adds_space
    turns = [Message("user", "What is it?"), Message("assistant", "two words")]
    asked = s.template.target(record("What is it?", "two words"))
    pair = joined(s.template.example(record("What is it?", "two words")), asked.after, spoken(s, asked))
    assert pair == s.whole(*turns, *turns)[: len(pair)]
    check_same_but_spelled_out(s, record("What </s>is?", "</s>two words"))


# ---------------------------------------------------------------------- system messages, dates


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_system_messages(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    kind, own = Message("system", "You are kind."), Message("system", "Use your own words.")
    example = [Message("user", "What is it?"), Message("assistant", "two words")]
    target = [Message("user", "Who wrote it?"), Message("assistant", "She wrote it.")]

    def led(system: Message, turns: list[Message]) -> list[Message]:
        if name in NO_SYSTEM:
            return [Message("user", folded(system.content, turns[0].content)), turns[1]]
        return [system, *turns]

    def inner(system: Message, turns: list[Message]) -> list[Message]:
        if name in NO_LATER_SYSTEM:
            return [Message("user", folded(system.content, turns[0].content)), turns[1]]
        return [system, *turns]

    with_kind = s.template.example(record("What is it?", "two words", system="You are kind."))
    without = s.template.example(record("What is it?", "two words"))
    asked = s.template.target(record("Who wrote it?", "She wrote it.", system="Use your own words."))

    alone = joined(asked.alone, spoken(s, asked))
    assert alone == s.whole(*led(own, target))[: len(alone)]
    same = joined(with_kind, asked.after, spoken(s, asked))  # the example has the same system message
    assert same == s.whole(*led(kind, example), *target)[: len(same)]
    other = joined(with_kind, asked.after_system, spoken(s, asked))
    assert other == s.whole(*led(kind, example), *inner(own, target))[: len(other)]
    none = joined(without, asked.after_system, spoken(s, asked))
    assert none == s.whole(*example, *inner(own, target))[: len(none)]
    assert asked.after.tolist() == s.template.target(record("Who wrote it?", "She wrote it.")).after.tolist()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_default_system_message_stands_once_at_the_head(setup: MakeSetup, tokenizer: str) -> None:
    s = setup("CHATML_DEFAULT_SYSTEM", tokenizer)
    asked = s.template.target(record("Who?", "the dog"))
    own = s.template.target(record("Who?", "the dog", system="Be brief."))
    default = b"You are a helpful assistant."
    assert s.bytes(s.template.example(record("What?", "two"))).count(default) == 1
    assert s.bytes(asked.alone).count(default) == 1
    assert default not in s.bytes(joined(asked.after, asked.after_system, asked.response))
    assert default not in s.bytes(joined(own.alone, own.after, own.after_system))
    assert default not in s.bytes(s.template.example(record("What?", "two", system="Be brief.")))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_blank_system_message_is_one_unless_there_is_no_place_for_it(setup: MakeSetup, tokenizer: str) -> None:
    s = setup("CHATML_DEFAULT_SYSTEM", tokenizer)
    asked = s.template.target(record("Who?", "the dog", system=""))
    assert (
        joined(asked.alone, asked.response)[:-1]
        == s.whole(Message("system", ""), Message("user", "Who?"), Message("assistant", "the dog"))[
            : len(asked.alone) + len(asked.response) - 1
        ]
    )
    s = setup("GEMMA", tokenizer)
    asked = s.template.target(record("Who?", "the dog", system=""))
    assert asked.alone.tolist() == s.template.target(record("Who?", "the dog")).alone.tolist()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_date_is_not_todays(setup: MakeSetup, tokenizer: str) -> None:
    s = setup("LLAMA3_DATE", tokenizer)
    example = s.bytes(s.template.example(record("What?", "two")))
    alone = s.bytes(s.template.target(record("What?", "two")).alone)
    assert b"01 Jan 2025" in example
    assert b"01 Jan 2025" in alone
    assert datetime.date.today().strftime("%d %b %Y").encode() not in example + alone


# ---------------------------------------------------------------------- templates that rewrite


THOUGHT = "<think>\nIs it one?\n</think>\n\ntwo words"


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_thoughts_of_earlier_turns_are_dropped_and_the_last_ones_kept(setup: MakeSetup, tokenizer: str) -> None:
    s = setup("THINK", tokenizer)
    thoughtful, plain = record("What is it?", THOUGHT), record("What is it?", "two words")
    assert s.template.example(thoughtful).tolist() == s.template.example(plain).tolist()

    turns = [Message("user", "What is it?"), Message("assistant", THOUGHT)]
    asked = s.template.target(thoughtful)
    alone = joined(asked.alone, spoken(s, asked))
    assert alone == s.whole(*turns)[: len(alone)]
    pair = joined(s.template.example(thoughtful), asked.after, spoken(s, asked))
    assert pair == s.whole(*turns, *turns)[: len(pair)]
    # the model is asked for the thought, from where it would begin to speak: it opens the block itself
    opening = s.vocabulary.tokenize("<think>", special=False)[-1]
    assert opening not in asked.alone
    assert asked.response[0] == opening
    assert b"Is it one?" in s.bytes(asked.response)
    # so it does for the empty block that the template prints in front of a plain answer
    asked = s.template.target(plain)
    alone = joined(asked.alone, asked.response)
    assert alone == s.whole(turns[0], Message("assistant", "two words"))[: len(alone)]
    assert asked.response[0] == opening


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_thoughts_in_the_prompts_own_turns_are_dropped(setup: MakeSetup, tokenizer: str) -> None:
    s = setup("THINK", tokenizer)

    def asked(earlier: str) -> Target:
        return s.template.target(
            chat(("user", "What is it?"), ("assistant", earlier), ("user", "Sure?"), ("assistant", "Yes."))
        )

    for given, expected in zip(asked(THOUGHT), asked("two words"), strict=True):
        assert given.tolist() == expected.tolist()


def test_a_structure_that_changes_with_a_text_is_the_templates_own(setup: MakeSetup) -> None:
    changing = (
        "{% for m in messages %}{% if 'secret' in m.content %}{{ '<|im_end|>' }}{% else %}{{ '<|im_start|>' }}"
        "{% endif %}{{ m.role + m.content + '<|im_end|>' }}{% endfor %}"
    )
    s = setup(changing, "bpe")
    for turns in (("a secret", "b"), ("a", "b secret")):
        asked = s.template.target(record(*turns))
        alone = joined(asked.alone, asked.response)
        assert alone == s.whole(Message("user", turns[0]), Message("assistant", turns[1]))[: len(alone)]


# ---------------------------------------------------------------------- the end of a turn


ENDS = {
    "CHATML": "<|im_end|>",
    "CHATML_DEFAULT_SYSTEM": "<|im_end|>",
    "TRIM": "<|im_end|>",
    "BOS_IN_TEMPLATE": "<|im_end|>",
    "THINK": "<|im_end|>",
    "LLAMA3_DATE": "<|eot_id|>",
    "GEMMA": "<end_of_turn>",
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", [*ENDS, "LLAMA2"])
def test_the_response_ends_with_the_end_of_turn(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    (end,) = s.vocabulary.tokenize(ENDS.get(name, s.vocabulary.text(s.vocabulary.eos)), special=True)
    for answer in ("two words", "<|im_end|></s>", "a\n"):
        asked = s.template.target(record("What?", answer))
        assert asked.response[-1] == end
        assert s.controls(asked.response) == [end]
        assert end not in asked.alone[-2:]
    assert end != s.template.example(record("What?", "two words"))[-1]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_template_without_an_end_token(setup: MakeSetup, tokenizer: str) -> None:
    s = setup("PLAIN", tokenizer)
    asked = s.template.target(record("What?", "two words"))
    assert asked.response[-1] == s.vocabulary.eos
    assert s.bytes(asked.response[:-1]).strip() == b"two words"
    nothing = (
        "{% for m in messages %}{{ m.role + ': ' + m.content }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
    )
    s = setup(nothing, tokenizer)
    asked = s.template.target(record("What?", "two words"))
    assert asked.response[-1] == s.vocabulary.eos
    assert s.bytes(asked.response[:-1]).strip() == b"two words"


def test_the_last_turn_ends_as_the_template_ends_it(setup: MakeSetup) -> None:
    s = setup("{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}{{ '<|im_end|>' }}", "bpe")
    assert s.controls(s.template.target(record("a", "b")).response) == s.vocabulary.tokenize("<|im_end|>", special=True)
    assert s.controls(s.template.example(record("a", "b"))) == []


# ---------------------------------------------------------------------- templates that do not work


BROKEN = {
    "unclosed": ("{% for m in messages %}{{ m.content }}", r"not valid Jinja2: line 1"),
    "no such filter": ("{{ messages | nonsense }}", r"not valid Jinja2.*nonsense"),
    "nested too deeply": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", r"not valid Jinja2"),
    "drops the assistant": ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",)
    * 2,
    "drops earlier turns": ("{{ messages[-2].content }} {{ messages[-1].content }}",) * 2,
    "prints a turn twice": ("{% for m in messages %}{{ m.content }}{% endfor %}{{ messages[0].content }}",) * 2,
    "prints the last one first": ("{{ messages[-1].content }}{% for m in messages %}{{ m.content }}{% endfor %}",) * 2,
    "backwards": ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}",) * 2,
    "raises": ("{{ raise_exception('no\n\n  way') }}", r"TemplateError: no way;"),
    "undefined": ("{{ messages[0].nothing.more }}", r"UndefinedError"),
    "divides by nothing": ("{{ 1 / 0 }}", r"ZeroDivisionError"),
    "includes a file": ("{% include '/etc/passwd' %}", r"no loader"),
    "empty": ("",) * 2,
    "reaches for attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", r"SecurityError"),
    "reaches for globals": ("{{ cycler.__init__.__globals__ }}", r"SecurityError"),
    "reaches through a function": ("{{ raise_exception.__globals__['os'] }}", r"SecurityError"),
    "changes the messages": ("{{ messages.append(1) }}", r"SecurityError"),
    "counts for ever": ("{% for i in range(10 ** 9) %}{% endfor %}", r"OverflowError"),
}


@pytest.mark.parametrize(("source", "complaint"), BROKEN.values(), ids=BROKEN)
def test_a_broken_template_is_refused_in_one_line(tiny_model: Callable[..., Path], source: str, complaint: str) -> None:
    vocabulary = ModelFile(tiny_model()).vocabulary
    if complaint == source:
        complaint = "a message is missing from what it prints, or printed twice"
    with pytest.raises(InputError, match=complaint) as caught:
        ChatTemplate(source, vocabulary)
    assert str(caught.value).startswith("the model's chat template ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_template_that_refuses_one_record(setup: MakeSetup) -> None:
    picky = (
        "{% for m in messages %}{% if 'x' in m.content %}{{ raise_exception('no x\nplease') }}{% endif %}"
        "{{ m.role + m.content + '<|im_end|>' }}{% endfor %}"
    )
    s = setup(picky, "bpe")
    with pytest.raises(InputError, match=r"it refuses a conversation: TemplateError: no x please;"):
        s.template.target(record("axe", "b"))
    s = setup("CHATML", "bpe")
    only_pairs = "{% if messages | length not in (2, 4) %}{{ raise_exception('pairs') }}{% endif %}" + g.CHATML
    s = Setup(only_pairs, s.file.path)
    assert len(s.template.example(record("a", "b")))
    with pytest.raises(InputError, match="refuses a conversation: TemplateError: pairs"):
        s.template.target(chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")))


def test_what_templates_in_the_wild_use(setup: MakeSetup) -> None:
    wild = (
        "{%- if tools is not none %}{{ raise_exception('tools') }}{% endif -%}\n"
        "{%- if documents %}{{ raise_exception('documents') }}{% endif -%}\n"
        "{% for m in messages %}\n"
        "    {% if m.role == 'system' %}{% continue %}{% endif %}\n"
        "{{ {'é': 1} | tojson(ensure_ascii=True) }}{{ ['é'] | tojson }}\n"
        "    {% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
        "    {% else %}{{ m.content }}<|im_end|>{% endif %}\n"
        "{% endfor %}\n"
    )
    s = setup("CHATML", "bpe")
    template = ChatTemplate(wild, s.vocabulary)
    asked = template.target(record("What?", "two words"))
    assert s.bytes(asked.alone) == '{"\\u00e9": 1}["é"]\nWhat?<|im_end|>{"\\u00e9": 1}["é"]\n'.encode()
    assert s.bytes(asked.response) == b"two words<|im_end|>"


def test_texts_with_the_templates_own_markers(setup: MakeSetup) -> None:
    s = setup("CHATML", "bpe")
    turns = [Message("user", "\ufdd01\ufdd1 \ufdd0"), Message("assistant", "\ufdd00\ufdd1 \\ufdd2 {{ 1 }}{% x %}")]
    asked = s.template.target(record(turns[0].content, turns[1].content))
    pair = joined(s.template.example(record(turns[0].content, turns[1].content)), asked.after, spoken(s, asked))
    assert pair == s.whole(*turns, *turns)[: len(pair)]


def test_more_than_ten_turns(setup: MakeSetup) -> None:
    s = setup("CHATML", "spm")
    turns = [Message(("user", "assistant")[at % 2], f"turn number {at}") for at in range(24)]
    given = Record.of_pair("r1", tuple(turns[:-1]), turns[-1].content, b"", 1)
    asked = s.template.target(given)
    pair = joined(s.template.example(given), asked.after, spoken(s, asked))
    assert pair == s.whole(*turns, *turns)[: len(pair)]


# ---------------------------------------------------------------------- choosing a template


def test_load_template(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    vocabulary = ModelFile(tiny_model()).vocabulary
    assert load_template(None, g.CHATML, vocabulary).source == g.CHATML
    assert load_template("plain", g.CHATML, vocabulary).source == PLAIN
    assert load_template(None, None, vocabulary).source == PLAIN
    assert load_template(None, "", vocabulary).source == PLAIN
    own = tmp_path / "own.jinja"
    own.write_text("\ufeff" + g.TRIM + "\n", encoding="utf-8")
    loaded = load_template(str(own), g.CHATML, vocabulary)
    expected = ChatTemplate(g.TRIM, vocabulary)
    assert loaded.example(record(" a ", "b")).tolist() == expected.example(record(" a ", "b")).tolist()
    assert str(own) in loaded.name


def test_template_files_that_cannot_be_used(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    vocabulary = ModelFile(tiny_model()).vocabulary
    latin = tmp_path / "latin.jinja"
    latin.write_bytes(b"{# \xe9 #}" + g.CHATML.encode())
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% for %}")
    for path in (tmp_path / "missing.jinja", tmp_path, latin, broken):
        with pytest.raises(InputError) as caught:
            load_template(str(path), g.CHATML, vocabulary)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- too long


def long_text(words: int) -> str:
    return " ".join(f"word{at}" for at in range(words))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", ["CHATML_DEFAULT_SYSTEM", "LLAMA2", "GEMMA"])
def test_truncation_cuts_the_middle_of_the_prompt(setup: MakeSetup, name: str, tokenizer: str) -> None:
    s = setup(name, tokenizer)
    long = record("First. " + long_text(200) + " Last?", "the whole answer <|im_end|>", system="You are kind.")
    whole = s.template.target(long)
    full = len(s.template.example(long))
    assert full > 300
    for limit in (full - 1, 250, 180):
        example = s.template.example(long, limit=limit)
        asked = s.template.target(long, limit=limit)
        assert limit - 12 < len(example) <= limit
        assert limit - 12 < max(len(asked.alone), len(asked.after_system)) + len(asked.response) <= limit
        assert asked.response.tolist() == whole.response.tolist()
        assert s.bytes(example).rstrip().endswith(b"the whole answer <|im_end|>")
        for tokens in (example, asked.alone, asked.after, asked.after_system):
            text = s.bytes(tokens).decode()
            assert "First. " in text
            assert " Last?" in text
            assert " […] " in text
        for tokens in (example, asked.alone, asked.after_system):
            assert b"You are kind." in s.bytes(tokens)
    assert s.template.example(long, limit=full).tolist() == s.template.example(long).tolist()


def test_truncation_cuts_the_longest_message_first_then_others(setup: MakeSetup) -> None:
    s = setup("CHATML", "bpe")
    long = chat(
        ("user", "One. " + long_text(60)),
        ("assistant", long_text(100) + " Two."),
        ("user", "Go on."),
        ("assistant", "Yes."),
    )
    full = len(s.template.example(long))
    text = s.bytes(s.template.example(long, limit=full - 100)).decode()
    assert long_text(60) in text
    assert long_text(100) not in text
    assert text.count("[…]") == 1
    for limit in (200, 100):
        example = s.template.example(long, limit=limit)
        text = s.bytes(example).decode()
        assert len(example) <= limit
        assert text.count("[…]") == 2
        assert "Go on." in text
        assert text.endswith("Yes.")


def test_truncation_that_is_impossible(setup: MakeSetup) -> None:
    s = setup("CHATML", "bpe")
    given = record(long_text(50), "the answer " * 50)
    for encode in (s.template.example, s.template.target):
        with pytest.raises(
            InputError, match=r"record r1 \(line 7\) needs [\d,]+ tokens even with its prompt cut, 60 are left"
        ):
            encode(given, limit=60)
    short = record("Hi", "the answer " * 50)
    needed = len(s.template.example(short))
    with pytest.raises(InputError, match=f"needs {needed:,} tokens even"):  # cutting "Hi" would make it longer
        s.template.example(short, limit=needed - 1)


def test_truncation_is_monotonous(setup: MakeSetup) -> None:
    s = setup("CHATML", "spm")
    given = record("é🦙 " * 60 + "\n" * 30, "yes")
    lengths = [len(s.template.example(given, limit=limit)) for limit in range(60, 160, 7)]
    assert all(a <= b for a, b in pairwise(lengths))
