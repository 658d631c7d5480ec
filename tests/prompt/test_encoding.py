"""Records to tokens within a context: limits, who is too long, who is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

from delift_cli.data.reading import parse_records
from delift_cli.data.record import Message, Record, RecordSet, Rejected
from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile, Vocabulary
from delift_cli.prompt.encoding import encode_examples, encode_targets, too_long, without, without_refused
from delift_cli.prompt.shorten import shorten
from delift_cli.prompt.template import ChatTemplate


def records(*lines: str, source: str = "train.jsonl") -> RecordSet:
    return parse_records("\n".join(lines).encode(), source)


def numbered(count: int, source: str = "train.jsonl") -> RecordSet:
    lines = [f'{{"id": "{source[0]}{at}", "prompt": "p{at}", "response": "r"}}' for at in range(count)]
    return records(*lines, source=source)


@pytest.fixture
def template(tiny_model: Callable[..., Path]) -> ChatTemplate:
    file = ModelFile(tiny_model())
    assert file.template
    return ChatTemplate(file.template, file.vocabulary)


def test_examples_and_targets(template: ChatTemplate) -> None:
    pool = records(
        '{"prompt": "What is it?", "response": "two words"}',
        '{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}, '
        '{"role": "assistant", "content": "She."}]}',
    )
    examples, targets = encode_examples(pool, template, limit=None), encode_targets(pool, template, limit=None)
    assert examples.systems == targets.systems == [None, "Be kind."]
    for record, prefix, target in zip(pool.records, examples.prefixes, targets.targets, strict=True):
        assert prefix.tolist() == template.example(record).tolist()
        assert prefix.dtype == np.int32
        assert [part.tolist() for part in target] == [part.tolist() for part in template.target(record)]
    lengths = targets.lengths()
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [
        max(len(t.after), len(t.after_system)) + len(t.response) for t in map(template.target, pool.records)
    ]


def test_limits_hold_for_every_record(template: ChatTemplate) -> None:
    pool = records('{"prompt": "short", "response": "yes"}', f'{{"prompt": "{"long words " * 100}", "response": "no"}}')
    examples, targets = encode_examples(pool, template, limit=80), encode_targets(pool, template, limit=80)
    assert len(examples.prefixes[0]) < len(examples.prefixes[1]) <= 80
    assert targets.lengths().max() <= 80
    assert [len(t.response) for t in targets.targets] == [
        len(t.response) for t in encode_targets(pool, template, limit=None).targets
    ]


def test_a_record_that_cannot_be_encoded_is_named_with_its_file_and_line(template: ChatTemplate) -> None:
    pool = records(
        '{"prompt": "a", "response": "yes"}', "", f'{{"id": "bad", "prompt": "b", "response": "{"no " * 100}"}}'
    )
    for encode in (encode_examples, encode_targets):
        with pytest.raises(InputError, match=r"^train\.jsonl:3 \(id bad\): .*60 are left") as caught:
            encode(pool, template, limit=60)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- too long


def split(sizes: list[int], lengths: list[int], context: int) -> tuple[list[str], list[str]]:
    """Ids of the examples and targets that are too long."""
    examples, targets = numbered(len(sizes)), numbered(len(lengths), "dev.jsonl")
    long = too_long(examples, targets, [np.zeros(size, np.int32) for size in sizes], np.array(lengths), context)
    for rejected, group in ((long.examples, examples), (long.targets, targets)):
        assert all(group.records[r.line - 1].id == r.id for r in rejected)
    return [str(r.id) for r in long.examples], [str(r.id) for r in long.targets]


def test_too_long() -> None:
    assert split([10, 20], [30, 40], 60) == ([], [])
    assert split([10, 20], [30, 40], 59) == ([], ["d1"])
    assert split([10, 200, 20], [30, 40], 60) == (["t1"], [])
    assert split([10, 200, 20], [30, 400, 40], 60) == (["t1"], ["d1"])
    assert split([10, 200, 20], [30, 400, 40], 50) == (["t1"], ["d1", "d2"])
    assert split([30, 30], [30, 30], 59) == (["t0", "t1"], [])
    assert split([5], [5], 0) == (["t0"], [])


def test_what_is_left_always_fits() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        sizes = rng.integers(1, 60, rng.integers(1, 8)).tolist()
        lengths = rng.integers(1, 60, rng.integers(1, 8)).tolist()
        context = int(rng.integers(2, 120))
        gone_examples, gone_targets = split(sizes, lengths, context)
        left = [size for at, size in enumerate(sizes) if f"t{at}" not in gone_examples]
        short = [length for at, length in enumerate(lengths) if f"d{at}" not in gone_targets]
        assert not left or not short or max(left) + max(short) <= context
        # and the longest went: none that is left is longer than one that is not
        assert not gone_examples or not left or max(left) <= min(sizes[int(name[1:])] for name in gone_examples)


def test_the_reasons_say_how_long() -> None:
    pool = numbered(1)
    long = too_long(pool, pool, [np.zeros(3000, np.int32)], np.array([2000]), 4096)
    assert long.examples == [Rejected(1, "t0", "3,000 tokens as an example")]
    assert long.targets == []


def test_without() -> None:
    pool = numbered(4)
    gone = [Rejected(2, "t1", "3,000 tokens as an example"), Rejected(2, "t1", "2,000 tokens as a target")]
    left = without(pool, [*gone, Rejected(4, "t3", "2,000 tokens as a target")])
    assert [record.id for record in left.records] == ["t0", "t2"]
    assert [rejected.id for rejected in left.rejected] == ["t1", "t3"]
    assert len(pool.records) == 4
    assert without(pool, []).records == pool.records
    with pytest.raises(InputError, match=r"train\.jsonl: no record is left"):
        without(pool, [Rejected(at + 1, f"t{at}", "too long") for at in range(4)])


def test_records_that_cannot_be_encoded_may_be_left_out(template: ChatTemplate) -> None:
    pool = records('{"prompt": "a", "response": "yes"}', f'{{"id": "bad", "prompt": "b", "response": "{"no " * 100}"}}')
    left = without_refused(pool, lambda record: template.target(record, limit=60))
    assert [record.id for record in left.records] == [pool.records[0].id]
    assert [(rejected.line, rejected.id) for rejected in left.rejected] == [(2, "bad")]
    assert "60 are left" in left.rejected[0].reason
    assert without_refused(pool, lambda record: template.target(record, limit=None)) is pool


def test_a_text_that_is_too_long_by_far_is_not_tokenized_to_its_end(template: ChatTemplate) -> None:
    pool = records(
        '{"prompt": "a", "response": "yes"}', f'{{"id": "long", "prompt": "{"words " * 100_000}", "response": "b"}}'
    )
    for encode in (encode_examples, encode_targets):
        with pytest.raises(
            InputError, match=r"^train\.jsonl:2 \(id long\): .*600,001 characters.* the 50 tokens that fit"
        ):
            encode(pool, template, limit=None, most=50)
        encode(pool, template, limit=50, most=None)
    left = without_refused(pool, lambda record: template.target(record, most=50))
    assert [rejected.id for rejected in left.rejected] == ["long"]
    assert len(encode_targets(pool, template, limit=None, most=200_000).targets) == 2


def test_long_conversations_take_work_in_proportion(template: ChatTemplate) -> None:
    """Not the square of it: eight times the turns in about eight times the calls and characters tokenized."""

    def work(turns: int) -> tuple[int, int]:
        said = tuple(
            Message(("user", "assistant")[at % 2], f"turn number {at}", scored=at % 2 == 1) for at in range(turns)
        )
        calls, characters = 0, 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls, characters
            calls += 1
            if event == "call" and frame.f_code is Vocabulary.token_array.__code__:
                characters += len(frame.f_locals["text"])

        sys.setprofile(count)
        try:
            template.target(Record("long", said, b"", 1))
        finally:
            sys.setprofile(None)
        return calls, characters

    work(10)
    few, many = work(100), work(800)
    assert few[1] > 100 * len("turn number 1")
    assert all(more < 9 * less for more, less in zip(many, few, strict=True))


def chat(sizes: Sequence[int]) -> Record:
    turns = [
        Message(role, f"{at} " + "word " * size, scored=role == "assistant")
        for at, size in enumerate(sizes)
        for role in ("user", "assistant")
    ]
    return Record("r", tuple(turns), b"", 1)


def one_turn_after_the_other(record: Record, length: Callable[[tuple[Message, ...]], int], limit: int) -> list[str]:
    """What is left of each turn where the longest that is not scored loses its middle first, then the next."""
    turns = list(record.turns)
    for place in sorted(
        (at for at, turn in enumerate(turns) if not turn.scored), key=lambda at: -len(turns[at].content)
    ):
        if length(tuple(turns)) <= limit:
            break
        content = turns[place].content
        for kept in range(len(content) - 1, -1, -1):
            shorter = f"{content[: kept - kept // 2]} […] {content[len(content) - kept // 2 :]}"
            turns[place] = turns[place]._replace(content=min(content, shorter, key=len))
            if length(tuple(turns)) <= limit:
                break
    return [turn.content for turn in turns]


def letters(turns: tuple[Message, ...]) -> int:
    return sum(len(turn.content) for turn in turns)


@pytest.mark.parametrize("limit", [190, 200, 260, 400, 1000])
def test_as_many_turns_are_cut_as_must_be(limit: int) -> None:
    given = chat([3, 9, 1, 7, 7, 2])
    found = shorten(given, given.turns, lambda turns: turns, letters, limit)
    assert [turn.content for turn in found] == one_turn_after_the_other(given, letters, limit)


def test_a_chat_of_thousands_of_turns_is_cut_in_a_few_steps() -> None:
    given, tried = chat([3] * 2000), 0

    def encode(turns: tuple[Message, ...]) -> tuple[Message, ...]:
        nonlocal tried
        tried += 1
        return turns

    shorten(given, given.turns, encode, letters, letters(given.turns) - 9_000)
    assert tried < 40
    with pytest.raises(InputError, match=r"needs more than 4,000 tokens even with its prompt cut, 3,000 are left"):
        shorten(given, given.turns, encode, letters, 3000)


def test_a_chat_of_more_turns_than_tokens_fit_is_refused(template: ChatTemplate) -> None:
    with pytest.raises(InputError, match=r"its 80 turns, .* more than the 50 tokens that fit"):
        template.target(chat([0] * 40), most=50)
