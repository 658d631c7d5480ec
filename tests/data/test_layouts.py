"""What public kinds of records are read as: one file of each kind in `layouts/`, and many more kinds inline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delift_cli.data.account import account_lines
from delift_cli.data.options import Reading, parse_roles
from delift_cli.data.reading import AS_IT_COMES, check_named_fields, parse_records, read_records
from delift_cli.data.record import Record, RecordSet, copy_groups
from delift_cli.errors import InputError

FILES = Path(__file__).parent / "layouts"
METAL = ["user: Name a metal.", "assistant*: Tin."]
TOOL = '"name": "look_up"'


def shown(record: Record) -> list[str]:
    """A record's turns, one text each; a star marks those that are scored."""
    texts = []
    for turn in record.turns:
        calls = "".join(f" <{call.name} {call.arguments}>" for call in turn.calls)
        thought = f"({turn.reasoning}) " if turn.reasoning else ""
        texts.append(f"{turn.role}{'*' * turn.scored}: {thought}{turn.content}{calls}")
    return texts


def parse(*records: Any, **options: Any) -> RecordSet:
    data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    return parse_records(data, "pool.jsonl", Reading(**options))


def only(fields: Any, **options: Any) -> list[str]:
    return shown(parse(fields, **options).records[0])


def refusal(fields: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        parse(fields, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- a file of each kind ----

BAKERY = [
    "system: You know shops.",
    "user: When does the bakery open?",
    'assistant*:  <look_up {"shop": "bakery"}>',
    'tool: {"from": 7}',
    "assistant*: The bakery opens at 7.",
]
CLOSING = ["user: Thank you!", "assistant*: My pleasure."]
RIVER = ["user: River of Paris?", "assistant*: The Seine."]
KINDS: dict[str, list[list[str]]] = {
    "openai_tools.jsonl": [BAKERY, METAL],
    "calls_beside_equal_content.jsonl": [
        *(
            ["user: When does it open?", f'assistant*: I will check. <look_up {{"shop": "{shop}"}}>']
            for shop in ("bakery", "dairy", "mill")
        ),
        METAL,
    ],
    "weight.jsonl": [["user: What is 3+3?", "assistant*: Six."], METAL],
    "sharegpt_ends_in_call.jsonl": [
        [
            "user: Good day",
            "assistant*: Good day, how can I help?",
            "user: When does the mill open?",
            'assistant*:  <look_up {"shop": "mill"}>',
        ],
        METAL,
    ],
    "closing_turns.jsonl": [
        ["user: What is tin?", "assistant*: A soft metal.", *CLOSING],
        ["user: What is a mill?", "assistant*: A house that grinds grain.", *CLOSING],
        ["user: What is tin?", "assistant*: A soft metal."],
    ],
    "ends_with_the_user.jsonl": [["user: A metal?", "assistant*: Zinc."], METAL],
    "alpaca_history.jsonl": [
        [
            "system: Use few words.",
            "user: Where is the Louvre?",
            "assistant*: Paris.",
            "user: And its river?",
            "assistant*: The Seine.",
        ],
        METAL,
    ],
    "context.jsonl": [
        ["user: Does the text name a metal?\n\nThe roof is of tin.", "assistant*: Yes."],
        ["user: Does the text name a metal?\n\nThe lamp is of brass.", "assistant*: Yes."],
        ["user: Does the text name a metal?\n\nA plum is a fruit.", "assistant*: No."],
        METAL,
    ],
    "chosen_rejected.jsonl": [RIVER, ["user: River of Rome?", "assistant*: The Tiber."]],
    "empty_assistant_turn.jsonl": [["user: Hello", "assistant: ", *RIVER], METAL],
    "numbers.jsonl": [
        ["user: What is 5*5?", "assistant*: 25"],
        ["user: Is 9 prime?", "assistant*: false"],
        ["user: A price?", "assistant*: 1.1"],
        METAL,
        ["user: A big one?", "assistant*: 123456789012345678901234567890"],
        ["user: With a zero?", "assistant*: 1.10"],
    ],
    "list_under_a_key.json": [METAL, ["user: Name a month.", "assistant*: May."]],
    "lines_of_lists.jsonl": [["user: one", "assistant*: eins"], ["user: two", "assistant*: zwei"]],
    "messages_as_text.jsonl": [RIVER, METAL],
    "pairs.csv": [RIVER, ["user: River of Rome, Italy?", "assistant*: The Tiber.\nTevere."]],
    "query_response.jsonl": [["user: What is 2+1?", "assistant*: 3"], METAL],
    "input_output.jsonl": [RIVER, METAL],
    "reasoning_content.jsonl": [["user: 2+1?", "assistant*: (Two and one more is three.) 3"], METAL],
    "null_filled.jsonl": [RIVER, METAL],
    "two_users_in_a_row.jsonl": [
        ["user: A text: the Seine is long.", "user: Which river is long?", "assistant*: The Seine."],
        METAL,
    ],
    "solution_and_answer.jsonl": [
        ["user: Wheels of three carts?", "assistant*: A cart has 4 wheels. 3 * 4 = 12."],
        ["user: Of two?", "assistant*: 2 * 4 = 8."],
        METAL,
    ],
    "bedrock.jsonl": [["system: Answer in Latin.", "user: River of Rome?", "assistant*: Tiberis."], METAL],
    "cohere.jsonl": [["system: Use few words.", *RIVER], METAL],
    "capybara.jsonl": [[*RIVER, "user: Of Rome?", "assistant*: The Tiber."], METAL],
}


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str) -> None:
    found = read_records(FILES / name)
    assert [shown(record) for record in found.records] == KINDS[name]
    assert found.rejected == []
    assert sum(found.layouts.values()) == len(found.records)


def test_every_file_is_of_a_tested_kind() -> None:
    others = {"image_part.jsonl", "odd_ids.jsonl", "ids_like_line_numbers.jsonl"}
    assert {file.name for file in FILES.iterdir()} == {*KINDS, *others}


def test_tools_are_kept_as_they_are() -> None:
    for name in ("openai_tools.jsonl", "sharegpt_ends_in_call.jsonl"):
        first, second = read_records(FILES / name).records
        (tool,) = json.loads(first.tools)
        assert (tool["type"], tool["function"]["name"]) == ("function", "look_up")
        assert second.tools == ""
    assert read_records(FILES / "openai_tools.jsonl").records[0].turns[3].call_id == "k1"


def test_records_that_differ_in_a_call_are_no_copies() -> None:
    found = read_records(FILES / "calls_beside_equal_content.jsonl")
    assert found.duplicates == 0
    assert copy_groups(found.records).tolist() == [0, 1, 2, 3]
    assert copy_groups(read_records(FILES / "context.jsonl").records).tolist() == [0, 1, 2, 3]


def test_what_is_left_out_is_counted() -> None:
    assert read_records(FILES / "weight.jsonl").dropped == {"unanswered": 1, "masked": 1}
    assert read_records(FILES / "ends_with_the_user.jsonl").dropped == {"unanswered": 1}
    assert read_records(FILES / "empty_assistant_turn.jsonl").dropped == {"empty": 1}


def test_last_turns_only() -> None:
    found = read_records(FILES / "closing_turns.jsonl", Reading(turns="last"))
    assert [[turn.content for turn in record.turns if turn.scored] for record in found.records] == [
        ["My pleasure."],
        ["My pleasure."],
        ["A soft metal."],
    ]
    history = read_records(FILES / "alpaca_history.jsonl", Reading(turns="last")).records[0]
    assert [turn.content for turn in history.turns if turn.scored] == ["The Seine."]


def test_an_image_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"image_part.jsonl:1: .*turn 1: .* an image \(image_url\), .*--skip-invalid"):
        read_records(FILES / "image_part.jsonl")
    found = read_records(FILES / "image_part.jsonl", Reading(skip_invalid=True))
    assert [shown(record) for record in found.records] == [METAL]
    assert list(found.reasons.values()) == [1]


def test_notes_say_what_was_taken_and_what_left() -> None:
    found = read_records(FILES / "solution_and_answer.jsonl")
    assert found.notes == found.ambiguous == {"solution is scored, answer left": 2}
    assert found.ignored == {"question/solution": {"answer": 2}}
    found = read_records(FILES / "chosen_rejected.jsonl")
    assert found.notes == {"chosen is the response, rejected is not used": 2}
    assert found.ambiguous == {}
    names = {"prompt": 2, "prompt_id": 2, "rejected": 2, "score_chosen": 2}
    assert found.ignored == {"chosen": names}
    found = read_records(FILES / "list_under_a_key.json")
    assert found.notes == {"the records are the list 'data' of one JSON object": 2}
    found = read_records(FILES / "query_response.jsonl")
    assert found.ignored == {"query/response": {"type": 1, "original_question": 1}}


def test_a_question_follows_its_instruction() -> None:
    found = parse({"instruction": "Answer briefly.", "question": "2+1?", "answer": "3"})
    assert shown(found.records[0]) == ["user: Answer briefly.\n\n2+1?", "assistant*: 3"]
    assert found.notes == {"question follows instruction in the prompt": 1}
    assert found.ignored == {}
    found = parse({"prompt": "2+1?", "problem": "Sums", "answer": "3"})
    assert shown(found.records[0]) == ["user: 2+1?", "assistant*: 3"]
    assert found.ambiguous == {"prompt is the prompt, problem left": 1}
    assert only({"instruction": "i", "question": "q", "answer": "r"}, prompt_field="question")[0] == "user: q"


def test_strict_refuses_what_can_be_read_in_two_ways() -> None:
    with pytest.raises(InputError, match="can be read in two ways: solution is scored, answer left"):
        read_records(FILES / "solution_and_answer.jsonl", Reading(strict=True))
    assert len(read_records(FILES / "chosen_rejected.jsonl", Reading(strict=True)).records) == 2


def test_named_fields_where_a_record_has_them() -> None:
    answers = Reading(response_field="answer")
    found = read_records(FILES / "solution_and_answer.jsonl", answers)
    assert [record.response for record in found.records] == ["12", "8", "Tin."]
    assert found.notes == {"a record without the named fields is read by the fields that it has": 1}
    for name in ("query_response.jsonl", "closing_turns.jsonl", "messages_as_text.jsonl"):
        named = Reading(prompt_field="query", response_field="response")
        assert [shown(record) for record in read_records(FILES / name, named).records] == KINDS[name]


def test_named_fields_that_no_record_has_are_a_slip() -> None:
    pairs, named = read_records(FILES / "query_response.jsonl"), Reading(prompt_field="querry")
    slipped = read_records(FILES / "query_response.jsonl", named)
    with pytest.raises(InputError, match=r'has the field "querry" \(--prompt-field\); of the first record its f'):
        check_named_fields([slipped], named)
    both = Reading(prompt_field="querry", response_field="response")
    with pytest.raises(InputError, match=r'no record has both "querry" \(--prompt-field\) and "response" \(--resp'):
        check_named_fields([read_records(FILES / "query_response.jsonl", both)], both)
    check_named_fields([pairs], AS_IT_COMES)
    right = Reading(prompt_field="query")
    has = read_records(FILES / "query_response.jsonl", right)
    check_named_fields([read_records(FILES / "closing_turns.jsonl", right), has], right)  # one that has them is enough


# ---- more kinds ----

CHAT = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
PR = ["user: p", "assistant*: r"]


@pytest.mark.parametrize(
    ("fields", "layout"),
    [
        ({"query": "p", "answer": "r"}, "query/answer"),
        ({"question": "p", "response": "r"}, "question/response"),
        ({"problem": "p", "solution": "r"}, "problem/solution"),
        ({"inputs": "p", "targets": "r"}, "inputs/targets"),
        ({"instruction": "p", "generation": "r"}, "instruction/generation"),
        ({"prompt": "p", "chosen": "r"}, "prompt/chosen"),
        ({"prompt": "p", "chosen": [CHAT[1]]}, "prompt/chosen"),
        ({"prompt": [CHAT[0]], "chosen": [CHAT[1]]}, "prompt/chosen"),
        ({"prompt": json.dumps([CHAT[0]]), "completion": json.dumps([CHAT[1]])}, "prompt/completion"),
        ({"input": {"messages": [CHAT[0]]}, "preferred_output": [CHAT[1]]}, "input/preferred_output"),
        ({"Question": "p", "Answer": "r"}, "Question/Answer"),
        ({"question": "p", "answers": {"text": ["r"], "answer_start": [3]}}, "question/answers"),
        ({"question": "p", "answer": {"value": "r", "aliases": ["q"]}}, "question/answer"),
        ({"question": "p", "answer": ["r", "r"]}, "question/answer"),
        ({"message": "p", "response": "r"}, "message/response"),
        ({"user": "p", "assistant": "r"}, "user/assistant"),
        ({"conversation": CHAT}, "conversation"),
        ({"dialog": CHAT}, "dialog"),
        ({"chat": json.dumps(CHAT)}, "chat"),
        ({"messages": str(CHAT)}, "messages"),
        ({"messages": {"role": ["user", "assistant"], "content": ["p", "r"]}}, "messages"),
        ({"conversations": {"from": ["human", "gpt"], "value": ["p", "r"]}}, "conversations"),
        ({"messages": json.dumps({"role": ["user", "assistant"], "content": ["p", "r"]})}, "messages"),
        (
            {"contents": [{"role": "user", "parts": [{"text": "p"}]}, {"role": "model", "parts": [{"text": "r"}]}]},
            "contents",
        ),
        ({"conversations": [["p", "r"]]}, "conversations"),
        ({"conversation": [{"human": "p", "assistant": "r"}]}, "conversation"),
        ({"messages": [{"user": "p"}, {"bot": "r"}]}, "messages"),
        ({"data": ["p", "r"]}, "data"),
        ({"prompt": "unused", "messages": CHAT}, "messages"),
        ({"chosen": "\n\nHuman: p\n\nAssistant: r", "rejected": "\n\nHuman: p\n\nAssistant: x"}, "chosen"),
        ({"conversations": [{"speaker": "Human", "text": "p"}, {"speaker": "AI", "text": "r"}]}, "conversations"),
        ({"messages": [{"role": "prompter", "text": "p"}, {"role": "assistant", "text": "r"}]}, "messages"),
        ({"conversations": [{"from": "[|Human|]", "value": "p"}, {"from": "[|AI|]", "value": "r"}]}, "conversations"),
        ({"messages": [{"type": "human", "content": "p"}, {"type": "ai", "content": "r"}]}, "messages"),
        (
            {"messages": [{"type": "human", "data": {"content": "p"}}, {"type": "ai", "data": {"content": "r"}}]},
            "messages",
        ),
        ({"messages": [CHAT[0], {"role": "assistant", "content": None, "refusal": "r"}]}, "messages"),
        ({"document": "p", "summary": "r"}, "document/summary"),
        ({"article": "p", "highlights": "r", "id": 3}, "article/highlights"),
        ({"source": "p", "target": "r"}, "source/target"),
        ({"text": "p", "code": "r"}, "text/code"),
        ({"prompt": "p", "canonical_solution": "r"}, "prompt/canonical_solution"),
        ({"input": [CHAT[0]], "ideal": "r"}, "input/ideal"),
        ({"prompt": "p", "question": "p", "answer": "r"}, "prompt/answer"),
        ({"question": {"text": "p", "tokens": ["p"]}, "answers": [{"text": "r", "tokens": ["r"]}]}, "question/answers"),
        ({"question": "p", "answers": [{"text": "r", "answer_start": 1}]}, "question/answers"),
        ({"prompt": "p", "response": [{"type": "text", "text": "r"}]}, "prompt/response"),
        ({"messages": [CHAT[0]], "response": "r"}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "p"}], "chosen": {"from": "gpt", "value": "r"}},
            "conversations",
        ),
        ({"prompt": "p", "messages": [CHAT[0]], "completion": "r"}, "messages"),
        ({"conversation": [{"input": "p", "output": None}], "response": "r"}, "conversation"),
        ({"chosen": CHAT, "rejected": [CHAT[0]], "conversation": [{"input": "p", "output": "r"}]}, "chosen"),
    ],
)
def test_more_layouts(fields: dict[str, Any], layout: str) -> None:
    found = parse(fields)
    assert shown(found.records[0]) == PR
    assert found.layouts == {layout: 1}


OPEN = [*CHAT, {"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("key", "answer", "more"),
    [
        ("completion", "s", {}),
        ("answer", "s", {}),
        ("response", [{"role": "assistant", "content": "s"}], {}),
        ("chosen", {"from": "gpt", "value": "s"}, {"rejected": {"from": "gpt", "value": "x"}}),
        ("chosen", [*OPEN, {"role": "assistant", "content": "s"}], {"rejected": OPEN}),
    ],
)
def test_a_response_beside_an_open_chat_is_its_last_turn(key: str, answer: Any, more: dict[str, Any]) -> None:
    found = parse({"messages": OPEN, key: answer, **more})
    assert shown(found.records[0]) == [*PR, "user: q", "assistant*: s"]
    assert found.dropped == {}
    assert found.ambiguous == {}
    rejected = {f"{key} is the response, rejected is not used": 1} if more else {}
    whole = isinstance(answer, list) and len(answer) > 1
    last = {} if whole else {f"{key} is the answer to the last turn of messages": 1}
    assert found.notes == {**rejected, **last}
    last_only = only({"messages": OPEN, key: answer, **more}, turns="last")
    assert last_only == ["user: p", "assistant: r", "user: q", "assistant*: s"]


def test_a_thought_beside_the_response_to_a_chat() -> None:
    assert only({"messages": OPEN, "answer": "s", "reasoning": "t"})[-1] == "assistant*: (t) s"


def test_what_is_left_beside_a_chat_is_said() -> None:
    found = parse({"messages": OPEN, "completion": "s", "prompt": "other", "answer": "x"})
    assert found.ambiguous == {"completion is scored, answer left": 1, "messages is read, prompt left": 1}
    assert parse({"messages": CHAT, "chosen": "x", "rejected": "y"}).ambiguous == {"messages is read, chosen left": 1}
    assert parse({"messages": CHAT, "chosen": "r", "rejected": "y"}).notes == {
        "messages is read, rejected is not used": 1
    }
    assert parse({"history": [["p", "r"]], "response": "s"}).ambiguous == {"history is read, response left": 1}
    assert parse({"dialogue": CHAT, "summary": "s"}).ambiguous == {"dialogue is read, summary left": 1}
    assert parse({"messages": CHAT, "chosen": CHAT, "conversation": OPEN}).ambiguous == {
        "chosen is read, conversation left": 1
    }


@pytest.mark.parametrize("name", ["label", "kto_tag"])
@pytest.mark.parametrize("fields", [{"messages": CHAT}, {"prompt": "p", "completion": "r"}])
def test_an_answer_that_is_not_wanted_is_said(name: str, fields: dict[str, Any]) -> None:
    note = f"{name} is false, which may mark an answer that is not wanted; it is scored"
    for value in (False, "False"):
        assert parse({**fields, name: True}, {**fields, name: value}).ambiguous == {note: 1}


@pytest.mark.parametrize("role", ["ai", "bot", "Chatbot", "MODEL", "gpt-4", "assistant"])
def test_names_of_the_assistant(role: str) -> None:
    assert only({"conversations": [{"from": "USER", "value": "p"}, {"from": role, "value": "r"}]}) == PR


def test_role_map() -> None:
    chat = [{"role": "customer", "content": "p"}, {"role": "agent", "content": "r"}]
    message = refusal({"messages": chat})
    assert 'turn 1: the role "customer" is unknown (roles found: "customer", "agent"); known are system' in message
    assert "--role" in message
    assert only({"messages": chat}, roles=parse_roles(["customer=user", "Agent=assistant"])) == PR
    for wrong in ("agent", "agent=", "=user", "agent=clerk"):
        with pytest.raises(InputError, match="--role"):
            parse_roles([wrong])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("system", "s"),
        ("system", ["s"]),
        ("system", [{"type": "text", "text": "s"}]),
        ("systemInstruction", {"parts": [{"text": "s"}]}),
        ("system_message", "s"),
        ("preamble", "s"),
    ],
)
def test_system_beside(name: str, value: Any) -> None:
    for rest in ({"messages": CHAT}, {"prompt": "p", "response": "r"}):
        assert only({**rest, name: value}) == ["system: s", *PR]


def test_two_systems_are_said() -> None:
    fields = {"system": "other", "messages": [{"role": "developer", "content": "s"}, *CHAT]}
    assert only(fields) == ["system: s", *PR]
    assert parse(fields).ambiguous == {"the chat's own system turn is read, system left": 1}


@pytest.mark.parametrize("mask", ["weight", "loss", "train", "trainable"])
@pytest.mark.parametrize(("off", "on"), [(0, 1), (False, True), (0.0, 1.0), ("false", "true"), (False, None)])
def test_masks(mask: str, off: Any, on: Any) -> None:
    chat = [
        CHAT[0],
        {**CHAT[1], mask: off},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "s", mask: on},
    ]
    assert only({"messages": chat}) == ["user: p", "assistant: r", "user: q", "assistant*: s"]
    assert parse({"messages": chat}).dropped == {"masked": 1}


def test_masked_is_the_opposite_of_a_mask() -> None:
    chat = [{**CHAT[0], "masked": True}, {**CHAT[1], "masked": True}, CHAT[0], {**CHAT[1], "masked": False}]
    found = parse({"messages": chat})
    assert shown(found.records[0]) == ["user: p", "assistant: r", "user: p", "assistant*: r"]
    assert (found.dropped, found.notes, found.ignored) == ({"masked": 1}, {}, {})


@pytest.mark.parametrize(
    "masks", [{"weight": 1, "train": False}, {"train": True, "masked": True}, {"loss": 0, "train": 1}]
)
def test_any_mask_excludes_a_turn(masks: dict[str, Any]) -> None:
    found = parse({"messages": [CHAT[0], {**CHAT[1], **masks}, *CHAT]})
    assert shown(found.records[0])[:2] == ["user: p", "assistant: r"]
    assert found.ambiguous == {f"{', '.join(masks)} of a turn contradict each other: it is not scored": 1}


@pytest.mark.parametrize("mask", [[0, 1], [1, 0, 1, 1]])
def test_masks_in_a_list(mask: list[int]) -> None:
    chat = [*CHAT, {"role": "user", "content": "q"}, {"role": "assistant", "content": "s"}]
    assert only({"messages": chat, "loss_mask": mask})[1::2] == ["assistant: r", "assistant*: s"]
    assert "loss_mask" in refusal({"messages": chat, "loss_mask": [1, 0, 1]})


def test_all_masked_and_odd_masks() -> None:
    assert "every assistant turn is masked" in refusal({"messages": [CHAT[0], {**CHAT[1], "weight": 0}]})
    for odd in ("maybe", -1, [1]):
        assert '"weight" is' in refusal({"messages": [CHAT[0], {**CHAT[1], "weight": odd}]})
    assert parse({"messages": [CHAT[0], {**CHAT[1], "weight": 0.5}]}).notes == {
        "weights of turns other than 0 and 1 count as 1": 1
    }


CALL = 'assistant*:  <f {"x": 1}>'
F = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": F}]},
        {"role": "assistant", "tool_calls": [{"function": {**F, "arguments": '{"x": 1}'}}]},
        {"role": "assistant", "content": "", "tool_calls": [F]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([F])},
        {"role": "assistant", "content": None, "function_call": F},
        {"role": "function_call", "content": json.dumps(F)},
        {"from": "function_call", "value": F},
        {"from": "tool_call", "value": json.dumps([F])},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}]},
        {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "f", "input": {"x": 1}}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}}]},
        {"role": "Chatbot", "message": "", "tool_calls": [{"name": "f", "parameters": {"x": 1}}]},
        {"role": "assistant", "content": "", "tool_call": F},
        {"role": "assistant", "content": None, "function_calls": json.dumps([F])},
        {"role": "function_call", "content": None, **F},
        {"role": "function_call", "content": "", "name": "f", "arguments": '{"x": 1}'},
        {"role": "tool_calls", "content": "", "tool_calls": [{"function": F}]},
        {"role": "assistant", "content": "", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}}]},
    ],
)
def test_forms_of_a_call(turn: dict[str, Any]) -> None:
    assert only({"messages": [CHAT[0], turn]}) == ["user: p", CALL]


def test_parallel_calls() -> None:
    g = {"name": "g", "arguments": "{}"}
    both = ["user: p", 'assistant*:  <f {"x": 1}> <g {}>']
    assert only({"messages": [CHAT[0], {"role": "assistant", "tool_calls": [F, g]}]}) == both
    calls = [{"from": "function_call", "value": json.dumps(call)} for call in (F, g)]
    assert only({"conversations": [{"from": "human", "value": "p"}, *calls]}) == both
    spoken = [CHAT[0], {"role": "assistant", "content": "I look."}, {"role": "tool_call", "content": json.dumps(F)}]
    assert only({"messages": spoken}) == ["user: p", 'assistant*: I look. <f {"x": 1}>']


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "tool", "content": "5"},
        {"role": "tool", "name": "f", "content": 5},
        {"role": "function", "name": "f", "content": "5"},
        {"from": "observation", "value": "5"},
        {"role": "ipython", "content": "5"},
        {"role": "tool_response", "content": "5"},
        {"role": "tool", "content": [{"type": "text", "text": "5"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "5"}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"json": 5}]}}]},
        {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": 5}}]},
        {"role": "function", "parts": [{"function_response": {"name": "f", "response": 5}}]},
        {"role": "tool", "content": [{"text": "5"}]},
        {"role": "tool", "name": "f", "result": 5},
        {"role": "tool", "content": None, "output": "5"},
    ],
)
def test_forms_of_a_tools_answer(turn: dict[str, Any]) -> None:
    called = {"role": "assistant", "tool_calls": [F]}
    chat = [CHAT[0], called, turn, {"role": "assistant", "content": "done"}]
    assert only({"messages": chat}) == ["user: p", CALL, "tool: 5", "assistant*: done"]


@pytest.mark.parametrize("calls", [1, 1.5, True, "1", "true", [1], "[1]", [[F]], " ", {"a": 1}])
def test_calls_that_are_none_are_refused(calls: object) -> None:
    said = refusal({"messages": [CHAT[0], {"role": "assistant", "content": None, "tool_calls": calls}]})
    assert 'turn 2: "tool_calls": a call of a tool has no name' in said


@pytest.mark.parametrize(
    "content",
    [
        ["Paris", "London"],
        [{"text": "Doc one", "title": "T1", "score": 0.9}, {"text": "Doc two"}],
        [{"text": "Doc one", "score": 0.9}],
        [{"type": "hotel", "name": "Ritz"}],
        [{"type": "file", "name": "a.txt"}],
        {"parts": ["x"], "n": 3},
        [[["x"]]],
    ],
)
def test_what_a_tool_gives_is_whole(content: Any) -> None:
    """Data stay data: only a content's parts are joined."""
    answers = [
        {"role": "tool", "content": content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": content}]},
    ]
    for answer in answers:
        chat = [CHAT[0], {"role": "assistant", "tool_calls": [F]}, answer, CHAT[1]]
        assert only({"messages": chat})[2] == f"tool: {json.dumps(content)}"


@pytest.mark.parametrize(
    "part",
    [
        {"text": "see this", "image": "a.png"},
        {"text": "see this", "inlineData": {"mimeType": "image/png", "data": "x"}},
        {"type": "tool_result", "content": [{"type": "image", "source": {"media_type": "image/png"}}]},
        {"toolResult": {"content": [{"image": {"format": "png"}}]}},
    ],
)
def test_an_image_beside_a_text_is_refused(part: dict[str, Any]) -> None:
    assert "an image" in refusal({"messages": [{"role": "user", "content": [part]}, CHAT[1]]})


def test_a_text_is_a_part_only_by_itself() -> None:
    chat = [{"role": "user", "content": [{"text": "Doc one", "title": "T1"}]}, CHAT[1]]
    assert 'turn 1: a part of the content has "title" beside its text' in refusal({"messages": chat})


def test_calls_in_a_language_of_their_own_are_text() -> None:
    found = parse(
        {
            "messages": [
                {"role": "system", "content": "s", "functions": '[{"name": "f"}]'},
                {**CHAT[0], "functions": None},
                {"role": "assistant", "content": None, "function_calls": 'f(city="Brest")'},
                {"role": "environment", "content": "5"},
                {"role": "assistant", "content": "done", "function_calls": None},
            ]
        }
    )
    record = found.records[0]
    assert shown(record) == ["system: s", "user: p", 'assistant*: f(city="Brest")', "tool: 5", "assistant*: done"]
    assert json.loads(record.tools) == [{"type": "function", "function": {"name": "f"}}]
    assert found.notes == {"a call that is no JSON object with a name stays text": 1}
    assert found.ignored == {}


@pytest.mark.parametrize(
    ("turn", "key"),
    [
        ({"role": "assistant", "content": None, "utterance": "r"}, "utterance"),
        ({"role": "assistant", "content": "", "actions": [{"f": 1}]}, "actions"),
        ({"role": "tool", "content": None, "observation": {"a": 1}}, "observation"),
        ({"role": "user", "content": " ", "query": "q"}, "query"),
        ({"role": "system", "system_prompt": "s"}, "system_prompt"),
        ({"role": "function_call", "content": None, "call": "f"}, "call"),
    ],
)
def test_a_turn_that_says_something_under_an_unknown_key_is_refused(turn: dict[str, Any], key: str) -> None:
    said = refusal({"messages": [*CHAT, turn, *CHAT]})
    assert f'turn 3: it says nothing, and has "{key}", which delift does not know' in said


def test_what_is_said_about_an_empty_turn_is_no_content() -> None:
    about = {
        "language": "English",
        "toxic": False,
        "turn_identifier": 3,
        "timestamp": "2023-04-09 00:03",
        "usage": {"n": 1},
    }
    found = parse({"conversation": [CHAT[0], {"role": "assistant", "content": "", **about}, *CHAT]})
    assert found.dropped == {"empty": 1}
    assert found.ignored == {"conversation": dict.fromkeys((f"conversation[].{name}" for name in about), 1)}


def test_of_two_texts_in_a_turn_the_other_is_named() -> None:
    found = parse({"messages": [{**CHAT[0], "parts": ["x"], "text": "p"}, CHAT[1]]})
    assert shown(found.records[0]) == PR
    assert found.ignored == {"messages": {"messages[].parts": 1}}


def test_hermes_calls_are_text() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    chat = [
        {"from": "human", "value": "p"},
        {"from": "gpt", "value": text},
        {"from": "tool", "value": "<tool_response>5"},
    ]
    assert only({"conversations": chat}) == ["user: p", f"assistant*: {text}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f", "parameters": {}}]),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        ("tools", [{"functionDeclarations": [{"name": "f", "parameters": {}}]}]),
        ("tools", [{"name": "f", "input_schema": {}}]),
        ("toolConfig", {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]}),
        ("tools", json.dumps([{"type": "function", "function": {"name": "f", "parameters": {}}}])),
    ],
)
def test_forms_of_tools(name: str, value: Any) -> None:
    tools = parse({"messages": CHAT, name: value}).records[0].tools
    assert json.loads(tools) == [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert parse({"messages": CHAT, name: []}).records[0].tools == ""


def test_tools_that_cannot_be_read_are_said() -> None:
    found = parse({"messages": CHAT, "tools": "hammer, saw"})
    assert found.notes == {"tools is no list of tools that can be read: it is left": 1}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "r", "thinking": "t"},
        {"role": "assistant", "content": "r", "reasoning_content": "t"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "r"}]},
        {"role": "model", "parts": [{"text": "t", "thought": True}, {"text": "r"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, "r"]},
        {"role": "assistant", "content": [{"type": "thinking", "content": "t"}, {"type": "text", "text": "r"}]},
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "summary": [{"text": "t"}]}, {"type": "text", "text": "r"}],
        },
        {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "t"}}}, {"text": "r"}]},
        {"role": "assistant", "content": "r", "reasoning_content": [{"type": "text", "text": "t"}]},
        {"role": "assistant", "content": "r", "thinking": {"content": "t"}},
        {"role": "assistant", "content": "r", "reasoning_content": "", "reasoning": "t"},
        {"role": "assistant", "content": "r", "reasoning_content": "t", "reasoning": "t"},
    ],
)
def test_thoughts(turn: dict[str, Any]) -> None:
    found = parse({"messages": [CHAT[0], turn]})
    assert shown(found.records[0]) == ["user: p", "assistant*: (t) r"]
    assert found.notes == {}


@pytest.mark.parametrize("thought", [4, {"tokens": 12}, [{"tokens": 12}], json.loads("[" * 900 + "]" * 900)])
def test_thoughts_that_are_none(thought: Any) -> None:
    said = refusal({"messages": [CHAT[0], {**CHAT[1], "thinking": thought}]})
    assert 'turn 2: "thinking" is ' in said
    assert "that holds no thought" in said
    found = parse({"prompt": "p", "response": "r", "thinking": thought})
    assert shown(found.records[0]) == PR
    assert found.ignored == {"prompt/response": {"thinking": 1}}


def test_a_mode_is_no_thought() -> None:
    for mode in ("off", "on", "Low", "none", True):
        note = {"reasoning is a mode and no thought: it is left": 1}
        for fields in (
            {"prompt": "p", "response": "r", "reasoning": mode},
            {"messages": [CHAT[0], {**CHAT[1], "reasoning": mode}]},
        ):
            found = parse(fields)
            assert (shown(found.records[0]), found.notes, found.ambiguous) == (PR, note, {})


def test_a_thought_is_scored_once() -> None:
    own = "<think>t</think>r"
    note = "the response has its thought in it: reasoning is left"
    found = parse({"prompt": "p", "response": own, "reasoning": "t"})
    assert (shown(found.records[0]), found.notes, found.ambiguous) == (["user: p", f"assistant*: {own}"], {note: 1}, {})
    assert parse({"prompt": "p", "response": own, "reasoning": "other"}).ambiguous == {note: 1}
    found = parse({"messages": [CHAT[0], {**CHAT[1], "reasoning_content": "t", "reasoning": "u"}]})
    assert shown(found.records[0]) == ["user: p", "assistant*: (t) r"]
    assert found.ambiguous == {"reasoning_content is the thought, reasoning left": 1}


def test_a_thought_in_the_parts_of_a_response() -> None:
    parts = [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "r"}]
    assert only({"prompt": "p", "response": parts}) == ["user: p", "assistant*: (t) r"]
    assert '"response" is empty' in refusal({"prompt": "p", "response": [{"type": "text", "text": " "}]})


def test_a_thought_beside_a_pair() -> None:
    for thought, read in (("t", "t"), (["t", "u"], "t\n\nu")):
        found = parse({"prompt": "p", "response": "r", "reasoning": thought})
        assert shown(found.records[0]) == ["user: p", f"assistant*: ({read}) r"]
        assert found.notes == {"reasoning is the thought before the response, and scored with it": 1}


def test_extra_fields_belong_to_the_prompt_of_every_pair() -> None:
    for prompt, response in (("question", "answer"), ("prompt", "response"), ("query", "response"), ("x", "y")):
        named = {} if prompt != "x" else {"prompt_field": "x", "response_field": "y"}
        for extra in ("context", "input", "passage"):
            assert only({prompt: "p", response: "r", extra: "more"}, **named) == ["user: p\n\nmore", "assistant*: r"]
    assert only({"question": "p", "answer": "r", "context": ["a", "b"]}) == ["user: p\n\na\n\nb", "assistant*: r"]


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"question": "p", "article": "x"}, "p\n\nx"),
        ({"Question": "p", "Body": "x"}, "p\n\nx"),
        ({"query": "p", "passages": {"passage_text": ["x", "y"], "is_selected": [0, 1]}}, "p\n\nx\n\ny"),
        ({"question": "p", "document": {"text": "x", "kind": "story"}}, "p\n\nx"),
        ({"question": "p", "documents": [{"title": "a", "text": "x"}]}, 'p\n\n[{"title": "a", "text": "x"}]'),
        ({"question": "p", "story": "x"}, "p\n\nx"),
        ({"question": "p", "dialogue": ["x", "y"]}, "p\n\nx\n\ny"),
        ({"instruction": "p", "inputs": "x"}, "p\n\nx"),
        ({"instruction": "p", "history": "User: x"}, "User: x\n\np"),
        ({"inputs": "p", "definition": "x"}, "x\n\np"),
        ({"input": "p", "Definition": ["x"]}, "x\n\np"),
    ],
)
def test_what_a_prompt_is_about_is_in_it_and_said(fields: dict[str, Any], prompt: str) -> None:
    found = parse({**fields, "answer": "r"})
    assert shown(found.records[0]) == [f"user: {prompt}", "assistant*: r"]
    assert any(" in the prompt" in note for note in found.notes)
    assert found.ambiguous == {}


def test_what_a_prompt_quotes_is_in_it_once() -> None:
    found = parse({"question": "x: p", "answer": "r", "article": "x"})
    assert shown(found.records[0])[0] == "user: x: p"
    assert (found.notes, found.ignored) == ({}, {})


def test_a_list_of_texts_yields_to_a_pair() -> None:
    found = parse({"question": "p", "data": ["1", "2"], "answer": "r"})
    assert shown(found.records[0]) == PR
    assert found.ambiguous == {"question/answer is read, data left": 1}
    found = parse({"dialogue": ["p", "q"], "summary": "r"})
    assert shown(found.records[0]) == ["user: p\n\nq", "assistant*: r"]
    assert found.layouts == {"dialogue/summary": 1}
    assert parse({"word": "w", "definition": "x", "prompt": "p", "response": "r"}).ambiguous == {
        "prompt is the prompt, definition left": 1
    }


def test_a_field_that_repeats_the_pair_is_no_part_of_its_prompt() -> None:
    found = parse({"prompt": "p", "response": "r", "dialogue": "Human: p\nAssistant: r"})
    assert shown(found.records[0]) == PR
    assert found.ambiguous == {"dialogue quotes prompt and is left": 1}
    found = parse({"prompt": "p", "response": "r", "conversation": ["p", "r"]})
    assert shown(found.records[0]) == PR
    assert found.ambiguous == {"conversation is read, prompt/response left": 1}


def test_lists_of_texts_are_joined_by_empty_lines() -> None:
    for name in ("prompt", "context"):
        found = parse({name: ["one", "two"], "response": "r"})
        assert shown(found.records[0]) == ["user: one\n\ntwo", "assistant*: r"]
        assert found.notes == {f"{name} is a list of texts: they are joined, an empty line between them": 1}
    assert only({"messages": [{"role": "user", "content": ["one", "two"]}, CHAT[1]]})[0] == "user: one\n\ntwo"


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("answers", [{"text": "red", "answer_start": 12}, {"text": "is red", "answer_start": 9}]),
        ("answers", ["red", "is red"]),
        ("completions", [{"text": "red"}, {"text": "is red"}]),
        ("responses", [{"type": "text", "content": "red"}, {"type": "text", "content": "is red"}]),
        ("completions", [{"role": "assistant", "content": "red"}, {"role": "assistant", "content": "is red"}]),
    ],
)
def test_of_several_answers_the_first_is_scored(name: str, answers: Any) -> None:
    found = parse({"question": "p", name: answers})
    assert shown(found.records[0]) == ["user: p", "assistant*: red"]
    assert found.ambiguous == {f"{name} has several answers: the first is scored": 1}


def test_columns_are_no_record() -> None:
    said = refusal({"instruction": ["a", "b"], "output": ["x", "y"]})
    assert "instruction and output are lists of 2 texts each, the columns of a table" in said


def test_a_record_that_is_nested_too_deep() -> None:
    deep = b"[" * 1000 + b"]" * 1000
    with pytest.raises(InputError, match=r"pool.jsonl:1: it is nested too deep to be read"):
        parse_records(b'{"prompt": "p", "response": "r", "context": [' + deep + b"]}", "pool.jsonl")


def test_a_message_is_no_record() -> None:
    said = refusal({"message_id": "a", "parent_id": None, "text": "Tell me a joke", "role": "prompter"})
    assert 'it is one message (a text with "role"), no record' in said
    said = refusal({"message_id": "b", "parent_id": "a", "text": "Knock knock"})
    assert 'it is one message (a text with "parent_id"), no record' in said
    assert only({"text": "x", "role": "Minister"}) == ["assistant*: x"]


@pytest.mark.parametrize(
    ("fields", "scored"),
    [
        ({"choices": ["one", "two"], "answer": 1}, "B"),
        ({"choices": ["one", "two"], "answer": "two"}, "two"),
        ({"choices": {"text": ["one", "two"], "label": ["A", "B"]}, "answerKey": "B"}, "B"),
        ({"options": {"A": "one", "B": "two"}, "answer": "A"}, "A"),
        ({"options": ["A) one", "B) two"], "answer": "A"}, "A"),
        ({"option_a": "one", "option_b": "two", "answer": "b"}, "b"),
        ({"A": "one", "B": "two", "answer": "B"}, "B"),
    ],
)
def test_choices(fields: dict[str, Any], scored: str) -> None:
    prompt, response = only({"question": "p", **fields})
    assert response == f"assistant*: {scored}"
    assert prompt.replace(")", ".") == "user: p\n\nA. one\nB. two"


def test_a_number_of_thousands_of_digits_is_no_place_among_the_choices() -> None:
    found = parse({"question": "p", "choices": ["one", "two"], "answer": "9" * 5000})
    assert (found.records[0].response, found.ambiguous) == ("9" * 5000, {})


def test_a_place_among_the_choices_is_said() -> None:
    found = parse({"question": "p", "choices": ["one", "two"], "answer": 0})
    assert found.ambiguous == {"answer is a place among the choices, counted from 0: its label is scored": 1}


@pytest.mark.parametrize(
    ("choices", "answer", "scored", "note"),
    [
        (["3", "2", "1"], "2", "2", "answer is a choice's own text and could be a place among them: it stays"),
        (["3", "2", "1"], "3", "3", ""),
        (["3", "2", "1"], 2, "C", "answer is a place among the choices, counted from 0: its label is scored"),
        ([3, 2, 1], 2, "2", "answer is a choice's own text and could be a place among them: it stays"),
        (["a", "b"], "1", "B", "answer is a place among the choices, counted from 0: its label is scored"),
        (["a", "b"], "27", "27", "answer is no label, text or place among the choices, counted from 0: it stays"),
        (["a", "b"], 2, "2", "answer is no label, text or place among the choices, counted from 0: it stays"),
        ({"1": "a", "2": "b"}, 2, "2", ""),
    ],
)
def test_numbers_as_answers_to_choices(choices: Any, answer: Any, scored: str, note: str) -> None:
    found = parse({"question": "p", "choices": choices, "answer": answer})
    assert found.records[0].response == scored
    assert found.ambiguous == ({note: 1} if note else {})


def test_text_alone_is_scored_as_a_whole() -> None:
    found = parse({"text": "Once upon a time", "meta": "x"})
    assert shown(found.records[0]) == ["assistant*: Once upon a time"]
    assert found.layouts == {"text": 1}
    assert found.notes == {"text: all of it is scored, without a prompt": 1}
    alpaca = {"instruction": "p", "output": "r", "text": "Below is an instruction: p r"}
    assert only(alpaca) == PR


def test_a_prompt_of_turns_is_context() -> None:
    asked = [*CHAT, {"role": "user", "content": "q"}]
    assert only({"prompt": asked, "completion": "s"}) == ["user: p", "assistant: r", "user: q", "assistant*: s"]


@pytest.mark.parametrize(
    "history", [[["a", "b"]], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
)
@pytest.mark.parametrize("name", ["history", "chat_history"])
def test_history(name: str, history: Any) -> None:
    for prompt, response in (("instruction", "output"), ("message", "response")):
        assert only({prompt: "p", response: "r", name: history}) == ["user: a", "assistant*: b", *PR]
    assert only({"instruction": "p", "output": "r", name: []}) == PR


def test_media_beside_a_chat_are_refused() -> None:
    assert '"images": a text model cannot see it' in refusal({"messages": CHAT, "images": ["a.png"]})
    assert only({"messages": CHAT, "images": []}) == PR
    for sort in ("input_audio", "video_url", "file"):
        chat = [{"role": "user", "content": [{"type": sort}]}, CHAT[1]]
        assert "which a text model cannot see" in refusal({"messages": chat})


def test_a_chat_beside_a_pair_goes_first_and_is_said() -> None:
    found = parse({"problem": "p", "solution": "x", "messages": CHAT})
    assert found.ambiguous == {"messages is read, problem/solution left": 1}
    assert parse({"prompt": "p", "response": "r", "turns": 2, "data": "web"}).layouts == {"prompt/response": 1}


def test_keys_of_turns_that_are_not_used_are_named() -> None:
    found = parse({"messages": [{**CHAT[0], "mood": "good"}, {**CHAT[1], "mood": None}], "source": "web", "n": None})
    assert found.ignored == {"messages": {"messages[].mood": 1, "source": 1}}


def test_counts_of_many_records_are_exact() -> None:
    """Records are read by plan after the first: the counts must not show it."""
    rows = [
        {
            "id": n,
            "instruction": f"i{n}",
            "input": "x" if n % 3 else "",
            "output": f"o{n % 7}",
            "tag": None if n % 2 else "t",
        }
        for n in range(60)
    ]
    chats = [
        {"messages": CHAT + ([{"role": "user", "content": "q"}] if n % 4 == 0 else []), "tag": "t"} for n in range(40)
    ]
    found = parse(*rows, *chats)
    assert found.layouts == {"instruction/output": 60, "messages": 40}
    assert found.dropped == {"unanswered": 10}
    assert found.ignored["messages"] == {"tag": 40}
    assert found.ignored["instruction/output"] == {"tag": 30, "input": 20} or found.ignored["instruction/output"] == {
        "tag": 30
    }
    alone = [parse(row).records[0].conversation for row in (*rows, *chats)]
    assert [record.conversation for record in found.records] == alone
    assert found.duplicates == len(alone) - len(set(alone))


def test_an_unknown_role_lists_the_roles_found() -> None:
    chat = [*CHAT, {"role": "narrator", "content": "x"}]
    assert 'turn 3: the role "narrator" is unknown (roles found: "user", "assistant", "narrator")' in refusal(
        {"messages": chat}
    )


def test_workings_beside_an_answer_are_said() -> None:
    for name in ("cot", "rationale", "explanation", "Complex_CoT"):
        found = parse({"question": "p", name: "because", "answer": "r"})
        assert found.ambiguous == {f"answer is scored, {name} left": 1}


def test_an_answer_that_is_calls() -> None:
    tools = json.dumps([{"name": "f", "description": "d", "parameters": {}}])
    for answers in (json.dumps([F]), [F], json.dumps(F)):
        found = parse({"query": "p", "tools": tools, "answers": answers})
        assert shown(found.records[0]) == ["user: p", CALL]
        assert found.notes == {"answers is a list of calls, and scored as such": 1}
    assert only({"query": "p", "answers": json.dumps([F])}) == ["user: p", f"assistant*: {json.dumps([F])}"]
    by_name = parse({"messages": CHAT, "tools": {"f": {"description": "d", "parameters": {}}}}).records[0].tools
    assert json.loads(by_name)[0]["function"] == {"name": "f", "description": "d", "parameters": {}}


def test_a_mask_on_a_turn_of_the_user_is_said() -> None:
    found = parse({"messages": [{**CHAT[0], "train": True}, CHAT[1]]})
    assert found.notes == {"messages: a turn of the user that is marked to be trained on is context all the same": 1}


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_that_is_one_chat(indent: int | None) -> None:
    found = parse_records(json.dumps(CHAT, indent=indent).encode(), "chat.json")
    assert [shown(record) for record in found.records] == [PR]
    found = parse_records(json.dumps([CHAT, CHAT], indent=indent).encode(), "chats.json")
    assert [shown(record) for record in found.records] == [PR, PR]


def test_a_file_that_is_one_object() -> None:
    pairs = [{"question": "p", "answer": "r"}, {"question": "q", "answer": "s"}]
    found = parse_records(json.dumps({"version": "1", "items": pairs}).encode(), "pool.json")
    assert [shown(record) for record in found.records] == [PR, ["user: q", "assistant*: s"]]
    assert found.notes == {"the records are the list 'items' of one JSON object": 2}
    chat = json.dumps({"conversations": pairs}).encode()
    found = parse_records(chat, "pool.json")
    assert [shown(record) for record in found.records] == [[*PR, "user: q", "assistant*: s"]]
    note = "conversations is one chat, of pairs; --records conversations makes each of them a record"
    assert found.ambiguous == {note: 1}
    assert len(parse_records(chat, "pool.json", Reading(records="conversations")).records) == 2
    with pytest.raises(InputError, match="can be read in two ways: conversations is one chat"):
        parse_records(chat, "pool.json", Reading(strict=True))
    assert [len(record.turns) for record in parse({"items": pairs}, {"items": pairs[:1]}).records] == [4, 2]


def test_a_plan_reads_what_it_was_not_made_for_as_without_it() -> None:
    chat = " " + json.dumps([CHAT[1]])
    found = parse({"prompt": "p", "response": "r"}, {"prompt": "p", "response": chat})
    assert [shown(record) for record in found.records] == [PR, PR]
    assert found.duplicates == 1
    with pytest.raises(InputError, match=r'pool.jsonl:2: field "response" has no assistant turn'):
        parse({"prompt": "p", "response": "r"}, {"prompt": "p", "response": " " + json.dumps([CHAT[0]])})


def test_lines_of_pairs_of_texts() -> None:
    found = parse([["p", "r"]], [["p", "r"], ["q", "s"]])
    assert [len(record.turns) for record in found.records] == [2, 4]


@pytest.mark.parametrize("said", ["answer", "response", "text", "content"])
def test_the_model_of_an_answer_is_not_what_it_says(said: str) -> None:
    """As in Nectar and UltraFeedback, where each answer names its model."""
    best, worse = {"model": "m-7b", said: "r", "rank": 1.0}, {"model": "n-7b", said: "x", "rank": 2.0}
    found = parse({"prompt": "p", "answers": [best, worse]})
    assert shown(found.records[0]) == PR
    assert found.ambiguous == {"answers has several answers: the first is scored": 1}
    assert only({"prompt": "p", "chosen": best, "rejected": worse}) == PR


def test_a_model_beside_what_user_and_assistant_say() -> None:
    found = parse({"conversations": [{"human": "p", "gpt": "r", "model": "m-7b"}]})
    assert shown(found.records[0]) == PR
    assert found.ignored == {"conversations": {"conversations[].model": 1}}
    assert only({"conversations": [{"user": "p", "model": "r"}]}) == PR
    assert only({"conversations": [{"user": "p"}, {"model": "r"}]}) == PR


def test_pairs_of_a_role_and_a_text() -> None:
    found = parse({"conversation": [["system", "s"], ["User", "p"], ["assistant", "r"]]})
    assert shown(found.records[0]) == ["system: s", *PR]
    assert found.notes == {"conversation: pairs of a role and a text are read as turns": 1}
    assert only({"conversation": [["user", "r"], ["p", "q"]]}) == [
        *("user: user", "assistant*: r", "user: p", "assistant*: q"),
    ]


NOTHING = {"name": None, "arguments": None}


@pytest.mark.parametrize(
    "keys",
    [
        {"function_call": NOTHING},
        {"tool_calls": [{"id": None, "type": None, "function": NOTHING}]},
        {"tool_calls": [None]},
        {"reasoning_content": {"text": None}},
        {"content": [{"type": "text", "text": "r", "image_url": {"url": None}}]},
    ],
)
def test_objects_full_of_nulls_are_null(keys: dict[str, Any]) -> None:
    """As a table has them where rows with other keys have values."""
    assert only({"messages": [CHAT[0], {**CHAT[1], **keys}]}) == PR
    assert only({"messages": CHAT, "images": [{"bytes": None}], "tools": [{"type": None, "function": NOTHING}]}) == PR


def test_a_call_beside_one_full_of_nulls() -> None:
    calls = [{"function": F}, {"function": NOTHING}]
    assert only({"messages": [CHAT[0], {"role": "assistant", "content": None, "tool_calls": calls}]})[1] == CALL
    assert "a call of a tool has no name" in refusal(
        {"messages": [CHAT[0], {**CHAT[1], "tool_calls": [{"function": {"name": None, "arguments": "{}"}}]}]}
    )


@pytest.mark.parametrize(
    "choices", ["['one', 'two']", '["one", "two"]', "{'text': ['one', 'two'], 'label': ['A', 'B']}"]
)
def test_choices_as_text(choices: str) -> None:
    """As a table of texts has them."""
    for answer in ("B", "1"):
        assert only({"question": "p", "choices": choices, "answer": answer}) == [
            *("user: p\n\nA. one\nB. two", "assistant*: B"),
        ]


def test_a_text_of_choices_follows_the_question() -> None:
    for options in ("A) one\nB) two", "a ) one , b ) two"):
        found = parse({"question": "p", "options": options, "answer": "a"})
        assert shown(found.records[0]) == [f"user: p\n\n{options}", "assistant*: a"]
        assert found.notes == {"options follows question in the prompt": 1}


@pytest.mark.parametrize("choices", ["['one' 'two']", [{"a": 1}, {"b": 2}], ["one"], "one, two"])
def test_choices_that_cannot_be_read_are_said(choices: Any) -> None:
    found = parse({"question": "p", "choices": choices, "answer": "1"})
    assert shown(found.records[0]) == ["user: p", "assistant*: 1"]
    assert found.ambiguous == {"choices are no choices that can be read: left": 1}


@pytest.mark.parametrize("text", [str, json.dumps])
def test_answers_as_text(text: Any) -> None:
    plain = {"question": "q", "answers": "s"}
    found = parse(plain, {"question": "p", "answers": text({"text": ["r"], "answer_start": [3]})}, plain)
    assert shown(found.records[1]) == PR
    assert only({"question": "p", "answers": '{"text": ["r"]}'})[1] == 'assistant*: {"text": ["r"]}'


def test_rows_under_columns_are_no_chat() -> None:
    rows = [["r", "p"], ["s", "q"]]
    table = {"columns": ["response", "prompt"], "index": [0, 1], "data": rows}
    for data in (
        json.dumps(table).encode(),
        json.dumps(table, indent=1).encode(),
        b"%b\n" % json.dumps(table).encode() * 2,
    ):
        with pytest.raises(InputError, match='"data" are the rows of a table under "columns", no records'):
            parse_records(data, "table.json")
    assert only({"data": rows})[0] == "user: r"


@pytest.mark.parametrize("name", ["context", "documents", "input", "passages"])
def test_what_could_belong_to_a_chat_is_said(name: str) -> None:
    for chat in ({"messages": CHAT}, {"chosen": CHAT}, {"messages": CHAT[:1], "response": "r"}):
        (layout, *_) = chat
        found = parse({**chat, name: "The roof is of tin."})
        assert shown(found.records[0]) == PR
        assert found.ambiguous == {f"{layout} is read, {name} left": 1}
    for quoted in ("p", ["p", "r"], "", [], None):
        assert parse({"messages": CHAT, name: quoted}).ambiguous == {}


def test_a_second_system_text_is_said() -> None:
    found = parse({"system": "s", "system_prompt": "t", "prompt": "p", "response": "r"})
    assert shown(found.records[0]) == ["system: s", *PR]
    assert found.ambiguous == {"system is the system text, system_prompt left": 1}
    assert parse({"system": "s", "system_prompt": "s", "prompt": "p", "response": "r"}).ambiguous == {}


def test_a_pair_that_says_what_its_chat_says_is_read_in_one_way() -> None:
    """As in Magpie and NuminaMath."""
    found = parse({"problem": "p", "solution": "r", "messages": CHAT}, strict=True)
    assert (shown(found.records[0]), found.ambiguous) == (PR, {})
    found = parse({"problem": "p", "solution": "r", "messages": [*CHAT, *CHAT[:1], {**CHAT[1], "content": "x"}]})
    assert found.ambiguous == {"messages is read, problem/solution left": 1}


def test_texts_beside_the_numbers_of_their_tokens() -> None:
    found = parse({"inputs": [7, 8], "inputs_pretokenized": "p", "targets": [9], "targets_pretokenized": "r"})
    assert (shown(found.records[0]), found.notes) == (PR, {})
    assert only({"inputs": "p", "targets": "r"}) == PR


def test_a_mask_of_parts_of_a_turn_is_said() -> None:
    detail = [{"begin_offset": 0, "end_offset": 0, "train": False}]
    found = parse({"messages": [CHAT[0], {**CHAT[1], "train_detail": detail}]})
    assert found.ambiguous == {"messages: train_detail masks parts of a turn, which is scored as a whole": 1}


def test_tools_as_texts() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x": True}}}
    for tools in ([json.dumps(tool)], str([tool]), json.dumps([json.dumps(tool)]), [tool, None]):
        assert json.loads(parse({"messages": CHAT, "tools": tools}).records[0].tools) == [tool]
    for none in ("null", "None", "[]"):
        found = parse({"messages": CHAT, "tools": none})
        assert (found.records[0].tools, found.notes) == ("", {})
    assert parse({"messages": CHAT, "tools": ["f", "g"]}).notes == {
        "tools is no list of tools that can be read: it is left": 1
    }


def test_a_prompt_that_is_a_transcript() -> None:
    plain = {"prompt": "q", "chosen": "s"}
    text = "\n\nHuman: p\n\nAssistant: r\n\nHuman: q\n\nAssistant:"
    found = parse(plain, {"prompt": text, "chosen": "s"}, plain)
    assert shown(found.records[1]) == ["user: p", "assistant: r", "user: q", "assistant*: s"]
    assert found.notes == {"prompt: a transcript of Human: and Assistant: is read as turns": 1}
    begun = "Human: p\n\nAssistant: The answer is"
    assert only({"prompt": begun, "chosen": " r"}) == [f"user: {begun}", "assistant*:  r"]


@pytest.mark.parametrize("name", ["is_safe", "is_correct", "label", "Label"])
def test_an_answer_that_may_not_be_wanted_is_said(name: str) -> None:
    found = parse({"prompt": "p", "response": "r", name: False}, {"prompt": "p", "response": "r", name: True})
    assert found.ambiguous == {f"{name} is false, which may mark an answer that is not wanted; it is scored": 1}


def test_nested_fields_of_an_unknown_layout_are_named() -> None:
    assert 'its fields are "fields", "status" (in them "fields.prompt", "fields.reply");' in refusal(
        {"fields": {"prompt": "p", "reply": "r"}, "status": "done"}
    )


def test_what_is_scored_of_an_object_is_said() -> None:
    found = parse({"prompt": "p", "response": {"name": "x", "value": "r"}})
    assert (shown(found.records[0]), found.notes) == (PR, {"of response its value is scored": 1})
    assert found.ignored == {"prompt/response": {"response.name": 1}}
    assert parse({"prompt": "p", "response": {"text": "r", "tokens": []}}).notes == {}


def test_an_image_that_no_text_shows_is_said() -> None:
    found = parse({"image": "a.png", "question": "p", "answer": "r"})
    assert (shown(found.records[0]), found.ambiguous) == (PR, {"image is left: a text model cannot see it": 1})
    assert parse({"image": "", "question": "p", "answer": "r"}).ambiguous == {}


@pytest.mark.parametrize("name", ["thought", "cot", "thinking_blocks", "reasoning_details"])
def test_what_may_be_a_thought_is_said(name: str) -> None:
    blocks = [{"type": "thinking", "thinking": "t"}]
    found = parse({"messages": [CHAT[0], {**CHAT[1], name: blocks if name.endswith("s") else "t"}]})
    assert shown(found.records[0]) == PR
    assert found.ambiguous == {f"messages: a turn's {name} may be a thought, and is left": 1}
    for said in ({name: "r"}, {name: blocks, "reasoning_content": "t"}):
        assert parse({"messages": [CHAT[0], {**CHAT[1], **said}]}).ambiguous == {}


def test_null_arguments_of_a_call_are_said() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1, "b": None}}}
    found = parse({"messages": [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert shown(found.records[0])[1] == 'assistant*:  <f {"a": 1, "b": null}>'
    assert found.notes == {"a call has arguments that are null, as a table has those that are not there: they stay": 1}


def test_preferences_that_are_empty_beside_a_chat() -> None:
    assert only({"messages": CHAT, "chosen": [], "rejected": []}) == PR


def test_answers_of_people_with_names() -> None:
    found = parse({"question": "p", "answers": [{"author": "ann", "text": "r"}, {"author": "bob", "text": "x"}]})
    assert shown(found.records[0]) == PR
    assert found.ambiguous == {"answers has several answers: the first is scored": 1}


def test_a_channel_for_thoughts_is_said() -> None:
    found = parse({"messages": [CHAT[0], {**CHAT[1], "channel": "analysis"}, {**CHAT[1], "channel": "final"}]})
    assert shown(found.records[0]) == [*PR, "assistant*: r"]
    note = "messages: a turn on the channel analysis, where harmony thinks, is read as said"
    assert found.ambiguous == {note: 1}


@pytest.mark.parametrize("form", [lambda chat: chat, lambda chat: {"messages": chat}])
def test_pairs_of_a_role_and_a_text_are_turns(form: Callable[[Any], Any]) -> None:
    chat = [["system", "s"], ["User", "p"], ["assistant", "r"]]
    turns = ["system: s", "user: p", "assistant*: r"]
    assert shown(parse(form(chat), form(chat)).records[1]) == turns
    assert only(form(chat)) == turns  # a file of one line is no array of records
    assert only(form([["bard", "p"], ["assistant", "r"]]), roles=(("bard", "user"),)) == turns[1:]
    assert only({"history": [["user guide?", "Page 3"]], "instruction": "p", "output": "r"})[0] == "user: user guide?"


@pytest.mark.parametrize("named", ["answer", "text", "content"])
def test_the_name_of_a_model_beside_an_answer_is_not_the_answer(named: str) -> None:
    answers = [{named: "red", "model": "gpt-4", "rank": 1}, {named: "is red", "model": "bard", "rank": 2}]
    found = parse({"prompt": "p", "answers": answers})
    assert shown(found.records[0]) == ["user: p", "assistant*: red"]
    assert found.ambiguous == {"answers has several answers: the first is scored": 1}
    assert {"answers[].model", "answers[].rank"} <= {*found.ignored["prompt/answers"]}
    said = refusal({"messages": [{"user": "alice", "text": "p"}, {"assistant": "r"}]})
    assert 'field "messages", turn 1: there is no role' in said


def test_a_record_is_counted_whether_its_note_is_ambiguous_or_not() -> None:
    own = "<think>t</think>r"
    note = "the response has its thought in it: reasoning is left"
    same, other = ({"prompt": "p", "response": own, "reasoning": thought} for thought in ("t", "u"))
    found = parse(same, same, other)
    assert (found.notes, found.ambiguous) == ({note: 3}, {note: 1})
    turns = [CHAT[0], *({"role": "assistant", "content": own, "reasoning": thought} for thought in ("t", "u", "t"))]
    found = parse({"messages": turns})
    assert (found.notes, found.ambiguous) == ({note: 1}, {note: 1})


def test_a_role_that_is_unknown_or_missing_is_refused_in_few_words() -> None:
    said = refusal({"messages": [{"role": "Q", "content": "p"}, CHAT[1]]})
    assert 'turn 1: the role "Q" is unknown (roles found: "Q", "assistant"); known are system' in said
    assert len(said) < 280
    said = refusal({"messages": [{"Role": "user", "Content": "p"}, CHAT[1]]})
    assert 'turn 1: there is no role: its fields are "Role", "Content"' in said
    for role, kind in ((1, "a number"), (None, "null")):
        said = refusal({"messages": [{"role": role, "content": "p"}, CHAT[1]]})
        assert f"turn 1: role is {kind}, where a text is due" in said


def test_a_chat_without_an_answer_tells_how_to_name_one() -> None:
    fields = {"messages": CHAT[:1], "ground_truth": "r"}
    assert "; a response in another field: --prompt-field messages --response-field FIELD" in refusal(fields)
    assert only(fields, prompt_field="messages", response_field="ground_truth") == PR
    assert "--prompt-field" not in refusal({"messages": CHAT[:1]})


@pytest.mark.parametrize("name", ["label", "kto_tag", "is_correct"])
def test_an_answer_that_is_not_wanted_by_a_number_is_said(name: str) -> None:
    note = f"{name} is false, which may mark an answer that is not wanted; it is scored"
    rows = [{"prompt": "p", "completion": "r", name: value} for value in (1, 0, "0", "1")]
    assert parse(*rows).ambiguous == {note: 2}


def test_arguments_for_the_template_of_one_record_are_said() -> None:
    given = {"enable_thinking": False, "custom_instructions": "Use few words."}
    rows = [{"messages": CHAT, "chat_template_kwargs": value} for value in ({}, None, {"tools": []}, given, given)]
    found = parse(*rows)
    note = "chat_template_kwargs is left: a template gets the same for all records, by --template-arg"
    assert (shown(found.records[4]), found.ambiguous) == (PR, {note: 2})


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\nr<|im_end|>",
        "<s>[INST] p [/INST] r </s>",
        "### Human: p### Assistant: r",
        "Below is a task.\n\n### Instruction:\np\n\n### Response:\nr",
    ],
)
def test_a_chat_in_the_marks_of_a_template_is_said(text: str) -> None:
    note = "text has a chat in the marks of a template, which are scored as plain text: write it as messages"
    assert parse({"text": "plain"}, {"text": text}).ambiguous == {note: 1}


@pytest.mark.parametrize(
    "prompt",
    [
        "### Instruction:\np\n\n### Response:\n",
        "<s>[INST] p [/INST]",
        "<|user|>\np\n<|assistant|>\n",
        "USER: p\nASSISTANT:",
    ],
)
def test_a_prompt_that_ends_in_the_marks_of_a_template_is_said(prompt: str) -> None:
    note = "prompt ends in the marks of a template, and gets those of the model's besides; --template plain adds none"
    plain = {"prompt": "p: [INST] is a mark", "completion": "r"}
    found = parse(plain, plain, {"prompt": prompt, "completion": "r"}, {"prompt": prompt, "completion": "s"})
    assert (found.notes, found.ambiguous) == ({note: 2}, {note: 2})


def test_a_picture_that_is_not_there_is_read_alike_first_and_later() -> None:
    marked = [{"role": "user", "content": "<image>p"}, CHAT[1]]
    rows = [{"messages": marked, "images": value} for value in ("", None, "")]
    assert [shown(record) for record in parse(*rows).records] == [["user: <image>p", "assistant*: r"]] * 3
    assert parse({"messages": CHAT, "images": None}, *rows).layouts == {"messages": 4}


def test_a_field_without_a_name_is_shown_as_such() -> None:
    found = parse({"": 0, "prompt": "p", "response": "r"}, {"": 1, "prompt": "q", "response": "r"})
    assert account_lines([found], ignored=True) == [("ignored", 'prompt/response: "" (2)')]
