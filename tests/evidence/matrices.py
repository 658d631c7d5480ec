"""What every record of a pool does for held-out records: a cache of `delift score POOL --targets` as arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from delift_cli.errors import InputError

Floats = npt.NDArray[np.float64]


class Matrix(NamedTuple):
    """Utilities [examples, targets]: of distances, and of log-probabilities per token (nats)."""

    examples: list[str]
    targets: list[str]
    euclidean: Floats
    pmi: Floats
    base_loss: Floats  # [targets], nats per token without an example
    tokens: Floats  # [targets], of the response


def read_matrix(path: Path) -> Matrix:
    """The cache at `path`, whole.

    Raises:
        InputError: pairs are missing.
    """
    distance, logprob, base_distance, base_logprob, tokens = (
        np.load(path / f"{name}.npy").astype(np.float64)
        for name in ("distance", "logprob", "base_distance", "base_logprob", "response_tokens")
    )
    examples, targets = (
        [str(name) for name, _ in json.loads((path / f"{side}.ids.json").read_bytes())]
        for side in ("examples", "targets")
    )
    if missing := int(np.isnan(distance).any(axis=1).sum()):
        raise InputError(f"{path}: {missing} of {len(examples)} rows are not measured; score to the end first")
    return Matrix(
        examples,
        targets,
        base_distance - distance,
        logprob - base_logprob,
        -base_logprob,
        tokens,
    )


def save_matrix(matrix: Matrix, path: Path) -> None:
    """As one small file, figures of about three digits."""
    halves = {name: getattr(matrix, name).astype(np.float16) for name in ("euclidean", "pmi", "base_loss", "tokens")}
    np.savez_compressed(path, examples=np.array(matrix.examples), targets=np.array(matrix.targets), **halves)


def load_matrix(path: Path) -> Matrix:
    """What `save_matrix` wrote."""
    with np.load(path) as file:
        figures = (file[name].astype(np.float64) for name in ("euclidean", "pmi", "base_loss", "tokens"))
        return Matrix(file["examples"].tolist(), file["targets"].tolist(), *figures)
