"""A GGUF file: what its metadata say, its vocabulary. No weights are loaded here."""

from __future__ import annotations

import ctypes
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..machine.kept import file_sha256
from .header import check_model, read_header
from .log import LOG
from .native import go_on_function
from .parts import parts_of

ORIGINAL_CONTEXT = "rope.scaling.original_context_length"
_NOT_TEXT = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
_QUANTIZATIONS = {
    value: name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_").removeprefix("ALL_")
    for name, value in vars(llama_cpp).items()
    if name.startswith("LLAMA_FTYPE_") and isinstance(value, int)
}


def digest_of(path: Path) -> tuple[str, int]:
    """SHA-256 in hexadecimal and number of a model's bytes, of all its files in turn."""
    parts = parts_of(path)
    return file_sha256(*parts), sum(part.stat().st_size for part in parts)


class Vocabulary:
    """Tokenizes as llama.cpp does. Holds only the vocabulary, not the weights."""

    def __init__(self, pointer: Any) -> None:
        self._vocab = pointer
        self.size: int = llama_cpp.llama_vocab_n_tokens(pointer)
        self.bos: int = llama_cpp.llama_vocab_bos(pointer)
        self.eos: int = llama_cpp.llama_vocab_eos(pointer)
        self.add_bos: bool = llama_cpp.llama_vocab_get_add_bos(pointer)
        # does a text get a space of its own in front?
        behind_guard = self.tokenize("\x01a", special=False)[len(self.tokenize("\x01", special=False)) :]
        self.adds_space: bool = behind_guard != self.tokenize("a", special=False)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; control tokens are recognised in it only when `special`."""
        return self.token_array(text, special=special).tolist()

    def token_array(self, text: str, *, special: bool) -> npt.NDArray[np.int32]:
        """The same as int32 [tokens], which for a long text takes a tenth of the memory."""
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 8
        while True:
            tokens = np.empty(room, np.int32)
            buffer = tokens.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
            count = llama_cpp.llama_tokenize(self._vocab, data, len(data), buffer, room, False, special)
            if count >= 0:
                return tokens[:count].copy()
            room = -count

    def is_control(self, token: int) -> bool:
        """Does this token stand in text only where `special` allows it (control tokens and `<unk>`)?"""
        return bool(llama_cpp.llama_vocab_get_attr(self._vocab, token) & _NOT_TEXT)

    def is_user_defined(self, token: int) -> bool:
        """Is this token found in any text, with or without `special`?"""
        return bool(llama_cpp.llama_vocab_get_attr(self._vocab, token) & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def swallows_space(self, token: int) -> bool:
        """Does white space in front of this token go?"""
        return bool(llama_cpp.llama_vocab_get_attr(self._vocab, token) & llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP)

    def piece(self, token: int) -> bytes:
        """The bytes that the token stands for in a text; a control token's are its name."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, room, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def is_end(self, token: int) -> bool:
        """Does this token end a generation (end of turn, of sequence, of message)?"""
        return llama_cpp.llama_vocab_is_eog(self._vocab, token)

    def text(self, token: int) -> str:
        """The token as the vocabulary writes it, for example `<|im_end|>`."""
        return (llama_cpp.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")


class ModelFile:
    """A GGUF file opened for its vocabulary and metadata alone, which takes a fraction of a second.

    Raises:
        InputError: llama.cpp cannot read it, or it is not a model that predicts each token from those before it.
    """

    def __init__(self, path: Path, *, digest: tuple[str, int] | None = None) -> None:
        self.path = path
        self._digest = digest
        self.parts = parts_of(path)
        self.header = read_header(path)
        check_model(path, self.header)
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = load(path, parameters)
        self.vocabulary = Vocabulary(llama_cpp.llama_model_get_vocab(self._model))
        if self.vocabulary.size == 0:
            raise InputError(f"model {path} has no vocabulary; delift needs a language model")
        self.architecture = self.metadata("general.architecture") or "unknown"
        if not self._predicts_the_next_token():
            raise InputError(
                f"model {path} ({self.architecture}) does not predict each token from those before it; delift scores "
                "with decoders, not with encoder, embedding and diffusion models"
            )
        context = self.header.of_architecture("context_length")
        if context is None:
            raise InputError(f"model {path} lacks {self.architecture}.context_length; it is damaged")
        self.context = int(context)
        template = llama_cpp.llama_model_chat_template(self._model, None)
        self.template: str | None = template.decode("utf-8", "replace") if template else None
        prefix = "tokenizer.chat_template."
        variants = {
            key.removeprefix(prefix): text for key, text in self.header.metadata.items() if key.startswith(prefix)
        }
        own = {} if self.template is None else {"default": self.template}
        self.templates: dict[str, str] = own | {name: text for name, text in variants.items() if isinstance(text, str)}

    def _predicts_the_next_token(self) -> bool:
        if llama_cpp.llama_model_has_encoder(self._model) or llama_cpp.llama_model_is_diffusion(self._model):
            return False
        return self.metadata(f"{self.architecture}.attention.causal") != "false"

    @property
    def keeps_states(self) -> bool:
        """Does it keep one state of a whole sequence in some layers, in place of a KV cell for each token?"""
        recurrent = llama_cpp.llama_model_is_recurrent(self._model)
        return bool(recurrent or llama_cpp.llama_model_is_hybrid(self._model))

    def metadata(self, key: str) -> str | None:
        """One value of the GGUF's metadata as text."""
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, room)
            if length < 0:
                return None
            if length < room:
                return buffer.value.decode("utf-8", "replace")
            room = length + 1

    def quantization(self) -> str | None:
        """The type of most weights as llama.cpp names it: Q4_1, BF16, …"""
        kind = self.metadata("general.file_type")
        return _QUANTIZATIONS.get(int(kind), kind) if kind else None

    def parameters(self) -> int:
        """How many weights the model has, by the shapes of its tensors."""
        return sum(math.prod(shape) for shape in self._tensors.values())

    def ties_embeddings(self) -> bool:
        """Does it predict with its matrix of token embeddings, having no other?"""
        return "output.weight" not in self._tensors

    @property
    def short_context(self) -> int | None:
        """Tokens above which it wants the second of two sets of rotary factors; None where it has one (Phi has two)."""
        if "rope_factors_long.weight" not in self._tensors:
            return None
        return int(self.header.of_architecture(ORIGINAL_CONTEXT) or self.context)

    @cached_property
    def _tensors(self) -> dict[str, tuple[int, ...]]:
        headers = (self.header, *map(read_header, self.parts[1:]))
        return {name: shape for header in headers for name, shape in header.tensors.items()}

    def identity(self) -> dict[str, Any]:
        """What makes this model this model: SHA-256 of its bytes, architecture, quantization."""
        sha256, size = self._digest or digest_of(self.path)
        self._digest = sha256, size
        named = Path(os.fsencode(self.path).decode("utf-8", "replace"))  # file names may be any bytes
        return {
            "file": named.name,
            "name": self.metadata("general.name") or named.stem,
            "sha256": sha256,
            "bytes": size,
            "architecture": self.architecture,
            "quantization": self.quantization(),
        }


def load(path: Path, parameters: Any) -> Any:
    """llama.cpp's model of a file; InputError with its reason where it cannot be loaded.

    It loads in a thread of its own while this one waits, which Ctrl-C ends; then the loading is ended too.
    """
    stop = ctypes.c_int(0)
    parameters.progress_callback = llama_cpp.llama_progress_callback(go_on_function())
    parameters.progress_callback_user_data = ctypes.addressof(stop)
    LOG.forget()
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(llama_cpp.llama_model_load_from_file, os.fsencode(path), parameters)
        try:
            model = loading.result()
        except BaseException:
            stop.value = 1
            if loaded := loading.result():
                llama_cpp.llama_model_free(loaded)
            raise
    if not model:
        raise InputError(f"model {path} cannot be loaded: {LOG.cause()}")
    return model
