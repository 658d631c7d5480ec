"""A subset on the hub, with a card that says how it was made."""

from __future__ import annotations

from typing import Any

from ..cache.contents import settings_in_words
from ..data import hub
from .subset import Subset

_ENDINGS = {"array": "json", "csv;": "csv", "csv|": "csv"}


_OWN = "chosen with [DELIFT](https://arxiv.org/abs/2411.04425)"  # a card with this is one of these


def publish(subset: Subset, destination: str, command: str, *, force: bool = False, **form: Any) -> str:
    """Put a subset on the hub as `destination` ("hf:owner/name"); the address of what was put there.

    Args:
        command: how it was made, as a shell takes it. force: replace what another put there. form: see
            `Subset.render`.
    """
    name = f"data/train.{_ENDINGS.get(subset.form(), subset.form())}"
    files = {name: subset.render(**form), "README.md": card(subset, destination, name, command).encode()}
    found = subset.as_dict()
    message = f"{found['selected']:,} of {found['pool']:,} records, chosen by delift"
    return hub.push(files, destination, message, None if force else _OWN.encode())


def card(subset: Subset, destination: str, file: str, command: str) -> str:
    """The data set's README.md: what it is, the model, command, objective, seed and figures."""
    found, manifest = subset.as_dict(), subset.pool.cache.manifest
    model = manifest["model"]
    facts = {
        "records": f"{found['selected']:,} of {found['pool']:,} in {manifest['examples']['source']}",
        "model that was asked": f"{model['name']}, weights {manifest['weights']['type']}, sha256 {model['sha256']}",
        "chat template": manifest["template"]["name"],
        "settings": settings_in_words(manifest["settings"]),
        "command": f"`{command}`",
        "asked for": found["asked"],
        "method": found["method"],
        "objective": _with_parameters(found["objective"], found["parameters"]),
        "utility, kernel, self, count": ", ".join(str(found[name]) for name in ("utility", "kernel", "self", "count")),
        "seed": "none, nothing was random" if found["seed"] is None else found["seed"],
        "value": f"{found['value']:.4f}, of the whole pool {found['whole_pool']:.4f}",
        "tokens": f"{found['tokens']:,}",
    }
    rows = "\n".join(f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in facts.items())
    title = destination.removeprefix("hf:")
    return f"""\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: {file}
tags:
- delift
- data-selection
---

# {title}

A subset of instruction data, {_OWN} by how much each record, shown in
context, helps a model with the others. The records are as they came in; the licence is that of their source.

| | |
|---|---|
{rows}
"""


def _with_parameters(objective: str, parameters: dict[str, float]) -> str:
    return ", ".join([objective, *(f"{name} {value:g}" for name, value in parameters.items())])
