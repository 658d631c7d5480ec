"""Random-weight GGUF files with the shapes and vocabulary sizes of common models, to measure speed with.

Their answers mean nothing; their cost is that of the real model. From the root of the repository:

    python -m tests.bench.shapes qwen2-0.5b q8_0 /tmp/qwen2-0.5b.q8_0.gguf
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFValueType, LlamaFileType, TokenType

from delift_cli.model.llama import quantize
from tests.bench.baselines import Session, Settings
from tests.gguf_models import CHATML, LLAMA3_DATE, bpe_merges, byte_characters


@dataclass(frozen=True)
class Shape:
    """What decides the cost of a model; the output matrix is the embedding in all of them."""

    arch: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int
    rope_base: float
    qkv_bias: bool
    pre_tokenizer: str
    chat_template: str
    controls: tuple[str, ...]
    """Control tokens, the last of the vocabulary: BOS (or what stands in for it) first, end of turn last."""

    @property
    def n_dim(self) -> int:
        return self.n_embd // self.n_head

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and NumPy shapes, in file order."""
        n_kv = self.n_head_kv * self.n_dim
        yield "token_embd.weight", (self.n_vocab, self.n_embd)
        for layer in range(self.n_layer):
            block = f"blk.{layer}."
            yield block + "attn_norm.weight", (self.n_embd,)
            for name, rows in (("q", self.n_embd), ("k", n_kv), ("v", n_kv)):
                yield f"{block}attn_{name}.weight", (rows, self.n_embd)
                if self.qkv_bias:
                    yield f"{block}attn_{name}.bias", (rows,)
            yield block + "attn_output.weight", (self.n_embd, self.n_embd)
            yield block + "ffn_norm.weight", (self.n_embd,)
            yield block + "ffn_gate.weight", (self.n_ff, self.n_embd)
            yield block + "ffn_up.weight", (self.n_ff, self.n_embd)
            yield block + "ffn_down.weight", (self.n_embd, self.n_ff)
        yield "output_norm.weight", (self.n_embd,)


SHAPES = {
    "qwen2-0.5b": Shape(
        arch="qwen2",
        n_layer=24,
        n_embd=896,
        n_head=14,
        n_head_kv=2,
        n_ff=4864,
        n_vocab=151_936,
        rope_base=1e6,
        qkv_bias=True,
        pre_tokenizer="qwen2",
        chat_template=CHATML,
        controls=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    ),
    "llama3.2-1b": Shape(
        arch="llama",
        n_layer=16,
        n_embd=2048,
        n_head=32,
        n_head_kv=8,
        n_ff=8192,
        n_vocab=128_256,
        rope_base=5e5,
        qkv_bias=False,
        pre_tokenizer="llama-bpe",
        chat_template=LLAMA3_DATE,
        controls=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
}


def _vocabulary(n: int) -> tuple[list[str], list[str]]:
    """n byte-level BPE tokens and their merges: a trained head, then compounds of its pieces."""
    merges = dict.fromkeys(bpe_merges())
    pieces = dict.fromkeys([*byte_characters(), *(a + b for a, b in merges)])
    compounds = [a + b for a, b in merges]
    inner = [piece for piece in compounds if not piece.startswith("Ġ")]  # no token crosses words
    for head in compounds:  # grows on the way
        for tail in inner:
            if len(pieces) == n:
                return list(pieces), [" ".join(pair) for pair in merges]
            if head + tail not in pieces:
                pieces[head + tail] = None
                merges[head, tail] = None
                compounds.append(head + tail)
    raise AssertionError("the compounds never end")


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights under which activations stay of order one and logits spread over about two nats."""
    if len(shape) == 1:
        return np.ones(shape, np.float32) if "norm" in name else rng.normal(0, 0.1, shape).astype(np.float32)
    scale = (2.0 if name.startswith("token_embd") else 1.0) / np.sqrt(shape[1])
    matrix = np.empty(shape, np.float16)
    rows = max(1, 2**22 // shape[1])
    for start in range(0, shape[0], rows):
        part = matrix[start : start + rows]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) * np.float32(scale)
    return matrix


def write_shape(path: str | Path, shape: Shape, seed: int = 0) -> Path:
    """Write the model as F16 (vectors as F32), one tensor in memory at a time."""
    writer = gguf.GGUFWriter(None, shape.arch)
    writer.add_name(f"random {shape.arch}")
    writer.add_file_type(int(LlamaFileType.MOSTLY_F16))
    writer.add_context_length(32_768)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.n_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(shape.pre_tokenizer)
    pieces, merges = _vocabulary(shape.n_vocab - len(shape.controls))
    writer.add_token_list([*pieces, *shape.controls])
    writer.add_token_types([int(TokenType.NORMAL)] * len(pieces) + [int(TokenType.CONTROL)] * len(shape.controls))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(pieces))
    writer.add_eos_token_id(shape.n_vocab - 1)
    writer.add_eot_token_id(shape.n_vocab - 1)
    writer.add_key_value("tokenizer.chat_template", shape.chat_template, GGUFValueType.STRING)

    rng = np.random.default_rng(seed)
    for name, size in shape.tensors():
        kind = np.dtype(np.float32 if len(size) == 1 else np.float16)
        writer.add_tensor_info(name, size, kind, int(np.prod(size)) * kind.itemsize)
    writer.write_header_to_file(Path(path))
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, size in shape.tensors():
        writer.write_tensor_data(_random(rng, name, size))
    writer.close()
    return Path(path)


def make(out: str | Path, shape: Shape, ftype: str, seed: int = 0) -> Path:
    """Write the model in any number format that llama.cpp converts to: f16, bf16, q8_0, q4_0, ..."""
    if ftype == "f16":
        return write_shape(out, shape, seed)
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as folder:
        half = write_shape(Path(folder) / "f16.gguf", shape, seed)
        quantize(half, Path(out), ftype, threads=os.cpu_count() or 1)
    return Path(out)


def check(path: str | Path, shape: Shape, settings: Settings | None = None) -> float:
    """Decode 64 tokens; return the mean entropy in nats of the predictions of the last 8.

    Raises ValueError if the vocabulary is not the shape's or a prediction is not finite.
    """
    settings = replace(settings or Settings(), n_ctx=128)
    model = Session(path, settings)
    try:
        if model.n_vocab != shape.n_vocab:
            raise ValueError(f"{path}: {model.n_vocab} tokens instead of {shape.n_vocab}")
        if model.tokenize(shape.controls[-1]) != [shape.n_vocab - 1]:
            raise ValueError(f"{path}: {shape.controls[-1]} is not one token")
        tokens = np.random.default_rng(0).integers(0, shape.n_vocab, 64).tolist()
        model.decode(tokens, 0, range(56, 64))
        logits = model.logits(8)
    finally:
        model.close()
    if not np.isfinite(logits).all():
        raise ValueError(f"{path}: predictions are not finite")
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return float(-(probabilities * np.log(probabilities)).sum(axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("ftype")
    parser.add_argument("out")
    arguments = parser.parse_args()
    started = time.perf_counter()
    path = make(arguments.out, SHAPES[arguments.shape], arguments.ftype)
    seconds = time.perf_counter() - started
    entropy = check(path, SHAPES[arguments.shape])
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s, entropy {entropy:.2f} nats")


if __name__ == "__main__":
    main()
