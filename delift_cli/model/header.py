"""The header of a GGUF file, read by strict rules of its own before llama.cpp sees it.

llama.cpp ends the process on some values (a model without layers, an epsilon that is no number, 2^31 experts), which
no caller can catch. What passes here still may be refused by llama.cpp; what does not pass never reaches it.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL, _TEXT, _ARRAY = 7, 8, 9
_LONGEST_KEY = 65535
_MOST_DIMENSIONS = 4
_VERSIONS = (2, 3)
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_ALIGNMENTS = tuple(1 << bit for bit in range(3, 17))  # llama.cpp aborts on 1

# the most that any model has, with room: more is damage, and llama.cpp sizes arrays by it
_COUNTS = {
    "block_count": (1, 512),
    "context_length": (1, 2**31 - 1),
    "embedding_length": (1, 2**20),
    "feed_forward_length": (0, 2**24),
    "expert_feed_forward_length": (0, 2**24),
    "expert_count": (0, 1024),
    "expert_used_count": (0, 1024),
    "expert_shared_count": (0, 1024),
    "attention.head_count": (0, 2**14),
    "attention.head_count_kv": (0, 2**14),
    "attention.key_length": (1, 2**16),
    "attention.value_length": (1, 2**16),
    "rope.dimension_count": (0, 2**16),
}


class Array(NamedTuple):
    """An array of the metadata that is not read, for vocabularies are long: its elements' type and number.

    `values` holds the elements of a short one of numbers.
    """

    kind: int
    length: int
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself: metadata by key (text, numbers, truth values, `Array`), shapes by tensor."""

    metadata: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    def of_architecture(self, name: str) -> Any:
        """A value that belongs to the architecture, such as `block_count`."""
        return self.metadata.get(f"{self.architecture}.{name}")

    @property
    def file_type(self) -> int | None:
        kind = self.metadata.get("general.file_type")
        return kind if isinstance(kind, int) else None

    @property
    def kind(self) -> str:
        """`model`, `adapter` or what else the file says that it holds."""
        kind = self.metadata.get("general.type")
        return kind if isinstance(kind, str) else "model"


class _DamageError(Exception):
    """What is wrong with a file."""


class _Reader:
    """Takes values off a file's bytes, never past their end."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data, self._at, self._size = data, 0, len(data)

    def number(self, form: str) -> Any:
        size = struct.calcsize(form)
        self._need(size)
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += size
        return value

    def count(self, least: int) -> int:
        """A number of things of at least so many bytes each that are still to come."""
        value = int(self.number("<Q"))
        self._need(value * least)
        return value

    def text(self) -> str:
        length = self.count(1)
        found = self._data[self._at : self._at + length]
        self._at += length
        return found.decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise _DamageError(f"a value of the unknown type {kind}")
        value = self.number(_SCALARS[kind])
        if kind == _BOOL:
            if value > 1:
                raise _DamageError(f"a truth value of {value}")
            return bool(value)
        return value

    def _array(self) -> Array:
        kind = int(self.number("<I"))
        if kind == _TEXT:
            length = self.count(8)
            self._skip_texts(length)
            return Array(kind, length)
        if kind not in _SCALARS:
            raise _DamageError(f"an array of the unknown type {kind}")
        size = struct.calcsize(_SCALARS[kind])
        length = self.count(size)
        few = length <= _COUNTS["block_count"][1]
        values = struct.unpack_from(f"<{length}{_SCALARS[kind][1]}", self._data, self._at) if few else ()
        self._at += length * size
        return Array(kind, length, values)

    def _skip_texts(self, count: int) -> None:
        data, at, size = self._data, self._at, self._size
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at + 8 > size:
                raise _DamageError("it ends in its header")
            at += 8 + unpack(data, at)[0]
        self._at = at
        self._need(0)

    def _need(self, size: int) -> None:
        if self._at + size > self._size:
            raise _DamageError("it ends in its header")


def check_magic(path: Path) -> Path:
    """The path itself, if its file can be read and begins as a GGUF file does; else InputError."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"model {path} cannot be read: {error.strerror}") from None
    if magic != b"GGUF":
        raise InputError(f"model {path} is not a GGUF file (it does not begin with 'GGUF')")
    return path


def read_header(path: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        InputError: it cannot be read, is no GGUF file, or its header is damaged, with what is wrong.
    """
    check_magic(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(_Reader(data))
    except OSError as error:
        raise InputError(f"model {path} cannot be read: {error.strerror}") from None
    except _DamageError as error:
        raise InputError(f"model {path} is damaged: {error}; download it again") from None


def _read(reader: _Reader) -> Header:
    reader.number("<I")  # the magic
    version = reader.number("<I")
    if version not in _VERSIONS:
        raise _DamageError(f"its format is GGUF version {version}, known are {_VERSIONS[0]} and {_VERSIONS[1]}")
    tensor_count, key_count = reader.count(0), reader.count(0)
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = reader.text()
        if not key or len(key) > _LONGEST_KEY:
            raise _DamageError(f"a key of {len(key)} characters")
        if key in metadata:
            raise _DamageError(f"the key {key[:80]!r} occurs twice")
        metadata[key] = reader.value(int(reader.number("<I")))
    tensors: dict[str, tuple[int, ...]] = {}
    for _ in range(tensor_count):
        name, dimensions = reader.text(), int(reader.number("<I"))
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise _DamageError(f"the tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(int(reader.number("<Q")) for _ in range(dimensions))
        reader.number("<I")
        reader.number("<Q")
        tensors[name] = shape
    return Header(metadata, tensors)


def check_model(path: Path, header: Header) -> None:
    """Refuse a header that no language model has.

    Raises:
        InputError: with the key and its value.
    """
    metadata, architecture = header.metadata, header.metadata.get("general.architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"[\w.-]{1,64}", architecture, re.ASCII):
        raise InputError(f"model {path} does not say its architecture; it is no model that llama.cpp runs")
    if header.kind == "adapter":
        raise InputError(f"{path} is a LoRA adapter; give the model that it belongs to with -m, and it with --lora")
    if header.kind in ("mmproj", "imatrix", "controlvector"):
        raise InputError(f"{path} is not a language model but a file of the kind {header.kind}")
    for key, value in metadata.items():
        if key.startswith(f"{architecture}."):
            _check_value(path, key, key.removeprefix(f"{architecture}."), value)
    experts, used = (metadata.get(f"{architecture}.expert_{name}", 0) for name in ("count", "used_count"))
    if used > experts or (experts and not used):
        raise InputError(f"model {path} is damaged: it uses {used} of {experts} experts")
    alignment = metadata.get("general.alignment", 32)
    if alignment not in _ALIGNMENTS or isinstance(alignment, float):
        raise InputError(f"model {path} is damaged: general.alignment is {_shown(alignment)}, not a power of two")
    _check_vocabulary(path, metadata)
    if not header.tensors:
        raise InputError(f"model {path} holds no weights")


def _check_value(path: Path, key: str, name: str, value: Any) -> None:
    values = value.values if isinstance(value, Array) else (value,)
    bounds = _COUNTS.get(name)
    if isinstance(value, Array) and name.startswith("expert_") and name.endswith("count"):
        raise InputError(f"model {path} is damaged: {key} is an array, not one number")
    for each in values:
        number = isinstance(each, int | float) and not isinstance(each, bool)
        if bounds and not (number and isinstance(each, int) and bounds[0] <= each <= bounds[1]):
            wanted = f"a whole number from {bounds[0]:,} to {bounds[1]:,}"
            raise InputError(f"model {path} is damaged: {key} is {_shown(each)}, not {wanted}")
        if number and (not math.isfinite(each) or (isinstance(each, int) and each >= 2**31)):
            raise InputError(f"model {path} is damaged: {key} is {_shown(each)}")
        if name == "rope.scaling.type" and each not in _ROPE_SCALINGS:
            raise InputError(f"model {path}: {key} is {_shown(each)}, known are {', '.join(_ROPE_SCALINGS)}")
        if name.endswith("epsilon") and not (isinstance(each, float) and 0 <= each < 1):
            raise InputError(f"model {path} is damaged: {key} is {_shown(each)}, not a small positive number")


def _check_vocabulary(path: Path, metadata: dict[str, Any]) -> None:
    tokenizer, tokens = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokenizer, str) or tokenizer in ("none", "no_vocab") or not isinstance(tokens, Array):
        raise InputError(f"model {path} has no vocabulary; delift needs a language model")
    if tokens.kind != _TEXT or not tokens.length:
        raise InputError(f"model {path} is damaged: tokenizer.ggml.tokens is not a list of texts")
    for key, value in metadata.items():
        if key.endswith("_token_id") and (isinstance(value, bool) or not isinstance(value, int)):
            raise InputError(f"model {path} is damaged: {key} is {_shown(value)}, not a token's number")
    for name in ("scores", "token_type"):
        beside = metadata.get(f"tokenizer.ggml.{name}")
        if beside is not None and not (isinstance(beside, Array) and beside.length == tokens.length):
            raise InputError(f"model {path} is damaged: tokenizer.ggml.{name} does not have one value for each token")
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise InputError(f"model {path} is damaged: tokenizer.chat_template is not a text")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
