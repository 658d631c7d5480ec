"""Models that Ollama keeps: a manifest names the layers of a model, each a file named by its digest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError
from ...machine.kept import home
from .on_disk import Found, matching

REGISTRY, LIBRARY, LATEST = "registry.ollama.ai", "library", "latest"  # what a short name leaves out
_LAYER = "application/vnd.ollama.image."
_LARGEST_TEMPLATE = 1 << 20  # bytes
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
        if os.path.isfile(manifest):  # Path.is_file raises where the service keeps its folder to itself
            return _blob(folder, manifest, name)
    return None


def found() -> Iterator[Found]:
    """Every model that Ollama's manifests name and whose file is there."""
    for folder in folders():
        for manifest, name in _manifests(folder):
            try:
                yield Found(name, _blob(folder, manifest, name), "Ollama")
            except InputError:
                continue


def templates_of(path: Path) -> dict[str, str]:
    """The templates, each once, that Ollama's manifests give to the model in this file, by the models' names."""
    folder = path.parent.parent
    if path.parent.name != "blobs" or not (folder / "manifests").is_dir():
        return {}
    templates: dict[str, str] = {}
    for manifest, name in _manifests(folder):
        if _digest(manifest, "model") != path.name.removeprefix("sha256-"):
            continue
        blob = folder / "blobs" / f"sha256-{_digest(manifest, 'template')}"
        try:
            with blob.open("rb") as file:
                text = file.read(_LARGEST_TEMPLATE).decode("utf-8")
        except (OSError, ValueError):
            continue
        if text.strip() and text not in templates.values():
            templates[name] = text
    return templates


def _manifests(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each manifest, and the name by which Ollama knows its model."""
    manifests = folder / "manifests"
    for manifest in filter(os.path.isfile, matching(manifests, "*/*/*/*")):
        host, user, model, tag = manifest.relative_to(manifests).parts
        short = [] if (host, user) == (REGISTRY, LIBRARY) else [user] if host == REGISTRY else [host, user]
        yield manifest, "/".join([*short, model]) + ("" if tag == LATEST else f":{tag}")


def _digest(manifest: Path, layer: str) -> str | None:
    """The digest of a manifest's first layer of this kind; None where it has none."""
    try:
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digest = next(entry["digest"] for entry in layers if entry["mediaType"] == _LAYER + layer)
        match = _DIGEST.fullmatch(digest)
    except (OSError, ValueError, KeyError, TypeError, StopIteration, RecursionError):
        return None
    return match[1] if match else None


def _blob(folder: Path, manifest: Path, name: str) -> Path:
    model, adapter = _digest(manifest, "model"), _digest(manifest, "adapter")
    if model is None:
        raise InputError(f"model {name}: Ollama's manifest {manifest} names no model")
    blob = folder / "blobs" / f"sha256-{model}"
    if not blob.is_file():
        raise InputError(f"model {name}: Ollama's file {blob} is not there; run: ollama pull {name}")
    if adapter is not None:
        raise InputError(
            f"model {name}: Ollama's manifest adds an adapter to it; "
            f"give both: -m {blob} --lora {folder / 'blobs' / f'sha256-{adapter}'}"
        )
    return blob
