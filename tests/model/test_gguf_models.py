"""The generated models are models to llama.cpp: they load, tokenize and decode, deterministically."""

from __future__ import annotations

import ctypes
import datetime
from collections.abc import Iterator
from pathlib import Path

import gguf_models as g
import jinja2
import llama_cpp as llama
import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

_silent = llama.llama_log_callback(lambda level, text, data: None)  # llama.cpp keeps the pointer


@pytest.fixture(autouse=True)
def _silence() -> None:
    llama.llama_log_set(_silent, ctypes.c_void_p(0))


class Loaded:
    """A model and a context of it through the low-level API."""

    def __init__(self, path: Path) -> None:
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        assert self.model, f"llama.cpp cannot load {path}"
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocab)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = 512, 512, 1, 1
        self.context = llama.llama_init_from_model(self.model, params)

    def close(self) -> None:
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def tokenize(self, text: str, special: bool = False, add_special: bool = False) -> list[int]:
        data = text.encode()
        buffer = (llama.llama_token * (len(data) + 8))()
        n = llama.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), add_special, special)
        return list(buffer[:n])

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        n = llama.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[:n]

    def text(self, tokens: list[int]) -> str:
        return b"".join(map(self.piece, tokens)).decode()

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Logits after the last token, evaluated alone."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        array = (llama.llama_token * len(tokens))(*tokens)
        assert llama.llama_decode(self.context, llama.llama_batch_get_one(array, len(tokens))) == 0
        row = llama.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(row, (self.n_vocab,)).astype(np.float64)

    def log_probabilities(self, text: str) -> np.ndarray:
        logits = self.logits(self.tokenize(text, special=True, add_special=True))
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


@pytest.fixture(params=["bpe", "spm"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loaded]:
    model = Loaded(g.write_model(tmp_path / "tiny.gguf", tokenizer=request.param))
    yield model
    model.close()


def open_model(path: Path, request: pytest.FixtureRequest) -> Loaded:
    model = Loaded(path)
    request.addfinalizer(model.close)
    return model


TEXTS = ["The capital of France is Paris.", "x = 10\n\tif x:\n  pass\n", "naïve 日本 🙂", "  two spaces  "]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_give_the_text_back(loaded: Loaded, text: str) -> None:
    prefix = " " if llama.llama_vocab_type(loaded.vocab) == llama.LLAMA_VOCAB_TYPE_SPM else ""
    assert loaded.text(loaded.tokenize(text)) == prefix + text


def test_words_are_single_tokens(loaded: Loaded) -> None:
    assert len(loaded.tokenize(" The answer is the question")) < 8


def test_bpe_special_tokens(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = open_model(g.write_model(tmp_path / "m.gguf", vocab_extra=["<|tool|>"]), request)
    for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|tool|>"):
        [token] = model.tokenize(text, special=True)
        assert llama.llama_vocab_is_control(model.vocab, token)
        assert len(model.tokenize(text)) > 3, "record text never becomes a control token"
    [end] = model.tokenize("<|im_end|>", special=True)
    assert llama.llama_vocab_eot(model.vocab) == llama.llama_vocab_eos(model.vocab) == end
    assert llama.llama_vocab_is_eog(model.vocab, end)
    assert not llama.llama_vocab_get_add_bos(model.vocab)
    assert "▁" not in model.text(model.tokenize("a b"))


def test_spm_adds_bos_and_a_space_by_default(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = open_model(g.write_model(tmp_path / "m.gguf", tokenizer="spm"), request)
    bos, eos = llama.llama_vocab_bos(model.vocab), llama.llama_vocab_eos(model.vocab)
    assert (model.piece(bos), model.piece(eos)) == (b"<s>", b"</s>")
    assert llama.llama_vocab_get_add_bos(model.vocab)
    tokens = model.tokenize("answer", add_special=True)
    assert tokens[0] == bos
    assert model.text(tokens[1:]) == " answer"
    assert model.tokenize("</s>", special=True) == [eos]


def test_bos_and_space_as_told(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bpe = open_model(g.write_model(tmp_path / "bpe.gguf", add_bos=True), request)
    assert bpe.tokenize("a", add_special=True)[0] == llama.llama_vocab_bos(bpe.vocab)
    path = g.write_model(tmp_path / "spm.gguf", tokenizer="spm", add_bos=False, add_space_prefix=False)
    spm = open_model(path, request)
    assert spm.text(spm.tokenize("answer", add_special=True)) == "answer"


def test_deterministic(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    paths = [g.write_model(tmp_path / f"{i}.gguf", seed=seed) for i, seed in enumerate((0, 0, 1))]
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    a, b, c = (open_model(path, request) for path in paths)
    tokens = a.tokenize("The answer is")
    first = a.logits(tokens)
    assert np.array_equal(first, a.logits(tokens))
    assert np.array_equal(first, b.logits(tokens))
    assert not np.array_equal(first, c.logits(tokens))


def test_predictions_are_peaked_and_copied_from_the_context(loaded: Loaded) -> None:
    """Logits spread over a few nats; an example with the same answer makes the answer nats more likely."""
    question = "What is the answer to the question? The answer is"
    alone = loaded.log_probabilities(question)
    assert 1 < alone.std() < 6
    answers = [" Paris", " blue", " yes", " green", " two"]
    tokens = [loaded.tokenize("a" + answer)[-1] for answer in answers]
    shown = np.array([loaded.log_probabilities(f"{question}{answer}. {question}")[tokens] for answer in answers])
    same, other = np.diag(shown), shown[~np.eye(len(answers), dtype=bool)]
    assert same.mean() > alone[tokens].mean() + 2
    assert same.mean() > other.mean() + 1


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_number_formats(tmp_path: Path, request: pytest.FixtureRequest, dtype: str) -> None:
    exact = open_model(g.write_model(tmp_path / "f32.gguf"), request)
    model = open_model(g.write_model(tmp_path / "other.gguf", dtype=dtype), request)
    assert (tmp_path / "other.gguf").stat().st_size < 0.7 * (tmp_path / "f32.gguf").stat().st_size
    text = "The answer is the capital of"
    assert np.abs(exact.log_probabilities(text) - model.log_probabilities(text)).max() < 0.5


def test_split_files(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole = open_model(g.write_model(tmp_path / "whole.gguf"), request)
    first = g.write_model(tmp_path / "part.gguf", split=3)
    names = [f"part-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert sorted(p.name for p in tmp_path.glob("part*")) == names
    assert first.name == names[0]
    split = open_model(first, request)
    tokens = whole.tokenize("The answer is")
    assert np.array_equal(whole.logits(tokens), split.logits(tokens))


def test_metadata(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    metadata = {"general.name": "other", "test.flag": True, "test.share": 0.5}
    path = g.write_model(tmp_path / "m.gguf", metadata=metadata, n_ctx_train=4096, chat_template=None)
    model = open_model(path, request)
    assert llama.llama_model_n_ctx_train(model.model) == 4096
    assert llama.llama_model_chat_template(model.model, None) is None

    def value(key: str) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        assert llama.llama_model_meta_val_str(model.model, key.encode(), buffer, len(buffer)) > 0
        return buffer.value

    assert value("general.name") == b"other"
    assert value("test.flag") == b"true"
    assert value("test.share") == b"0.500000"


USER, ANSWER = {"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yes"}


def render(template: str, messages: list[dict[str, str]], cue: bool = False) -> str:
    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        messages=messages,
        add_generation_prompt=cue,
        bos_token="<s>",
        eos_token="</s>",
        raise_exception=refuse,
        strftime_now=datetime.datetime(2031, 2, 3).strftime,
    )


SYSTEM_TEXT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
CHATML_TEXT = "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
LLAMA3_TEXT = (
    "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 03 Feb 2031\n\n<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>"
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (g.CHATML, CHATML_TEXT),
        (g.CHATML_DEFAULT_SYSTEM, SYSTEM_TEXT + CHATML_TEXT),
        (g.TRIM, CHATML_TEXT.replace(" Hi ", "Hi")),
        (g.BOS_IN_TEMPLATE, "<s>" + CHATML_TEXT),
        (g.LLAMA2, "<s>[INST] Hi [/INST] Yes </s>"),
        (g.LLAMA3_DATE, LLAMA3_TEXT),
        (g.THINK, CHATML_TEXT.replace("Yes", "<think>\n\n</think>\n\nYes")),
        (g.GEMMA, "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n"),
    ],
)
@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
def test_templates(tmp_path: Path, request: pytest.FixtureRequest, template: str, text: str, tokenizer: str) -> None:
    path = g.write_model(tmp_path / "m.gguf", tokenizer=tokenizer, chat_template=template)
    model = open_model(path, request)
    assert llama.llama_model_chat_template(model.model, None).decode() == template
    assert render(template, [USER, ANSWER]) == text
    end = next((end for end in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>") if end in template), None)
    if end is not None:
        [token] = model.tokenize(end, special=True)[-1:]
        assert llama.llama_vocab_eot(model.vocab) == token
        assert llama.llama_vocab_is_eog(model.vocab, token)


def test_think_strips_the_thoughts_of_earlier_turns_only() -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}
    text = render(g.THINK, [USER, thought, USER, thought], cue=True)
    assert text.count("<think>") == text.count("hm") == 1
    assert text.index("hm") > text.rindex(" Hi ")
    assert text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (g.GEMMA, [{"role": "system", "content": "x"}, USER]),
        (g.GEMMA, [USER, USER]),
        (g.LLAMA2, [USER, USER]),
    ],
)
def test_templates_that_refuse(template: str, messages: list[dict[str, str]]) -> None:
    with pytest.raises(jinja2.TemplateError):
        render(template, messages)


def test_a_system_message_is_kept() -> None:
    system = {"role": "system", "content": "Be brief."}
    for template in (g.CHATML, g.CHATML_DEFAULT_SYSTEM, g.LLAMA2, g.LLAMA3_DATE):
        assert render(template, [system, USER, ANSWER]).count("Be brief.") == 1
