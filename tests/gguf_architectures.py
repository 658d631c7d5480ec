"""Tiny models of any architecture that the installed llama.cpp knows, with random weights.

What tensors an architecture has, and in which shapes, llama.cpp says itself when it makes a model from metadata
alone; nothing of that is written down here. Weights are scaled so that every part of the context counts in the
probabilities, though not as a trained model would count it.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
from gguf_models import CHATML, add_bpe

CONTEXT = 1024
WINDOW = 32
LAYERS_WITHOUT_ATTENTION = {  # layer 1 is recurrent, the others are not
    "plamo2", "jamba", "nemotron_h", "nemotron_h_moe", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear",
    "bailingmoe3", "kimi-k3", "glm5-next",
}  # fmt: skip
LATENT_ATTENTION = {
    "deepseek2", "deepseek32", "glm-dsa", "dots3note", "kimi-linear", "bailingmoe3", "kimi-k3", "glm5-next",
    "mistral4", "hy_v4",
}  # fmt: skip
LAYERS = {"llama4": 4, "gemma4": 5, "gemma3n": 22, "deepseek4": 4, "nemotron_h": 3, "nemotron_h_moe": 3, "hrm_text": 6}
WIDTHS = {"gemma4": (128, 2, 192), "gemma3n": (64, 1, 96), "deepseek4": (512, 8, 1024)}
ALTERNATING_WINDOWS = {
    "cohere2moe", "mimo2", "step35", "spark2_5", "muse-glimmer", "granite_swa", "dots3note", "maple",
}  # fmt: skip


class _Tensor(ctypes.Structure):
    """The beginning of ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
    )


class _Init(ctypes.Structure):
    """gguf_init_params."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class UnknownArchitectureError(Exception):
    """llama.cpp makes no model of this metadata; its reason."""


def metadata(architecture: str, vocabulary: int, *, experts: bool) -> dict[str, Any]:
    """Values for every key that an architecture may ask for; it ignores the others."""
    width, heads, inner = WIDTHS.get(architecture, (256, 2, 384))
    layers = LAYERS.get(architecture, 2)
    latent = architecture in LATENT_ATTENTION
    if latent:
        width, heads, inner = 128, 1, 192
    elif architecture in ("step35", "laguna"):
        width = 160
    elif architecture in ("qwen3", "muse-glimmer", "afmoe"):
        heads = 4
    head = width // heads
    every = range(layers)
    some_heads = [0 if layer == 1 else heads for layer in every]
    partly = architecture in LAYERS_WITHOUT_ATTENTION
    found: dict[str, Any] = {
        "vocab_size": vocabulary,
        "context_length": CONTEXT,
        "embedding_length": width,
        "features_length": width,
        "block_count": layers,
        "leading_dense_block_count": 1,
        "feed_forward_length": [0 if at <= 1 else inner for at in every] if "nemotron_h" in architecture else inner,
        "use_parallel_residual": False,
        "logit_scale": 1.0,
        "time_mix_extra_dim": 64,
        "time_decay_extra_dim": 128,
        "full_attention_interval": 2,
        "attention.head_count": some_heads if partly and architecture != "glm5-next" else heads,
        "attention.head_count_kv": some_heads if partly else 1 if architecture in ("deepseek4", "qwen3") else heads,
        "attention.max_alibi_bias": 8.0,
        "attention.clamp_kqv": 1.0,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.group_norm_epsilon": 1e-5,
        "attention.group_norm_groups": 8,
        "attention.q_lora_rank": 64 if architecture == "deepseek4" else 512,
        "attention.kv_lora_rank": 512,
        "attention.relative_buckets_count": 8,
        "attention.decay_lora_rank": 32,
        "attention.iclr_lora_rank": 32,
        "attention.value_residual_mix_lora_rank": 32,
        "attention.gate_lora_rank": 32,
        "token_shift_count": 1 if "qwen2" in architecture or architecture == "arwkv7" else 2,
        "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": [at % 2 for at in every] if architecture in ALTERNATING_WINDOWS else 2,
        "attention.indexer.head_count": heads if architecture == "minimax-m3" else 64,
        "attention.indexer.key_length": head if architecture == "qwen4exp" else 128,
        "attention.indexer.top_k": 131072,
        "attention.indexer.block_size": 4,
        "attention.indexer.kpool": 4,
        "attention.indexer.kpool_select_tail": True,
        "attention.indexer.local_blocks": 1,
        "rope.dimension_sections": [8, 12, 12, 0] if architecture == "bailingmoe3" else [head // 4] * 4,
        "rope.freq_base": 10000.0,
        "posnet.embedding_length": width,
        "posnet.block_count": layers,
        "convnext.embedding_length": width,
        "convnext.block_count": layers,
        "xielu.alpha_n": 1.0,
        "xielu.alpha_p": 1.0,
        "xielu.beta": 1.0,
        "xielu.eps": 1e-7,
        "ssm.inner_size": 256 if architecture in ("qwen3next", "qwen35", "qwen35moe", "qwen4exp") else 2 * width,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.time_step_rank": heads,
        "ssm.group_count": 0 if architecture == "plamo2" else 2,
        "kda.head_dim": 128,
        "kda.gate_lower_bound": -5.0,
        "wkv.head_size": head,
        "shortconv.l_cache": 3,
        "residual_scale": 3.5565588200778455 if architecture == "kimi-k3" else 1.0,
        "embedding_scale": 1.0,
        "attn_res.block_size": 12,
        "activation.situ_beta": 4.0,
        "activation.situ_linear_beta": 25.0,
        "interleave_moe_layer_step": 2,
        "altup.num_inputs": 4,
        "altup.active_idx": 0,
        "laurel.rank": 64,
        "embedding_length_per_layer_input": width // 2,
        "attention.shared_kv_layers": 0,
    }
    if latent:
        next_ = architecture == "glm5-next"
        found |= {
            "attention.key_length": 512 if next_ else 576,
            "attention.value_length": 512,
            "rope.dimension_count": 0 if next_ else 64,
            "attention.key_length_mla": 192,
            "attention.value_length_mla": 128,
        }
    elif architecture == "deepseek4":
        found |= {"attention.key_length": head, "attention.value_length": head, "rope.dimension_count": head // 2}
    elif architecture == "minimax-m3":
        found["rope.dimension_count"] = 64
    if experts:
        found |= {
            "expert_feed_forward_length": inner,
            "expert_shared_feed_forward_length": inner // 2,
            "expert_latent_length": inner,
            "moe_latent_size": inner,
            "expert_count": 4,
            "expert_used_count": 2,
            "expert_shared_count": 1,
            "expert_gating_func": 4 if architecture == "deepseek4" else 2,
            "expert_group_scale": 1.0,
            "experts_per_group": 1,
        }
    return found | _SPECIAL.get(architecture, lambda *_: {})(width, layers, vocabulary)


def _dots3note(width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "attention.kv_lora_rank_swa": 512,
        "attention.key_length_swa": 576,
        "attention.value_length_swa": 512,
        "attention.key_length_mla_swa": 192,
        "attention.value_length_mla_swa": 128,
        "rope.freq_base_swa": 10000.0,
        "attention.indexer.types": [0 if at % 2 else 1 for at in range(layers)],
    }


def _gemma4(width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "embedding_length_per_layer_input": width // 2,
        "attention.shared_kv_layers": 0,
        "attention.key_length_swa": width // 2,
        "attention.value_length_swa": width // 2,
        "rope.freq_base_swa": 10000.0,
        "attention.sliding_window_pattern": [at % 5 != 4 for at in range(layers)],
    }


def _hyper(width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 2,
        "hyper_connection.epsilon": 1e-6,
        "hyper_connection.low_rank": 8,
        "attention.compress_ratios": [4] * layers,
        "ple.layers": [0],
        "ple.ngram_size": 3,
        "ple.heads_per_ngram": 2,
        "ple.conv_kernel": 4,
        "ple.eos_token_id": 0,
        "embedding_length_per_layer_input": width // 4,
        "ple.layer_multipliers": np.array([1, 3, 5], np.uint64),
        "ple.head_offsets": np.arange(4, dtype=np.uint64) * np.uint64(vocabulary),
        "ple.head_vocab_sizes": np.full(4, vocabulary, np.uint64),
    }


def _deepseek4(width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "attention.output_group_count": 8,
        "attention.output_lora_rank": 32,
        "attention.compress_ratios": [0, 0, 4, 128],
        "attention.compress_rope_freq_base": 160000.0,
        "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 2,
        "hyper_connection.epsilon": 1e-6,
        "hash_layer_count": 0,
        "swiglu_clamp_exp": 10.0,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
    }


def _hy_v4(width: int, layers: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hyper_connection.count": 4,
        "hyper_connection.epsilon": 1e-6,
        "hyper_connection.magnitude": 2.0,
        "swiglu_clamp_exp": 10.0,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "attention.indexer.types": [0 if at % 2 else 1 for at in range(layers)],
    }


_SPECIAL: dict[str, Any] = {
    "dots3note": _dots3note,
    "gemma4": _gemma4,
    "qwen4exp": _hyper,
    "glm5-next": _hyper,
    "deepseek4": _deepseek4,
    "hy_v4": _hy_v4,
    "hrm_text": lambda *_: {"hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2},
    "maple": lambda *_: {"swiglu_clamp_exp": 7.0},
    "bailingmoe3": lambda *_: {"swiglu_clamp_exp": [0.0, 4.0], "swiglu_clamp_shexp": [0.0, 5.0]},
}


def write_architecture(
    path: Path, architecture: str, *, experts: bool = False, seed: int = 0, changes: dict[str, Any] | None = None
) -> Path:
    """Write a tiny model of an architecture, by llama.cpp's name for it.

    Args:
        experts: with a mixture of experts; many architectures have it always or never.
        changes: other metadata, without the architecture in front.

    Raises:
        UnknownArchitectureError: llama.cpp makes no model of it, with its reason.
    """
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_name(f"tiny {architecture}")
    writer.add_file_type(0)
    vocabulary = add_bpe(writer, CHATML, ())
    writer.add_chat_template(CHATML)
    for key, value in (metadata(architecture, vocabulary, experts=experts) | (changes or {})).items():
        _add(writer, key if key.startswith("xielu.") else f"{architecture}.{key}", value)
    rng = np.random.default_rng(seed)
    for name, shape, kind in _tensors(writer):
        values = _values(rng, name, shape)
        writer.add_tensor(name, values.astype({0: np.float32, 1: np.float16}[kind]))
    _write(writer, path)
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
    if isinstance(value, np.ndarray):
        writer.add_key_value(key, value.tolist(), gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT64)
    elif isinstance(value, list):
        writer.add_key_value(key, value, gguf.GGUFValueType.ARRAY, kinds[type(value[0])])
    else:
        writer.add_key_value(key, value, kinds[type(value)])


def _write(writer: gguf.GGUFWriter, path: Path) -> None:
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _base_library() -> Path:
    """The part of ggml that reads GGUF files."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    return next(path for path in sorted(folder.iterdir()) if "ggml-base" in path.name)


def _tensors(described: gguf.GGUFWriter) -> list[tuple[str, tuple[int, ...], int]]:
    """Name, shape and type of every tensor that llama.cpp wants for what a writer holds so far."""
    handle, name = tempfile.mkstemp(suffix=".gguf")
    os.close(handle)
    alone = gguf.GGUFWriter(None, described.arch)
    alone.kv_data = described.kv_data
    _write(alone, Path(name))
    library = ctypes.CDLL(str(_base_library()))
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, _Init]
    library.gguf_free.argtypes = [ctypes.c_void_p]
    library.ggml_get_name.restype = ctypes.c_char_p
    library.ggml_get_name.argtypes = [ctypes.c_void_p]
    found: dict[str, tuple[tuple[int, ...], int]] = {}

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    def take(tensor: int, _data: int) -> None:
        held = _Tensor.from_address(tensor)
        sizes = [int(size) for size in held.ne]
        while len(sizes) > 1 and sizes[-1] == 1:
            sizes.pop()
        found[library.ggml_get_name(tensor).decode()] = (tuple(reversed(sizes)), held.type)

    try:
        context = library.gguf_init_from_file(os.fsencode(name), _Init(True, None))
        library_llama = llama_cpp.llama_cpp._lib
        make = library_llama.llama_model_init_from_user
        make.restype = ctypes.c_void_p
        make.argtypes = [ctypes.c_void_p, type(take), ctypes.c_void_p, llama_cpp.llama_model_params]
        model = make(context, take, None, llama_cpp.llama_model_default_params())
        library.gguf_free(context)
    finally:
        os.unlink(name)
    if not model:
        raise UnknownArchitectureError(described.arch)
    llama_cpp.llama_model_free(ctypes.cast(model, llama_cpp.llama_model_p_ctypes))
    return [(name, *found[name]) for name in sorted(found)]


def _values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = rng.normal(size=shape)
    if "ssm_a" in name:  # a state decays, slowly enough to tell of an example after a prompt
        return -0.02 * np.abs(noise) - 0.01
    if name.endswith("scale"):  # of weights in four bits; these are not
        return np.ones(shape)
    if name.endswith(("time_mix_decay.weight", "time_mix_w0.weight")):
        return 0.1 * noise - 4.0
    if "norm" in name and name.endswith(".weight"):
        return 1.0 + 0.1 * noise
    if name.startswith("token_embd"):  # small, so that what the blocks add to it counts
        return 0.05 * noise
    if len(shape) == 1 or name.endswith(".bias"):
        return 0.1 * noise
    scale = 3.0 if name.startswith("output") else 1.0
    return scale * noise / np.sqrt(shape[-1])
