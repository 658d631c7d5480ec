"""LoRA adapters in GGUF files: what changes of a model that was trained on, without its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..machine.kept import expanded, file_sha256
from .gguf import ModelFile
from .header import read_header


@dataclass(frozen=True)
class Adapter:
    """An adapter's file, how strongly it counts (1: as it was trained), and the SHA-256 of its bytes."""

    path: str
    scale: float
    sha256: str


def described(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """What a manifest's model says of them: nothing where there are none."""
    listed = {
        str(place): {"file": str(Path(adapter.path).resolve()), "scale": adapter.scale, "sha256": adapter.sha256}
        for place, adapter in enumerate(adapters)
    }
    return {"adapters": listed} if listed else {}


def found_again(model: dict[str, Any]) -> tuple[Adapter, ...]:
    """The adapters that a manifest's model names, from where they were.

    Raises:
        InputError: one of them is not there any more, or another file is.
    """
    found = []
    for entry in model.get("adapters", {}).values():
        path = Path(str(entry["file"]))
        if not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise InputError(
                f"the adapter that the cache was scored with, {path} (SHA-256 {entry['sha256'][:12]}…), is not there "
                "any more; put it back"
            )
        found.append(Adapter(str(path), float(entry["scale"]), entry["sha256"]))
    return tuple(found)


def read_adapters(choices: Sequence[str], file: ModelFile) -> tuple[Adapter, ...]:
    """The adapters that `--lora adapter.gguf[:scale]` names, for this model.

    Raises:
        InputError: a file that is no LoRA adapter of this architecture, or a scale that is no number.
    """
    return tuple(_read(choice, file) for choice in choices)


def _read(choice: str, file: ModelFile) -> Adapter:
    name, scale = choice, 1.0
    if not expanded(choice).exists() and (split := re.fullmatch(r"(.+):([^:/\\]*)", choice)):
        name = split.group(1)
        try:
            scale = float(split.group(2))
        except ValueError:
            raise InputError(f"--lora {choice}: {split.group(2)!r} is no scale; give adapter.gguf:0.5") from None
        if not math.isfinite(scale):
            raise InputError(f"--lora {choice}: the scale is not a finite number")
    path = expanded(name)
    if path.is_dir():
        raise InputError(
            f"--lora {choice}: {path} is a folder; "
            "llama.cpp's convert_lora_to_gguf.py makes a GGUF file of an adapter of PEFT"
        )
    if not path.is_file():
        raise InputError(f"--lora {choice}: there is no file {path}")
    header = read_header(path)
    kind = header.metadata.get("adapter.type")
    if header.kind != "adapter" or kind != "lora":
        what = "a model" if header.kind == "model" else f"a file of the kind {kind or header.kind}"
        raise InputError(f"--lora {choice}: {path} is {what}, not a LoRA adapter; convert_lora_to_gguf.py makes one")
    if header.architecture != file.architecture:
        raise InputError(
            f"--lora {choice}: {path} is for {header.architecture} models, and {file.path} is {file.architecture}"
        )
    if not any(name.endswith(".lora_a") for name in header.tensors):
        raise InputError(f"--lora {choice}: {path} changes no weights of the model; it was not converted whole")
    if "token_embd.weight.lora_a" in header.tensors and file.ties_embeddings():  # llama.cpp ends the process over it
        raise InputError(
            f"--lora {choice}: {path} changes the token embeddings, with which {file.path} also predicts, and "
            "llama.cpp cannot apply it to both; merge it into the model"
        )
    if dropped := [name for name in header.tensors if not name.endswith((".lora_a", ".lora_b"))]:
        raise InputError(
            f"--lora {choice}: {path} also changes {dropped[0]}{', …' if len(dropped) > 1 else ''}, which llama.cpp "
            "would leave out; merge it into the model"
        )
    if "adapter.alora.invocation_tokens" in header.metadata:
        raise InputError(f"--lora {choice}: {path} is an activated LoRA, which counts behind certain tokens only")
    return Adapter(str(path), scale, file_sha256(path))
