"""Models that Ollama keeps: a manifest names the layers of a model, each a file named by its digest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError
from ...kept import home
from .on_disk import Found

REGISTRY, LIBRARY, LATEST = "registry.ollama.ai", "library", "latest"  # what a short name leaves out
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+){0,3}(:[\w.-]+)?")


def folders() -> list[Path]:
    """Where Ollama keeps models: $OLLAMA_MODELS, the user's, the service's."""
    own = os.environ.get("OLLAMA_MODELS")
    if own:
        return [Path(own)]
    mine = home()
    own_folder = [mine / ".ollama"] if mine else []
    return [place / "models" for place in (*own_folder, Path("/usr/share/ollama/.ollama"), Path("/var/lib/ollama"))]


def find(name: str) -> Path | None:
    """The GGUF file of `qwen2.5:7b`, `user/name:tag` or `host/user/name:tag`; None where Ollama has no such model.

    Raises:
        InputError: Ollama names it, but its file is not there.
    """
    name = name.removeprefix("ollama:")
    if not _NAME.fullmatch(name):
        return None
    parts, _, tag = name.partition(":")
    steps = parts.split("/")
    if any(step in (".", "..") for step in (*steps, tag)):
        return None
    place = {1: [REGISTRY, LIBRARY], 2: [REGISTRY]}.get(len(steps), [])
    for folder in folders():
        manifest = folder.joinpath("manifests", *place, *steps, tag or LATEST)
        if manifest.is_file():
            return _blob(folder, manifest, name)
    return None


def found() -> Iterator[Found]:
    """Every model that Ollama's manifests name and whose file is there."""
    for folder in folders():
        manifests = folder / "manifests"
        for manifest in sorted(path for path in manifests.glob("*/*/*/*") if path.is_file()):
            host, user, model, tag = manifest.relative_to(manifests).parts
            short = [] if (host, user) == (REGISTRY, LIBRARY) else [user] if host == REGISTRY else [host, user]
            name = "/".join([*short, model]) + ("" if tag == LATEST else f":{tag}")
            try:
                yield Found(name, _blob(folder, manifest, name), "Ollama")
            except InputError:
                continue


def _blob(folder: Path, manifest: Path, name: str) -> Path:
    try:
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"] == _MODEL_LAYER)
        match = _DIGEST.fullmatch(digest)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        match = None
    if match is None:
        raise InputError(f"model {name}: Ollama's manifest {manifest} names no model")
    blob = folder / "blobs" / f"sha256-{match[1]}"
    if not blob.is_file():
        raise InputError(f"model {name}: Ollama's file {blob} is not there; run: ollama pull {name}")
    return blob
