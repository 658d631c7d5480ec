"""Tiny llama-architecture GGUF models, written in milliseconds, that llama.cpp really loads and decodes.

The weights are random with an induction head in them: what followed a token in the context becomes likely
after it. So an example in front of a prompt changes the probabilities of the response as it does in a real
model (a record before itself helps most, others help a little or harm), and a test that mixes up contexts
fails.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, LlamaFileType, TokenType

# Chat templates. No newline stands between the blocks, so that they render alike under every setting of
# Jinja2's trim_blocks and lstrip_blocks.

_TURNS = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
)
_CUE = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

CHATML = _TURNS + _CUE
"""ChatML without a default system message."""

CHATML_DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}" + CHATML
)
"""ChatML that adds a system message where the conversation has none, as SmolLM2 does."""

TRIM = CHATML.replace("message['content']", "message['content'] | trim")
"""ChatML that strips white space around every message."""

BOS_IN_TEMPLATE = "{{ bos_token }}" + CHATML
"""ChatML that prints the BOS token itself: the tokenizer must not add a second one."""

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set preamble = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}"
    "{% else %}{% set preamble = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "{% if turn['role'] == 'user' and loop.index0 % 2 == 0 %}"
    "{{ bos_token + '[INST] ' + (preamble if loop.first else '') + turn['content'] | trim + ' [/INST]' }}"
    "{% elif turn['role'] == 'assistant' and loop.index0 % 2 == 1 %}"
    "{{ ' ' + turn['content'] | trim + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "{% endfor %}"
)
"""Llama-2 style: `[INST] ... [/INST]`, BOS before every user turn, EOS as the end of turn."""

LLAMA3_DATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set preamble = messages[0]['content'] | trim %}{% set turns = messages[1:] %}"
    "{% else %}{% set preamble = '' %}{% set turns = messages %}{% endif %}"
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{{ 'Today Date: ' + (strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024') }}"
    "{{ '\\n\\n' }}"
    "{{ preamble + '<|eot_id|>' }}"
    "{% for turn in turns %}"
    "{{ '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ turn['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
"""Llama-3 style header tokens, with a system message that tells today's date."""

THINK = (
    "{% set seen = namespace(user=-1) %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% set seen.user = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% set parts = message['content'].split('</think>') %}"
    "{% set answer = parts[-1].lstrip('\\n') %}"
    "{% set thought = parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '' %}"
    "{% if loop.index0 > seen.user %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ answer }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}" + _CUE
)
"""Qwen3 style: earlier assistant turns lose their thoughts, the last one gets a think block, empty or not."""

GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
"""Gemma style: refuses a system message, calls the assistant `model`."""

_CONTROL = re.compile(r"<\|\w+\|>|<(?:start|end)_of_turn>")
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")

# What the vocabularies are trained on: common words, question words, digits.
_TEXT = """
The model reads the question and writes the answer. What is the capital of France? The capital of France is
Paris. How many apples are there in the basket? There are three apples in the basket. Which of these words
is a colour? Red, green and blue are colours. Tell me who wrote the book that you read last week. She wrote
a long story about a small town by the sea. If a train leaves at 10 and arrives at 12, how long does the
journey take? It takes 2 hours. Give an example of a sentence in which the first word is a verb. Read the
following passage, then answer the question. The weather was cold, but they went for a walk in the park with
their dog. He said that he would be there before five. Add 12 and 30 to get 42. Is this review positive or
negative? The film was good, and the actors were very good. Translate this sentence into another language.
You can use your own words. Write a function that returns the sum of two numbers. Some people think that it
is better to work from home, while others like to be in an office every day. The answer is yes. The answer
is no. I think the right choice is the second one, because the other ones are not true.
"""
_N_MERGES = 300
_ROPE_BASE = 1e6


def _train_merges(words: Mapping[tuple[str, ...], int], n: int) -> list[tuple[str, str]]:
    """The first n merges of byte-pair encoding on counted words; ties go to the greater pair."""
    counts = dict(words)
    merges: list[tuple[str, str]] = []
    while len(merges) < n:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged: dict[tuple[str, ...], int] = {}
        for word, count in counts.items():
            symbols: list[str] = []
            for symbol in word:
                # A symbol that was itself just merged is longer than best[0], so it never merges twice here.
                if symbols and (symbols[-1], symbol) == best:
                    symbols[-1] += symbol
                else:
                    symbols.append(symbol)
            merged[tuple(symbols)] = merged.get(tuple(symbols), 0) + count
        counts = merged
    return merges


@cache
def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in byte order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    stand_in = {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [stand_in.get(byte, chr(byte)) for byte in range(256)]


@cache
def bpe_merges() -> list[tuple[str, str]]:
    characters = byte_characters()
    words = Counter(re.findall(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+", _TEXT))
    spelled = {tuple(characters[b] for b in word.encode()): count for word, count in words.items()}
    return _train_merges(spelled, _N_MERGES)


@cache
def _spm_merges() -> list[tuple[str, str]]:
    words = Counter("▁" + word for word in re.findall(r"[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]", _TEXT))
    return _train_merges({tuple(word): count for word, count in words.items()}, _N_MERGES)


def _add_vocabulary(
    writer: gguf.GGUFWriter, tokens: list[tuple[str, TokenType]], scores: list[float] | None
) -> dict[str, int]:
    """Write the token list (and scores) and return each token's id."""
    ids = {text: i for i, (text, _) in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise ValueError("a token occurs twice")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([int(kind) for _, kind in tokens])
    if scores is not None:
        writer.add_token_scores(scores)
    return ids


def _special_tokens(
    template: str | None, extra: Iterable[str], basic: Iterable[str], user_defined: Iterable[str] = ()
) -> list[tuple[str, TokenType]]:
    """Control tokens: the basic ones, those that the template prints, the caller's.

    Think tags are user-defined tokens, as in Qwen3: llama.cpp finds them in any text.
    """
    printed = _CONTROL.findall(template or "")
    found_anywhere = list(dict.fromkeys(user_defined))
    control = [text for text in dict.fromkeys([*basic, *printed, *extra]) if text not in found_anywhere]
    special = [(text, TokenType.CONTROL) for text in control]
    special += [(text, TokenType.USER_DEFINED) for text in found_anywhere]
    if template is not None and "<think>" in template:
        tags = [text for text in ("<think>", "</think>") if text not in found_anywhere]
        special += [(text, TokenType.USER_DEFINED) for text in tags]
    return special


def add_bpe(
    writer: gguf.GGUFWriter, template: str | None, extra: Iterable[str], user_defined: Iterable[str] = ()
) -> int:
    merges = bpe_merges()
    pieces = dict.fromkeys([*byte_characters(), *(a + b for a, b in merges)])
    basic = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bos = "<|endoftext|>"
    if template is not None and "start_header_id" in template:
        bos = "<|begin_of_text|>"
        basic.append(bos)
    tokens = [(piece, TokenType.NORMAL) for piece in pieces] + _special_tokens(template, extra, basic, user_defined)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    ids = _add_vocabulary(writer, tokens, None)
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(ids[bos])
    end = next((text for text in _TURN_ENDS if text in (template or "")), "<|im_end|>")
    writer.add_eos_token_id(ids[end])
    writer.add_eot_token_id(ids[end])
    return len(tokens)


def _add_spm(
    writer: gguf.GGUFWriter, template: str | None, extra: Iterable[str], user_defined: Iterable[str] = ()
) -> int:
    merges = _spm_merges()
    merged = list(dict.fromkeys(a + b for a, b in merges))
    characters = ["▁", *(chr(c) for c in range(0x21, 0x7F)), "é", "ü"]
    tokens = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    unscored = len(tokens)
    tokens += [(piece, TokenType.NORMAL) for piece in [*merged, *characters]]
    # The earlier the merge, the better the score; single characters come after every merge, as in Llama-2.
    scores = [0.0] * unscored + [-float(rank) for rank in range(len(tokens) - unscored)]
    special = _special_tokens(template, extra, (), user_defined)
    tokens += special
    scores += [0.0] * len(special)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    ids = _add_vocabulary(writer, tokens, scores)
    writer.add_bos_token_id(ids["<s>"])
    writer.add_eos_token_id(ids["</s>"])
    writer.add_unk_token_id(ids["<unk>"])
    end = next((text for text in _TURN_ENDS if text in (template or "")), None)
    if end is not None:
        writer.add_eot_token_id(ids[end])
    return len(tokens)


def _weights(n_vocab: int, n_layer: int, n_embd: int, n_head: int, n_ff: int, seed: int) -> dict[str, np.ndarray]:
    """Named float32 weights [out, in] of a model that repeats from its context, with noise.

    Half of a token's state is a random code of the token, the other half takes the code of the token before
    it (the attention of block 0, one position back through the rotary angles); the last number is constant.
    The later blocks look for earlier positions whose previous token is the present one and add the code of
    the token found there, rotated by M: an induction head. The output matrix is the code rotated by M, so
    what was found becomes likely, while the present token's own code gives every token random preferences.
    """
    rng = np.random.default_rng(seed)
    half, n_dim = (n_embd - 1) // 2, n_embd // n_head
    code, before, constant = slice(0, half), slice(half, 2 * half), n_embd - 1

    def noise(rows: int, columns: int, scale: float) -> np.ndarray:
        return rng.normal(0.0, scale / np.sqrt(columns), (rows, columns))

    angles = _ROPE_BASE ** (-np.arange(0, n_dim, 2) / n_dim)
    slow = np.repeat(angles < 0.02, 2)  # components that positions hardly turn, fit for comparing contents
    rotation = np.linalg.qr(rng.normal(size=(half, half)))[0]
    embedding: np.ndarray = np.zeros((n_vocab, n_embd))
    embedding[:, code] = rng.normal(size=(n_vocab, half))
    embedding[:, code] *= np.sqrt(half) / np.linalg.norm(embedding[:, code], axis=1, keepdims=True)
    embedding[:, constant] = 3.0
    output = np.zeros((n_vocab, n_embd))
    output[:, code] = 0.3 * embedding[:, code] @ rotation.T

    weights: dict[str, np.ndarray] = {"token_embd.weight": embedding}
    for layer in range(n_layer):
        query, key = noise(n_embd, n_embd, 0.2), noise(n_embd, n_embd, 0.2)
        value, into = np.zeros((n_embd, n_embd)), np.zeros((n_embd, n_embd))
        mixed = np.linalg.qr(rng.normal(size=(n_embd, n_embd)))[0][:, :half]
        value[:, code] = mixed
        for head in range(n_head):
            rows = slice(head * n_dim, (head + 1) * n_dim)
            if layer == 0:  # the score at a distance of D positions is the sum of cos((D - 1) * angle)
                query[rows, constant] += 2.0 * np.ravel(np.stack([np.cos(angles), -np.sin(angles)]), "F")
                key[rows, constant] += np.tile([2.0, 0.0], n_dim // 2)
            else:
                sample = slow[:, None] * rng.normal(size=(n_dim, half)) * 2.2 / np.sqrt(half)
                query[rows, code] += sample
                key[rows, before] += sample
        if layer == 0:
            into[before] = 0.8 * mixed.T
        else:
            into[code] = 4.0 * rotation @ mixed.T
        block: dict[str, np.ndarray] = {
            "attn_norm": np.ones(n_embd),
            "attn_q": query,
            "attn_k": key,
            "attn_v": value,
            "attn_output": into,
            "ffn_norm": np.ones(n_embd),
            "ffn_gate": noise(n_ff, n_embd, 1.0),
            "ffn_up": noise(n_ff, n_embd, 1.0),
            "ffn_down": noise(n_embd, n_ff, 0.2),
        }
        weights |= {f"blk.{layer}.{name}.weight": matrix for name, matrix in block.items()}
    weights["output_norm.weight"] = np.ones(n_embd)
    weights["output.weight"] = output
    return {name: matrix.astype(np.float32) for name, matrix in weights.items()}


def write_model(
    path: str | Path,
    *,
    tokenizer: str = "bpe",
    chat_template: str | None = "auto",
    vocab_extra: Iterable[str] = (),
    user_defined: Iterable[str] = (),
    add_bos: bool | None = None,
    add_space_prefix: bool | None = None,
    n_layer: int = 2,
    n_embd: int = 64,
    n_head: int = 4,
    n_ctx_train: int = 2048,
    seed: int = 0,
    dtype: str = "f32",
    metadata: Mapping[str, str | bool | int | float] | None = None,
    split: int = 1,
    tied: bool = False,
    delta: Mapping[str, np.ndarray] | None = None,
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a tiny model and return the path that llama.cpp loads.

    tokenizer: "bpe" (GPT-2 style, byte level) or "spm" (SentencePiece style, Llama-2).
    chat_template: a Jinja2 text, None for a model without one; "auto" is CHATML for bpe, LLAMA2 for spm. The
        control tokens that a template prints are in the vocabulary.
    vocab_extra: more control tokens; user_defined: tokens that llama.cpp finds in any text.
    add_bos, add_space_prefix: None leaves the key out, so that llama.cpp's defaults hold: neither for bpe,
        both for spm.
    dtype: of the matrices: f32, f16, bf16 or q8_0 (n_embd a multiple of 32).
    metadata: further keys, or other values for those written here.
    tied: predict with the matrix of token embeddings.
    delta: what is added to the matrices of these names, such as `Lora.delta`; more: further tensors.
    split: the number of files; more than one gives `stem-00001-of-0000N.gguf` and so on;
        the first is returned.
    """
    path = Path(path)
    if chat_template == "auto":
        chat_template = {"bpe": CHATML, "spm": LLAMA2}[tokenizer]
    n_ff = 2 * n_embd
    quantization = GGMLQuantizationType[dtype.upper()]

    writer = gguf.GGUFWriter(None, "llama")
    writer.add_name("tiny")
    file_type = "ALL_F32" if dtype == "f32" else f"MOSTLY_{dtype.upper()}"
    writer.add_file_type(int(LlamaFileType[file_type]))
    add = {"bpe": add_bpe, "spm": _add_spm}[tokenizer]
    n_vocab = add(writer, chat_template, vocab_extra, user_defined)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    if add_space_prefix is not None:
        writer.add_add_space_prefix(add_space_prefix)
    writer.add_vocab_size(n_vocab)
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_rope_dimension_count(n_embd // n_head)
    writer.add_rope_freq_base(_ROPE_BASE)
    writer.add_layer_norm_rms_eps(1e-5)
    kinds = {
        str: GGUFValueType.STRING,
        bool: GGUFValueType.BOOL,
        int: GGUFValueType.UINT32,
        float: GGUFValueType.FLOAT32,
    }
    for key, value in (metadata or {}).items():
        writer.kv_data[0].pop(key, None)
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kinds[type(value)])

    weights = _weights(n_vocab, n_layer, n_embd, n_head, n_ff, seed)
    if tied:
        del weights["output.weight"]
    for name, change in (delta or {}).items():
        weights[name] = (weights[name] + change).astype(np.float32)
    weights |= more or {}
    if split > 1:
        writer.split_max_tensors = -(-len(weights) // split)
    for name, matrix in weights.items():
        kind = quantization if matrix.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(matrix, kind), raw_dtype=kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return writer.format_shard_names(path)[0] if split > 1 else path


@dataclass(frozen=True)
class Lora:
    """Low-rank changes of some matrices: a [rank, in] and b [out, rank] by the matrix's name."""

    factors: dict[str, tuple[np.ndarray, np.ndarray]]
    alpha: float

    def delta(self, scale: float = 1.0) -> dict[str, np.ndarray]:
        """What the adapter adds to each matrix, float32 [out, in]."""
        return {name: scale * self.alpha / len(a) * (b @ a) for name, (a, b) in self.factors.items()}


def lora(*, n_layer: int = 2, n_embd: int = 64, rank: int = 4, seed: int = 0, size: float = 0.3) -> Lora:
    """A random adapter of the query and down matrices of a tiny model."""
    rng = np.random.default_rng(seed)
    shapes = {"attn_q": (n_embd, n_embd), "ffn_down": (n_embd, 2 * n_embd)}
    factors = {}
    for layer in range(n_layer):
        for name, (rows, columns) in shapes.items():
            a, b = (rng.normal(0.0, size, shape).astype(np.float32) for shape in ((rank, columns), (rows, rank)))
            factors[f"blk.{layer}.{name}.weight"] = a, b
    return Lora(factors, alpha=2.0 * rank)


def write_adapter(
    path: Path,
    adapter: Lora,
    *,
    architecture: str = "llama",
    kind: str = "lora",
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write an adapter as llama.cpp's convert_lora_to_gguf.py does, with more tensors as they are."""
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, kind)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.alpha)
    for name, (a, b) in adapter.factors.items():
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
    for name, vector in (more or {}).items():
        writer.add_tensor(name, vector)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
