"""20 conversations with tools and several turns: text, token ids and scored mask are those of transformers.

`apply_chat_template` with the same template and vocabulary, and its assistant mask, which is what TRL trains on with
assistant_only_loss. Where transformers is not installed, against the values that it gave (version 5.24).
To record them anew: python tests/prompt/test_transformers.py
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import gguf_models
from trait_templates import CONVERSATIONS, MARKED

from delift_cli.data.record import Message, Record
from delift_cli.model.gguf import ModelFile, Vocabulary
from delift_cli.prompt.template import ChatTemplate

RECORDED = Path(__file__).with_name("transformers_recorded.json")
# Axolotl 0.19's ChatTemplateStrategy, train_on_eos: turn. Of the 20 the 12 without calls: where a turn with a call has
# no content, it leaves the call out.
AXOLOTL = Path(__file__).with_name("axolotl_recorded.json")


def messages(turns: tuple[Message, ...]) -> list[dict[str, Any]]:
    """As a data set has them."""
    made = []
    for turn in turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
                for call in turn.calls
            ]
        made.append(message)
    return made


def with_transformers(vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
    """What transformers gives of each conversation."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = [vocabulary.text(token) for token in range(vocabulary.size)]
    model = tokenizers.models.BPE(
        vocab=dict(zip(texts, range(len(texts)), strict=True)), merges=gguf_models.bpe_merges()
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    control = [text for token, text in enumerate(texts) if vocabulary.is_control(token)]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=control)
    given = {}
    for name, record in CONVERSATIONS.items():
        options = {"tools": json.loads(record.tools) if record.tools else None, "chat_template": MARKED}
        text = fast.apply_chat_template(messages(record.turns), tokenize=False, **options)
        encoded = fast.apply_chat_template(
            messages(record.turns), tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
        )
        mask = encoded["assistant_masks"]
        stop = len(mask) - mask[::-1].index(1)  # what stands behind the last scored token, delift leaves out
        given[name] = digest(text.removesuffix("\n"), encoded["input_ids"][:stop], mask[:stop])
    return given


def digest(text: str, tokens: list[int], mask: list[int]) -> dict[str, Any]:
    """A conversation in short: hashes of text, token ids and mask, and how many tokens and scored ones there are."""
    parts = (text, json.dumps(list(map(int, tokens))), json.dumps(list(map(int, mask))))
    hashes = [hashlib.sha256(part.encode()).hexdigest()[:16] for part in parts]
    return dict(zip(("text", "tokens", "mask"), hashes, strict=True)) | {"count": len(tokens), "scored": sum(mask)}


def with_delift(chat: ChatTemplate, record: Record) -> dict[str, Any]:
    """The same of what delift makes of it; all assistant turns scored."""
    turns = tuple(turn._replace(scored=turn.role == "assistant") for turn in record.turns)
    everything = Record(record.id, turns, record.raw, record.line, record.tools)
    asked = chat.target(everything)
    tokens = np.concatenate([asked.alone, asked.response]).tolist()
    return digest(chat.view(everything).text, tokens, [0] * len(asked.alone) + asked.scored.astype(int).tolist())


@pytest.fixture(scope="module")
def chat(tiny_model: Callable[..., Path]) -> ChatTemplate:
    return ChatTemplate(MARKED, ModelFile(tiny_model(chat_template=MARKED)).vocabulary)


def test_there_are_twenty() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert list(recorded) == list(CONVERSATIONS)
    assert len(recorded) >= 20


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_text_tokens_and_mask_are_those_that_transformers_gave(chat: ChatTemplate, name: str) -> None:
    assert with_delift(chat, CONVERSATIONS[name]) == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize(("name", "given"), json.loads(AXOLOTL.read_text()).items())
def test_tokens_and_mask_are_those_that_axolotl_gave(chat: ChatTemplate, name: str, given: dict[str, Any]) -> None:
    ours = with_delift(chat, CONVERSATIONS[name])
    assert {key: ours[key] for key in given} == given


def test_transformers_still_gives_them(chat: ChatTemplate) -> None:
    pytest.importorskip("transformers")
    assert with_transformers(chat.vocabulary) == json.loads(RECORDED.read_text())  # type: ignore[arg-type]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = gguf_models.write_model(Path(folder) / "tiny.gguf", chat_template=MARKED)
        RECORDED.write_text(json.dumps(with_transformers(ModelFile(path).vocabulary), indent=1) + "\n")
