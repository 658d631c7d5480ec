"""Contexts and decoding: batches of many sequences over one KV cache, log-probabilities' raw material.

Nothing here knows what a record or a utility is.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import _ggml

from ..errors import InputError, RunError
from .adapter import Adapter
from .gguf import ORIGINAL_CONTEXT, ModelFile, load
from .log import LOG
from .processor import usable_threads

KV_TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2}
_KV_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 1.07, "q5_1": 0.75, "q5_0": 0.69, "q4_1": 0.63, "q4_0": 0.57}
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
VERSION: str = llama_cpp.__version__  # llama-cpp-python's
MAX_SEQUENCES = 256  # llama.cpp's own limit for one context

_GPU_DEVICE = 1  # ggml_backend_dev_type


@dataclass(frozen=True)
class Settings:
    """How llama.cpp runs a model.

    Attributes:
        gpu_layers: layers to offload; None for all where this build can offload, otherwise none.
        threads: CPU threads; None for all physical cores that this process may use (see `processor`).
        batch: tokens in one `llama_decode` call.
        kv_type: storage of the KV cache, a key of `KV_TYPES`.
        flash_attention: auto (where the device supports it), on or off.
        split_model: spread one model over all GPUs, for one that does not fit a single GPU.
        adapters: LoRA adapters that count in every context, each with its scale.
        states: None where sequences share the cells of what they have in common; a number for sequences that are
            copied whole, and then how many stand beside each other behind the same prefix.
        long_factors: take the second of a model's two sets of rotary factors; see `ModelFile.short_context`.
    """

    gpu_layers: int | None = None
    threads: int | None = None
    batch: int = 512
    kv_type: str = "f16"
    flash_attention: str = "auto"
    split_model: bool = False
    adapters: tuple[Adapter, ...] = ()
    states: int | None = None
    long_factors: bool = False

    @property
    def sequences(self) -> int:
        """Sequences of a context: each has room for a whole state, which may take tens of megabytes."""
        return MAX_SEQUENCES if self.states is None else self.states + 2

    def resolved_gpu_layers(self) -> int:
        if self.gpu_layers is not None:
            return self.gpu_layers
        return 999 if llama_cpp.llama_supports_gpu_offload() else 0

    def resolved_threads(self) -> int:
        if self.threads is not None:
            return self.threads
        return usable_threads()


def gpus() -> list[str]:
    """Descriptions of the GPUs that this build of llama.cpp can use, in its order; empty for a CPU build."""
    if not llama_cpp.llama_supports_gpu_offload():
        return []
    ggml = _ggml.libggml
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_type.argtypes = ggml.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    devices = [ggml.ggml_backend_dev_get(at) for at in range(ggml.ggml_backend_dev_count())]
    return [
        ggml.ggml_backend_dev_description(device).decode()
        for device in devices
        if ggml.ggml_backend_dev_type(device) == _GPU_DEVICE
    ]


class _Weights:
    """A loaded model; freed when the last context over it is closed."""

    def __init__(self, file: ModelFile, settings: Settings, device: int | None) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = settings.resolved_gpu_layers()
        if device is not None:
            parameters.split_mode = llama_cpp.LLAMA_SPLIT_MODE_NONE
            parameters.main_gpu = device
        if file.short_context is not None:  # left to itself llama.cpp goes by the size of the context, not of a pair
            overrides = (llama_cpp.llama_model_kv_override * 2)()  # the last one, which is empty, ends the list
            overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT
            overrides[0].key = f"{file.architecture}.{ORIGINAL_CONTEXT}".encode()
            overrides[0].value.val_i64 = 1 if settings.long_factors else 2**31 - 1  # type: ignore[union-attr]
            parameters.kv_overrides = overrides
        self.pointer = load(file.path, parameters)
        self.users = 0
        try:  # freed with the model
            self.adapters = [(self._adapter(adapter), adapter.scale) for adapter in settings.adapters]
        except BaseException:
            llama_cpp.llama_model_free(self.pointer)
            raise

    def _adapter(self, adapter: Adapter) -> Any:
        LOG.forget()
        pointer = llama_cpp.llama_adapter_lora_init(self.pointer, os.fsencode(adapter.path))
        if not pointer:
            raise InputError(f"adapter {adapter.path} does not fit the model: {LOG.cause()}")
        return pointer

    def adapt(self, context: Any) -> None:
        """Let a context run with the adapters."""
        count = len(self.adapters)
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * count)(
            *(ctypes.cast(pointer, llama_cpp.llama_adapter_lora_p_ctypes) for pointer, _ in self.adapters)
        )
        scales = (ctypes.c_float * count)(*(scale for _, scale in self.adapters))
        if count and llama_cpp.llama_set_adapters_lora(context, pointers, count, scales) != 0:
            raise RunError(f"llama.cpp cannot run with the adapters: {LOG.cause()}")

    def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            llama_cpp.llama_model_free(self.pointer)


class Model:
    """Weights and one context whose KV cache many sequences share.

    Args:
        file: the model.
        settings: how to run it.
        cells: tokens that the KV cache must hold at one time.
        device: the GPU that holds all of it; None leaves that to llama.cpp.
        embeddings: give hidden states (`hidden_states`) in place of logits.

    Raises:
        InputError: llama.cpp cannot load the model.
        RunError: the context does not fit the memory.
    """

    def __init__(
        self,
        file: ModelFile,
        settings: Settings,
        *,
        cells: int,
        device: int | None = None,
        embeddings: bool = False,
    ) -> None:
        self._open(_Weights(file, settings, device), settings, cells, file.vocabulary.size, embeddings)

    def twin(self) -> Model:
        """A second context over the same weights, to be used by another thread."""
        twin = Model.__new__(Model)
        twin._open(self._weights, self.settings, self._cells, self.vocabulary_size, self._embeddings)
        return twin

    def _open(self, weights: _Weights, settings: Settings, cells: int, vocabulary_size: int, embeddings: bool) -> None:
        self.settings = settings
        self.vocabulary_size = vocabulary_size
        self._weights, self._cells, self._embeddings = weights, cells, embeddings
        weights.users += 1
        try:
            self._context = self._make_context(cells)
        except BaseException:
            weights.release()
            raise
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = _Batch(settings.batch)

    def _make_context(self, cells: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        # fewer tokens in a batch than sequences in a context, or in a context than in a batch, abort the process
        room = max(self.settings.batch, self.settings.sequences)
        parameters.n_ctx = -(-max(cells, room) // 256) * 256
        parameters.n_batch = parameters.n_ubatch = room
        parameters.n_seq_max = self.settings.sequences
        parameters.n_threads = parameters.n_threads_batch = self.settings.resolved_threads()
        parameters.type_k = parameters.type_v = KV_TYPES[self.settings.kv_type]
        parameters.flash_attn_type = FLASH_ATTENTION[self.settings.flash_attention]
        parameters.kv_unified = True  # a prefix's cells belong to many sequences without being copied
        parameters.swa_full = True  # sliding windows may not forget a shared prefix
        parameters.no_perf = True
        if self._embeddings:  # of every token: llama.cpp's own pooling forgets what an earlier batch held
            parameters.embeddings, parameters.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_NONE
        LOG.forget()
        context = llama_cpp.llama_init_from_model(self._weights.pointer, parameters)
        if not context:
            raise RunError(
                f"llama.cpp cannot make a context of {parameters.n_ctx:,} tokens: {LOG.cause()}; "
                "try a smaller --ctx or --batch, fewer --gpu-layers or another --kv-type"
            )
        self._weights.adapt(context)
        return context

    def close(self) -> None:
        """Free the context and, with the last context over them, the weights."""
        if self._context:
            llama_cpp.llama_free(self._context)
            self._weights.release()
            self._context = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def memory_bytes(self) -> int:
        """Bytes of weights, KV cache, states and logits together; forgets every sequence."""
        weights = llama_cpp.llama_model_size(self._weights.pointer)
        heads = llama_cpp.llama_model_n_head_kv(self._weights.pointer)
        width = llama_cpp.llama_model_n_embd(self._weights.pointer)
        head_width = width // max(1, llama_cpp.llama_model_n_head(self._weights.pointer))
        layers = llama_cpp.llama_model_n_layer(self._weights.pointer)
        keys = self._cells * layers * heads * head_width
        logits = self.settings.batch * self.vocabulary_size * 4
        return int(weights + 2 * keys * _KV_BYTES[self.settings.kv_type]) + logits + self._states_bytes()

    def _states_bytes(self) -> int:
        """Bytes of the whole states that the context has room for, by the state of one token."""
        if self.settings.states is None:
            return 0
        zero, one = np.zeros(1, np.int32), np.ones(1, np.int32)
        self.clear()
        self.decode(zero, zero, zero, one, np.zeros(1, np.bool_))
        state = llama_cpp.llama_state_seq_get_size(self._context, 0)
        self.clear()
        return int(state * self.settings.sequences)

    def clear(self) -> None:
        """Forget every sequence."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def copy_sequence(self, source: int, destination: int, length: int = -1) -> None:
        """Let `destination` begin with the first `length` tokens of `source`, or all of it; no cell is copied."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, destination, 0, length)

    def drop_sequence(self, sequence: int) -> None:
        """Forget one sequence; cells that another one shares stay."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def decode(
        self,
        tokens: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        first_sequence: npt.NDArray[np.int32],
        sequences: npt.NDArray[np.int32],
        outputs: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """Evaluate one batch.

        Args:
            tokens, positions: int32 [t], at most `settings.batch` of them.
            first_sequence, sequences: int32 [t]; token t belongs to the sequences
                first_sequence[t] … first_sequence[t] + sequences[t] - 1.
            outputs: bool [t], the tokens whose logits are wanted.

        Returns:
            float32 [outputs.sum(), vocabulary]: llama.cpp's own buffer, valid until the next call.

        Raises:
            RunError: llama.cpp failed, with its reason.
        """
        self._run(self._batch.fill(tokens, positions, first_sequence, sequences, outputs))
        rows = int(outputs.sum())
        if rows == 0:
            return np.empty((0, self.vocabulary_size), np.float32)
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(rows, self.vocabulary_size))

    def hidden_states(
        self, tokens: npt.NDArray[np.int32], positions: npt.NDArray[np.int32], sequence: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """Evaluate one batch of a model opened for embeddings; token t belongs to sequence[t] alone.

        Returns:
            float32 [t, width], each token's last hidden state behind the final norm, what the logits are computed
            from: llama.cpp's own buffer, valid until the next call.

        Raises:
            RunError: llama.cpp failed, with its reason.
        """
        one = np.ones(len(tokens), np.int32)
        self._run(self._batch.fill(tokens, positions, sequence, one, one.astype(np.bool_)))
        width = llama_cpp.llama_model_n_embd(self._weights.pointer)
        states = llama_cpp.llama_get_embeddings(self._context)
        if not states:
            raise RunError("llama.cpp gives no hidden states of this model")
        return np.ctypeslib.as_array(states, shape=(len(tokens), width))

    def _run(self, batch: Any) -> None:
        LOG.forget()
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            reason = "the KV cache is full" if code == 1 else LOG.cause()
            raise RunError(f"llama.cpp could not evaluate a batch of {batch.n_tokens} tokens: {reason}")


def open_models(file: ModelFile, settings: Settings, *, cells: int) -> list[Model]:
    """The contexts that score together: one on the CPU; two for each GPU, so that none waits for the host."""
    devices = gpus() if settings.resolved_gpu_layers() > 0 else []
    if not devices:
        return [Model(file, settings, cells=cells)]
    whole = [None] if settings.split_model or len(devices) == 1 else list(range(len(devices)))
    models = []
    for device in whole:
        models.append(Model(file, settings, cells=cells, device=device))
        models.append(models[-1].twin())
    return models


class _Batch:
    """A llama_batch over NumPy arrays.

    The sequences of a token are always consecutive numbers, so its list of them is a window into 0, 1, 2, …
    """

    def __init__(self, room: int) -> None:
        self._numbers = np.arange(MAX_SEQUENCES, dtype=np.int32)
        self._token = np.empty(room, np.int32)
        self._position = np.empty(room, np.int32)
        self._count = np.empty(room, np.int32)
        self._window = np.empty(room, np.uintp)
        self._output = np.empty(room, np.int8)
        batch = llama_cpp.llama_batch()
        batch.token = _pointer(self._token, batch, "token")
        batch.pos = _pointer(self._position, batch, "pos")
        batch.n_seq_id = _pointer(self._count, batch, "n_seq_id")
        batch.seq_id = _pointer(self._window, batch, "seq_id")
        batch.logits = _pointer(self._output, batch, "logits")
        self._batch = batch

    def fill(
        self,
        tokens: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        first_sequence: npt.NDArray[np.int32],
        sequences: npt.NDArray[np.int32],
        outputs: npt.NDArray[np.bool_],
    ) -> Any:
        size = len(tokens)
        self._token[:size] = tokens
        self._position[:size] = positions
        self._count[:size] = sequences
        self._window[:size] = self._numbers.ctypes.data + self._numbers.itemsize * first_sequence.astype(np.uintp)
        self._output[:size] = outputs
        self._batch.n_tokens = size
        return self._batch


def _pointer(array: npt.NDArray[Any], batch: Any, name: str) -> Any:
    return ctypes.cast(array.ctypes.data, dict(batch._fields_)[name])


# ---------------------------------------------------------------------- conversion


def quantize(source: Path, destination: Path, weights: str, *, threads: int) -> None:
    """Write a copy of a model with its weights in another type (`f32`, `f16`, `bf16`, `q8_0`, `q4_0`, …).

    Raises:
        RunError: llama.cpp failed, with its reason.
    """
    name = "LLAMA_FTYPE_ALL_F32" if weights == "f32" else f"LLAMA_FTYPE_MOSTLY_{weights.upper()}"
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, name)
    parameters.allow_requantize = True
    parameters.nthread = threads
    LOG.forget()
    code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(destination), ctypes.byref(parameters))
    if code != 0:
        raise RunError(f"llama.cpp could not convert {source} to {weights}: {LOG.cause()}")
