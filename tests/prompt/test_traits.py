"""Every trait of chat templates, each with a small template of our own, against plain Jinja2 rendering."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from trait_templates import CONVERSATIONS, KIND, TRAITS, UNASKED, answer, call, record, said, user

from delift_cli.data.record import Message, Record
from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile
from delift_cli.prompt.template import ChatTemplate, Tokens

Make = Callable[..., ChatTemplate]
CALLING = ("calls as json", "arguments as text", "arguments one by one")


@pytest.fixture(scope="module")
def make(tiny_model: Callable[..., Path]) -> Make:
    @cache
    def made(trait: str, **options: Any) -> ChatTemplate:
        source = TRAITS[trait]
        file = ModelFile(tiny_model(chat_template=source, vocab_extra=("<|close|>", "<|user|>", "<|observation|>")))
        return ChatTemplate(source, file.vocabulary, **options)

    return made


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def plain(
    chat: ChatTemplate, turns: tuple[Message, ...], tools: str = "", *, arguments: str = "mapping", **more: Any
) -> str:
    """What the template prints of the messages as a data set has them."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation])
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    messages = []
    for turn in turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.reasoning:
            message |= {"reasoning_content": turn.reasoning, "thinking": turn.reasoning}
        if turn.calls:
            given = [json.loads(c.arguments) if arguments == "mapping" else c.arguments for c in turn.calls]
            message["tool_calls"] = [
                {"type": "function", "id": c.id, "function": {"name": c.name, "arguments": its}}
                for c, its in zip(turn.calls, given, strict=True)
            ]
        if "part in m.content" in chat.source:
            message["content"] = [{"type": "text", "text": turn.content}]
        messages.append(message)
    variables = {"add_generation_prompt": False, **more}
    tools_given = json.loads(tools) if tools else None
    return environment.from_string(chat.source).render(messages=messages, tools=tools_given, **variables)


def seen(chat: ChatTemplate, given: Record) -> str:
    return chat.view(given).text


def scored(chat: ChatTemplate, given: Record) -> list[str]:
    """The scored texts of a record, each as one."""
    texts = [""]
    for piece in chat.view(given).pieces:
        if piece.is_scored:
            texts[-1] += piece.text
        elif texts[-1]:
            texts.append("")
    return [text for text in texts if text]


# ---------------------------------------------------------------------- equal to plain rendering


UNENDED = ("no end", "ends with the next turn", "a call ends with the answer")
SPEAKS = [name for name in TRAITS if name not in (*UNENDED, "takes turns", "refuses system")]


@pytest.mark.parametrize(
    "name", ["a pair", "several turns", "unscored turns", "lines and marks", "unicode", "a long one"]
)
@pytest.mark.parametrize("trait", [*SPEAKS, "takes turns", "refuses system"])
def test_what_is_rendered_is_plain_jinja(make: Make, trait: str, name: str) -> None:
    chat, given = make(trait, as_trained=True), CONVERSATIONS[name]
    expected = plain(chat, given.turns)
    assert expected.startswith(seen(chat, given))
    assert expected.removeprefix(seen(chat, given)).strip() == ""
    asked = chat.target(given)
    view = chat.view(given)
    assert (view.tokens, view.scored) == (len(asked.alone) + len(asked.response), asked.scored.sum())


@pytest.mark.parametrize("trait", [name for name in SPEAKS if name != "drops system"])
def test_system_messages_too(make: Make, trait: str) -> None:
    chat = make(trait, as_trained=True)
    for system in (KIND, Message("system", ""), Message("system", "Short. /no_think"), Message("system", " padded\n")):
        for name in ("a pair", "several turns"):
            given = record(system, *CONVERSATIONS[name].turns)
            assert plain(chat, given.turns).startswith(seen(chat, given))


@pytest.mark.parametrize("trait", CALLING)
@pytest.mark.parametrize("name", [name for name, given in CONVERSATIONS.items() if any(t.calls for t in given.turns)])
def test_calls_too(make: Make, trait: str, name: str) -> None:
    chat, given = make(trait, as_trained=True), CONVERSATIONS[name]
    tools = given.tools if trait == "calls as json" else ""  # the others have no place for tools
    given = Record("r", given.turns, b"", 1, tools)
    expected = plain(chat, given.turns, tools, arguments="text" if trait == "arguments as text" else "mapping")
    assert expected.startswith(seen(chat, given))
    texts = scored(chat, given)
    assert len(texts) == sum(turn.scored for turn in given.turns)
    for turn, text in zip((turn for turn in given.turns if turn.scored), texts, strict=True):
        assert all(one.name in text for one in turn.calls)
        assert turn.content.strip() in text or (turn.calls and trait == "arguments as text")  # which drops it
        assert text.endswith("<|im_end|>")


@pytest.mark.parametrize("trait", ["thought in a field", "thought of the last turn alone", "channels"])
def test_thoughts_too(make: Make, trait: str) -> None:
    chat = make(trait, as_trained=True)
    given = record(
        user("Why?"), said("Because.", reasoning="It is so."), user("So?"), said("Yes.", reasoning="Of course.")
    )
    expected = plain(chat, given.turns)
    assert expected.startswith(seen(chat, given))
    assert "Of course." in seen(chat, given)
    assert "Of course." in scored(chat, given)[-1]


# ---------------------------------------------------------------------- what is scored


def test_each_scored_turn_with_its_end(make: Make) -> None:
    chat = make("plain turns")
    assert scored(chat, CONVERSATIONS["several turns"]) == ["She.<|im_end|>", "Last week.<|im_end|>"]
    assert scored(chat, CONVERSATIONS["unscored turns"]) == ["She.<|im_end|>", "Now.<|im_end|>"]
    asked = chat.target(CONVERSATIONS["unscored turns"])
    assert asked.scored[0]
    assert asked.scored[-1]
    assert 0 < asked.scored.sum() < len(asked.scored)
    cut = asked.first_scored(3)
    assert (cut.scored.sum(), cut.scored[-1]) == (3, True)
    assert asked.first_scored(10**6) is asked


def test_where_a_template_marks_what_is_generated_that_is_scored(make: Make) -> None:
    chat = make("marks what is generated")
    assert scored(chat, CONVERSATIONS["several turns"]) == ["She.<|im_end|>\n", "Last week.<|im_end|>\n"]
    assert scored(chat, CONVERSATIONS["unscored turns"]) == ["She.<|im_end|>\n", "Now.<|im_end|>\n"]


def test_the_end_of_a_turn_is_what_stands_behind_it_in_mid_conversation(make: Make) -> None:
    chat = make("ends with the next turn")
    chat_given = CONVERSATIONS["several turns"]
    plainly = chat.vocabulary.text(chat.vocabulary.eos)
    texts = scored(chat, chat_given)
    assert [text.rstrip() for text in texts] == ["\nShe.", f"\nLast week.{plainly}"]  # <|user|> ends nothing here
    chat = make("no end")
    assert scored(chat, CONVERSATIONS["a pair"]) == [f" A word.{plainly}"]


def test_an_end_that_opens_the_next_turn(tiny_model: Callable[..., Path]) -> None:
    """As in GLM: the model stops with the token that the user's turn begins with."""
    source = TRAITS["ends with the next turn"]
    path = tiny_model(chat_template=source)
    vocabulary = ModelFile(path).vocabulary
    (end,) = vocabulary.tokenize("<|user|>", special=True)
    path = tiny_model(chat_template=source, metadata={"tokenizer.ggml.eot_token_id": end})
    chat = ChatTemplate(source, ModelFile(path).vocabulary)
    assert scored(chat, CONVERSATIONS["several turns"]) == ["\nShe.<|user|>", "\nLast week.<|user|>"]
    asked = chat.target(CONVERSATIONS["a pair"])
    assert asked.response[-1] == end


@pytest.mark.parametrize(
    ("trait", "added"), [("opens a thought", "<think>\n"), ("empty channel", "<|channel|>thought\n<|close|>")]
)
def test_scored_behind_what_the_generation_prompt_adds(make: Make, trait: str, added: str) -> None:
    given = CONVERSATIONS["several turns"]
    trained, asked = make(trait, as_trained=True), make(trait)
    assert added not in seen(trained, given)
    assert seen(asked, given).count(added) == 1
    assert scored(asked, given) == scored(trained, given) == ["She.<|im_end|>", "Last week.<|im_end|>"]
    before = seen(asked, given).rpartition(added)[0]
    assert before == seen(trained, given)[: len(before)]
    assert asked.describe()["generation prompt"].endswith(added)
    assert asked.describe()["scored from"] != trained.describe()["scored from"]
    assert any("generation prompt" in note for note in asked.notes())
    added_tokens = asked.vocabulary.tokenize(added, special=True)
    after = asked.target(CONVERSATIONS["a pair"]).after.tolist()
    assert after[-len(added_tokens) :] == added_tokens


def test_what_the_generation_prompt_closes_is_not_closed_again(make: Make) -> None:
    chat = make("closes a thought in either case")
    assert seen(chat, CONVERSATIONS["a pair"]) == "<|User|>What is it?<|Assistant|><think></think>A word.<|im_end|>"
    assert scored(chat, CONVERSATIONS["a pair"]) == ["A word.<|im_end|>"]


def test_a_thought_that_the_generation_prompt_has_opened_is_not_opened_again(make: Make) -> None:
    """As in Qwen3.5, Nemotron 3, MiniMax-M2: the model goes on behind the tag that the record begins with too."""
    opens = "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
    chat = ChatTemplate(TRAITS["plain turns"] + opens, make("plain turns").vocabulary)
    for space in ("\n", "", " "):
        thought = f"{space}It is so.\n</think>\n\nBecause."
        given = record(user("Why?"), said(f"<think>{thought}"))
        assert seen(chat, given).endswith(f"<|im_start|>assistant\n<think>{thought}<|im_end|>")
        assert scored(chat, given) == [f"{thought}<|im_end|>"]
        assert text_of(chat, chat.target(given).after).endswith("<|im_start|>assistant\n<think>")
    assert not chat.notes()
    plainly = record(user("Why?"), said("Because."))
    assert seen(chat, plainly).endswith("<|im_start|>assistant\n<think>\nBecause.<|im_end|>")


def test_thoughts_where_a_template_prints_them_with_calls_alone(make: Make) -> None:
    """As in Gemma 4."""
    source = TRAITS["calls as json"].replace(
        "(m.content or '') }}",
        "('(' + m.reasoning_content + ')' if m.reasoning_content and m.tool_calls else '') + (m.content or '') }}",
    )
    chat = ChatTemplate(source, make("plain turns").vocabulary)
    looks = said(reasoning="I must look.", calls=(call("tide", place="Brest"),))
    assert scored(chat, record(user("Tide?"), looks, answer("4"), said("4 m")))[0].startswith(
        "(I must look.)<tool_call>"
    )
    assert not chat.notes()
    inline = record(user("Tide?"), said("<think>\nHm.\n</think>\n\n4 m"))
    assert scored(chat, inline) == ["<think>\nHm.\n</think>\n\n4 m<|im_end|>"]
    assert not chat.notes()
    assert "Hm." not in seen(chat, record(user("Tide?"), said("4 m", reasoning="Hm.")))
    assert [note for note in chat.notes() if note.startswith("thoughts are not shown")]


def test_a_template_that_reads_contents_in_parts(make: Make) -> None:
    chat = make("contents in parts")
    assert chat.traits.parts
    assert not make("plain turns").traits.parts
    assert seen(chat, CONVERSATIONS["with a system message"]) == (
        "<|im_start|>system: You are kind.<|im_end|>\n<|im_start|>user: What is it?<|im_end|>\n"
        "<|im_start|>assistant: A word.<|im_end|>"
    )
    # a space that its generation prompt does not have is the model's to say
    assert scored(chat, CONVERSATIONS["a pair"]) == [" A word.<|im_end|>"]


def test_arguments_of_the_template(make: Make, tiny_model: Callable[..., Path]) -> None:
    source = TRAITS["thought of the last turn alone"]
    vocabulary = ModelFile(tiny_model(chat_template=source)).vocabulary
    chat = ChatTemplate(source, vocabulary)
    assert scored(chat, CONVERSATIONS["a pair"]) == ["<think>\n\n</think>\n\nA word.<|im_end|>"]
    quiet = ChatTemplate(source, vocabulary, arguments={"enable_thinking": False})
    assert scored(quiet, CONVERSATIONS["a pair"]) == ["A word.<|im_end|>"]
    assert seen(quiet, CONVERSATIONS["a pair"]) == seen(chat, CONVERSATIONS["a pair"])
    assert quiet.describe()["arguments"] == {"enable_thinking": False}


def test_thoughts_within_an_answer_are_split_where_the_template_has_a_field(make: Make) -> None:
    inline = record(user("Why?"), said("<think>\nIt is so.\n</think>\n\nBecause."))
    apart = record(user("Why?"), said("Because.", reasoning="It is so."))
    for trait in ("channels", "thought in a field", "thought of the last turn alone"):
        chat = make(trait)
        assert seen(chat, inline) == seen(chat, apart)
        assert "It is so." in scored(chat, inline)[0]
    # a template without a place: a field is not shown, and that is said
    chat = make("plain turns")
    chat.notes()
    assert "It is so." not in seen(chat, apart)
    assert "It is so." in seen(chat, inline)
    assert any(note.startswith("thoughts are not shown") for note in chat.notes())


def test_a_thought_that_the_generation_prompt_has_closed_is_left_out(
    make: Make, tiny_model: Callable[..., Path]
) -> None:
    apart = record(user("Why?"), said("Because.", reasoning="It is so."))
    inline = record(user("Why?"), said("<think>\nIt is so.\n</think>\n\nBecause."))
    block = "<think>\n\n</think>\n\n"
    always = TRAITS["thought in a field"].removesuffix("{% endif %}") + f"{{{{ {block!r} }}}}{{% endif %}}"
    vocabulary = make("plain turns").vocabulary
    switched = {"arguments": {"enable_thinking": False}}
    for source, options in ((TRAITS["thought of the last turn alone"], switched), (always, {})):
        for given in (apart, inline):
            chat = ChatTemplate(source, vocabulary, **options)
            assert scored(chat, given) == ["Because.<|im_end|>"]
            assert seen(chat, given).endswith(f"<|im_start|>assistant\n{block}Because.<|im_end|>")
            asked = chat.target(given)
            assert text_of(chat, asked.after).endswith(f"<|im_start|>assistant\n{block}")
            assert any(note.startswith("the last thought is not shown") for note in chat.notes())
        chat = ChatTemplate(source, vocabulary, **options)
        assert scored(chat, record(user("Why?"), said(f"{block}Because."))) == ["Because.<|im_end|>"]
        assert not any("thought is not shown" in note for note in chat.notes())  # it says nothing
        trained = ChatTemplate(source, vocabulary, as_trained=True, **options)
        assert "It is so." in scored(trained, apart)[0]
        assert not trained.notes()


def test_an_answer_that_is_all_thought(make: Make) -> None:
    chat = make("opens a thought")
    given = record(user("Why?"), said("<think>so"), user("And?"), said("hm</think>"), user("Yes?"), said("Yes."))
    assert [text.replace("<|im_end|>", "") for text in scored(chat, given)] == ["<think>so", "Yes."]


def test_what_a_template_drops_is_counted(make: Make) -> None:
    chat = make("opens a thought", name="counts")  # one that no other test has asked
    for number in range(3):
        given = Record(
            str(number), (user("Why?"), said("<think>\nIt is so, I think, and it has been so.\n</think>Yes.")), b"", 1
        )
        chat.target(given)
        chat.target(given)
    assert any(note.startswith("thoughts within an answer") and note.endswith(": 3 records") for note in chat.notes())


def test_a_thought_that_is_dropped_is_said_however_short(make: Make) -> None:
    for trait, thought, dropped in (
        ("opens a thought", "So.", True),
        ("opens a thought", "\n\n", False),
        ("plain turns", "So.", False),
        ("thought of the last turn alone", "So.", False),
    ):
        chat = make(trait, name=f"{thought} {dropped}")
        chat.target(record(user("Why?"), said(f"<think>{thought}</think>Yes.")))
        assert any(note.startswith("thoughts within an answer") for note in chat.notes()) == dropped


# ---------------------------------------------------------------------- adapted where the template demands it


def test_two_users_in_a_row(make: Make) -> None:
    given = record(user("One."), user("Two."), said("Yes."))
    chat = make("plain turns")
    assert plain(chat, given.turns).startswith(seen(chat, given))
    assert not any("joined" in note for note in chat.notes())
    chat = make("takes turns")
    assert "One.\n\nTwo." in seen(chat, given)
    assert [note for note in chat.notes() if "joined by an empty line" in note]


def test_who_speaks_first(make: Make) -> None:
    given = record(said("Hello, what can I do?"), user("Nothing."), said("Fine."))
    assert scored(make("takes turns"), given) == ["Hello, what can I do?<|im_end|>", "Fine.<|im_end|>"]
    assert [note for note in make("takes turns").notes() if "begin" in note]


@pytest.mark.parametrize("trait", ["drops system", "refuses system", "takes turns"])
def test_a_system_message_without_a_place_joins_the_user(make: Make, trait: str) -> None:
    chat = make(trait)
    given = record(KIND, user("What is it?"), said("A word."))
    assert "You are kind.\n\nWhat is it?" in seen(chat, given)
    assert any("system message" in note for note in chat.notes())
    blank = record(Message("system", "  "), user("What is it?"), said("A word."))
    assert seen(chat, blank).endswith(seen(chat, CONVERSATIONS["a pair"]))


def test_tools_where_the_template_has_no_place_for_them(make: Make) -> None:
    chat, given = make("plain turns"), CONVERSATIONS["calls again"]
    text = seen(chat, given)
    assert '"name": "tide"' in text
    assert scored(chat, given)[0] == (
        '<tool_call>\n{"name": "tide", "arguments": {"place": "Brest"}}\n</tool_call><|im_end|>'
    )
    assert sum("tools" in note or "calls" in note for note in chat.notes()) >= 2


def test_tools_and_system_message_are_repeated_behind_another_record(make: Make) -> None:
    chat = make("calls as json")
    for name in ("calls again", "tools and no system message"):
        given = CONVERSATIONS[name]
        asked = chat.target(given)
        text = b"".join(map(chat.vocabulary.piece, asked.after_system.tolist())).decode()
        bare = b"".join(map(chat.vocabulary.piece, asked.after.tolist())).decode()
        assert "Tools:" not in bare
        assert text.startswith("<|im_end|>\n<|im_start|>system\nTools:\n")
        assert text.count("Tools:") == 1
        assert ("You are kind." in text) == (given.turns[0].role == "system")
        example = chat.example(given)
        assert b"Tools:" in b"".join(map(chat.vocabulary.piece, example.tolist()))


@pytest.mark.parametrize(
    "name", ["with a system message", "calls again", "tools and no system message", "a call at the end"]
)
@pytest.mark.parametrize("trait", TRAITS)
def test_no_tool_and_no_system_message_is_lost_behind_another_record(make: Make, trait: str, name: str) -> None:
    chat, given = make(trait), CONVERSATIONS[name]
    asked = chat.target(given)
    wanted = [
        *(["The tide at a place", "The wind at a place"] if given.tools else []),
        *(t.content for t in given.turns),
    ]
    for tokens in (asked.after_system, chat.example(given), chat.further_example(given, system=True)):
        text = text_of(chat, np.concatenate([tokens, asked.response]))
        assert all(one in text for one in wanted)
        assert "<|<" not in text  # nothing of a tag that stands for the end alone


def text_of(chat: ChatTemplate, tokens: Tokens) -> str:
    return b"".join(map(chat.vocabulary.piece, tokens.tolist())).decode()


@pytest.mark.parametrize(
    ("trait", "called", "ends"),
    [
        ("calls without an end", '<|observation|>tide\n```json\n{"place": "Brest"}\n```<|close|>', False),
        ("tools with the last question", '<|observation|>[{"name": "tide", "arguments": {"place": "Brest"}}]', True),
        ("calls as json", '<tool_call>\n{"name": "tide", "arguments": {"place": "Brest"}}\n</tool_call>', True),
        ("arguments as text", '[tide {"place": "Brest"}]', True),
        ("arguments one by one", "<tool_call>tide\nplace=Brest</tool_call>", True),
    ],
)
def test_a_call_is_scored_from_its_first_tag_and_closed(make: Make, trait: str, called: str, ends: bool) -> None:
    chat, given = make(trait), CONVERSATIONS["a call at the end"]
    assert scored(chat, given) == [called + "<|im_end|>"]  # which is the end of sequence too
    for tokens in (chat.example(given), chat.further_example(given, system=False)):
        assert text_of(chat, tokens).endswith(called)
    followed = record(*given.turns, answer("4 m"), said("4 m."))
    assert scored(chat, followed)[0] == called + "<|im_end|>" * ends


@pytest.mark.parametrize("ends", [False, True])
def test_a_call_is_whole_whatever_its_arguments_end_with(tiny_model: Callable[..., Path], ends: bool) -> None:
    """Numbers and lists behind the last text are the call's, in the middle and where nothing follows, as in GLM."""
    source = TRAITS["a call ends with the answer"]
    made: dict[str, Any] = {"chat_template": source, "vocab_extra": ("<|user|>", "<|observation|>")}
    if ends:
        (end,) = ModelFile(tiny_model(**made)).vocabulary.tokenize("<|observation|>", special=True)
        made["metadata"] = {"tokenizer.ggml.eot_token_id": end}
    chat = ChatTemplate(source, ModelFile(tiny_model(**made)).vocabulary)
    for wanted, shown in (
        ({"place": "Brest", "days": [1, 20], "ok": False}, "\nplace=Brest;\ndays=[1, 20];\nok=false;"),
        ({"days": 123456789}, "\ndays=123456789;"),
        ({"place": "Brest"}, "\nplace=Brest;"),
        ({}, ""),
    ):
        called = f"<tool_call>tide{shown}</tool_call>"
        last = record(user("Tide?"), said(calls=(call("tide", **wanted),)))
        assert scored(chat, last) == [f"\n{called}" + ("<|observation|>" if ends else "<|im_end|>")]
        for tokens in (chat.example(last), chat.further_example(last, system=False)):
            assert text_of(chat, tokens).endswith(called)
        followed = record(*last.turns, answer("4 m"), said("4 m."))
        assert scored(chat, followed)[0] == f"\n{called}" + "<|observation|>" * ends


def test_a_call_that_ends_a_record_is_closed_with_its_own_texts(tiny_model: Callable[..., Path]) -> None:
    """What is printed of a call only where something follows, such as its id, is not taken from another call."""
    source = TRAITS["a call ends with the answer"]
    source = source.replace("{% for call", "{% set outer = loop %}{% for call")
    source = source.replace("'</tool_call>'", "(' ' + call.id if not outer.last else '') + '</tool_call>'")
    (end,) = ModelFile(tiny_model(chat_template=source)).vocabulary.tokenize("<|observation|>", special=True)
    path = tiny_model(chat_template=source, metadata={"tokenizer.ggml.eot_token_id": end})
    chat = ChatTemplate(source, ModelFile(path).vocabulary)
    last = record(user("Tide?"), said(calls=(call("tide", 2, place="Brest"),)))
    assert scored(chat, last) == ["\n<tool_call>tide\nplace=Brest;</tool_call><|observation|>"]
    followed = record(*last.turns, answer("4 m", number=2), said("4 m."))
    assert scored(chat, followed)[0] == "\n<tool_call>tide\nplace=Brest; call00002</tool_call><|observation|>"


def test_tools_that_open_a_conversation_open_it_again_behind_an_example(make: Make) -> None:
    chat = make("tools in the first question")
    given = record(KIND, user("Hello"), said("Good day."), tools=True)
    asked = chat.target(given)
    alone, behind = text_of(chat, asked.alone), text_of(chat, asked.after_system)
    assert alone.startswith("<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\nTools:\n")
    assert behind == "<|im_end|>\n" + alone


@pytest.mark.parametrize("trait", [name for name in TRAITS if name != "no end"])
def test_an_example_and_a_target_are_one_conversation(make: Make, trait: str) -> None:
    chat = make(trait, as_trained=True)
    first, second = CONVERSATIONS["several turns"], CONVERSATIONS["unscored turns"]
    asked = chat.target(second)
    whole = np.concatenate([chat.example(first), asked.after, asked.response]).tolist()
    both = Record("b", (*(t._replace(scored=False) for t in first.turns), *second.turns), b"", 1)
    together = chat.target(both)
    assert whole == np.concatenate([together.alone, together.response]).tolist()
    assert asked.scored.tolist() == together.scored.tolist()


def test_calls_with_ids_that_a_template_does_not_take(tiny_model: Callable[..., Path]) -> None:
    picky = TRAITS["arguments as text"].replace(
        "{% for call in m.tool_calls %}",
        "{% for call in m.tool_calls %}{% if call.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}",
    )
    chat = ChatTemplate(picky, ModelFile(tiny_model(chat_template=picky)).vocabulary)
    odd = call("tide", place="Brest")._replace(id="call_abcdefghijkl")
    given = record(user("Tide?"), said(calls=(odd,)), Message("tool", "4", call_id=odd.id), said("4 m"))
    assert len(scored(chat, given)) == 2
    assert any("nine letters" in note for note in chat.notes())
    assert answer("4").call_id == "call00001"


def test_white_space_that_a_vocabulary_swallows(tiny_model: Callable[..., Path]) -> None:
    """As Phi-3's does behind its control tokens; the space that SentencePiece adds is said by the model."""
    source = (
        "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )
    tags = ("<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
    path = tiny_model("spm", chat_template=source, vocab_extra=tags, metadata={"general.name": "Phi-3 tiny"})
    chat = ChatTemplate(source, ModelFile(path).vocabulary)
    assert chat.vocabulary.tokenize("<|end|>\n", special=True) == chat.vocabulary.tokenize("<|end|>", special=True)
    assert scored(chat, CONVERSATIONS["several turns"]) == [" She.<|end|>", " Last week.<|end|>"]


def test_calls_where_a_template_prints_the_text_alone(tiny_model: Callable[..., Path]) -> None:
    either = TRAITS["arguments as text"].replace("{% if m.tool_calls %}", "{% if m.tool_calls and not m.content %}")
    chat = ChatTemplate(either, ModelFile(tiny_model(chat_template=either)).vocabulary)
    assert scored(chat, CONVERSATIONS["a call"])[0] == '[tide {"place": "Brest"}]<|im_end|>'
    assert scored(chat, CONVERSATIONS["a call with text"])[0] == (
        'Let me look.\n<tool_call>\n{"name": "tide", "arguments": {"place": "Cork"}}\n</tool_call><|im_end|>'
    )
    assert any("no form for calls" in note for note in chat.notes())


def test_a_template_for_tools_alone_is_used_with_all_that_it_has(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(TypeError):
        jinja2.Template(UNASKED).render(messages=[], tools=None)
    chat = ChatTemplate(UNASKED, ModelFile(tiny_model(chat_template=UNASKED)).vocabulary)
    assert chat.traits.tools
    assert chat.traits.calls
    assert chat.traits.answers
    given = CONVERSATIONS["calls again"]
    assert scored(chat, given)[0] == (
        '<tool_call>\n{"name": "tide", "arguments": {"place": "Brest"}}\n</tool_call><|im_end|>'
    )
    assert seen(chat, given).count("The tide at a place") == 1
    assert "Tools:\n<|im_end|>" in seen(chat, CONVERSATIONS["a pair"])
    assert not chat.notes()


def test_what_a_tool_says_is_not_scored_and_each_answer_is_with_its_end(make: Make) -> None:
    chat = make("one call a turn")
    assert scored(chat, CONVERSATIONS["a call"]) == [
        ' to=tide<|channel|>commentary<|message|>{"place": "Brest"}<|call|>',
        "<|channel|>final<|message|>4.1 m.<|return|>",
    ]
    assert "<|call|><|start|>tide to=assistant<|message|>4.1 m<|end|>" in seen(chat, CONVERSATIONS["a call"])
    assert scored(chat, CONVERSATIONS["several turns"]) == [
        "<|channel|>final<|message|>She.<|end|>",
        "<|channel|>final<|message|>Last week.<|return|>",
    ]


def test_no_call_vanishes_where_a_template_prints_the_first_alone(make: Make) -> None:
    chat = make("one call a turn", name="first alone")
    assert scored(chat, CONVERSATIONS["two calls"])[0] == (
        '<|channel|>final<|message|><tool_call>\n{"name": "tide", "arguments": {"place": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "wind", "arguments": {"place": "Oslo"}}\n</tool_call><|end|>'
    )
    assert "<|start|>user<|message|><tool_response>\n0.3 m\n</tool_response><|end|>" in (
        seen(chat, CONVERSATIONS["two calls"])
    )
    assert [note.partition(":")[0] for note in chat.notes()] == [
        "the template has no form for calls there",
        "the template has no turn for tools there",
    ]


def test_a_call_that_closes_with_its_name(tiny_model: Callable[..., Path]) -> None:
    source = TRAITS["arguments one by one"].replace("'</tool_call>'", "'</' + call.function.name + '>'")
    chat = ChatTemplate(source, ModelFile(tiny_model(chat_template=source)).vocabulary)
    assert scored(chat, CONVERSATIONS["a call"]) == [
        "<tool_call>tide\nplace=Brest</tide><|im_end|>",
        "4.1 m.<|im_end|>",
    ]


def test_a_record_of_which_nothing_is_printed_is_refused(make: Make) -> None:
    with pytest.raises(InputError, match=r"prints nothing of what is scored"):
        make("plain turns").target(record(user("a"), said("")))
