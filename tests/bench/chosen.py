"""Choices from some pairs of a block whose utilities are all known, and what they are worth: for anchors and growth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from delift_cli.budget import partial_block, plan
from delift_cli.budget.measured import HELD_OUT, Rows, Scored, nothing_scored, rows_of
from delift_cli.budget.proposals import propose
from delift_cli.budget.trust import quality
from delift_cli.submodular.kernel import dense_kernel, factored_kernel
from delift_cli.submodular.select import select
from tests.bench.budget import synthetic
from tests.bench.large import joined

SHARES = (0.1, 0.3)
WHOLE = 5_000  # records up to which the full matrix is made
SAMPLED = 400  # targets that larger pools are valued on
DRAWS = 200  # random subsets

Source = Callable[[np.ndarray, np.ndarray], np.ndarray]
Value = Callable[[np.ndarray], str]
Choice = Callable[[int], np.ndarray]
Texts = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Known:
    """A block of n examples and m targets, with a source of its utilities.

    Attributes:
        texts: prompts and responses of the examples; targets: those of the targets, None for the same records.
        embeddings: float32 [e, n, d] of the records of a pool against itself. base: as `propose` takes it.
        value: of a subset, to be printed.
    """

    name: str
    source: Source
    value: Value
    texts: Texts
    targets: Texts | None = None
    embeddings: np.ndarray | None = None
    base: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.texts[0]), len((self.targets or self.texts)[0])

    @property
    def keys(self) -> tuple[np.ndarray, np.ndarray]:
        n, m = self.shape
        return np.arange(n), np.arange(n) if self.targets is None else np.arange(n, n + m)

    def proposals(self, pairs: int) -> Any:
        points = None if self.embeddings is None else (self.embeddings, self.embeddings)
        return propose(self.texts, self.targets, pairs, *self.keys, points, self.base)

    def choice(self, rows: Rows, factors: Sequence[np.ndarray] | None = None) -> Choice:
        """Facility location over what is known of some pairs, and factors of the rest or nothing."""
        left, right = factors or [np.zeros((size, 0)) for size in self.shape]
        example, target = self.keys
        kernel = factored_kernel(*rows, left, right, example_group=example, target_group=target)
        return lambda k: select(kernel, k).indices


def from_matrix(name: str, U: np.ndarray, texts: Texts, **given: Any) -> Known:
    """A block that is known as a matrix."""

    def source(example: np.ndarray, target: np.ndarray) -> np.ndarray:
        return U[example, target].astype(np.float32)

    return Known(name, source, on_all(U, square=given.get("targets") is None), texts, **given)


def generated(n: int) -> Known:
    """Generated records; those of a small pool with all of their pairs."""
    prompts, responses, source = synthetic(n, 0)
    if n <= WHOLE:
        example, target = np.indices((n, n))
        value = on_all(source(example.ravel(), target.ravel()).reshape(n, n))
    else:
        value = on_sampled(source, n)
    return Known("generated", source, value, (prompts, responses))


def by_budget(known: Known, pairs: int) -> Choice:
    """Chooses after so many pairs, as `delift score --budget` and `delift select` do it."""
    proposals, scored = known.proposals(pairs), nothing_scored()
    for left in range(plan.rounds_for(known.shape), 0, -1):
        scored = joined(scored, plan.next_round(proposals, scored, pairs, rounds_left=left), known.source)
    model, held = plan.fit_scored(proposals, scored, 0), scored.source == HELD_OUT
    found = quality(model.predict(scored.example[held], scored.target[held]), scored.utility[held])
    if not found.trusted:
        return known.choice(rows_of(scored, known.shape[0]))
    if partial_block.hint(known.shape):
        return known.choice(partial_block.rows_with_estimates(scored, model, *known.keys))
    return known.choice(rows_of(scored, known.shape[0]), model.factors())


def by_neighbours(known: Known, pairs: int) -> Choice:
    """Chooses after so many pairs of nearest neighbours, and of each record with itself; the rest counts as nothing."""
    n, m = known.shape
    own = np.arange(n) * (m + 1) if known.targets is None else np.empty(0, np.int64)
    near = plan._near_pairs(known.proposals(pairs), own, pairs - len(own), np.random.default_rng(0))
    example, target = (near // m).astype(np.int32), (near % m).astype(np.int32)
    scored = Scored(example, target, known.source(example, target), np.zeros(len(near), np.uint8))
    return known.choice(rows_of(scored, n))


def on_all(U: np.ndarray, *, square: bool = True) -> Value:
    """What a subset is worth beside greedy on the full matrix; a square one is left its self-pairs out."""
    S = np.where(np.eye(len(U), dtype=bool), 0, U.clip(0)) if square else U.clip(0)
    kernel, rng = dense_kernel(S.astype(np.float32)), np.random.default_rng(1)
    found: dict[int, tuple[float, float]] = {}

    def value(chosen: np.ndarray) -> str:
        k = len(chosen)
        if k not in found:
            draws = [S[rng.choice(len(S), k, replace=False)].max(0).sum() for _ in range(DRAWS)]
            found[k] = float(np.mean(draws)), float(S[select(kernel, k).indices].max(0).sum())
        worth, (zero, one) = float(S[chosen].max(0).sum()), found[k]
        return f"{worth / one:8.3f} / {(worth - zero) / (one - zero):6.3f}"

    return value


def on_sampled(source: Source, n: int) -> Value:
    """What a subset gives to some targets, as a share of what all records give them."""
    targets = np.random.default_rng(0).choice(n, min(n, SAMPLED), replace=False)
    columns = [source(np.arange(n), np.full(n, i)).clip(0) for i in targets]
    for column, i in zip(columns, targets, strict=True):
        column[i] = 0
    whole = sum(float(column.max()) for column in columns)

    def value(chosen: np.ndarray) -> str:
        return f"{sum(float(column[chosen].max()) for column in columns) / whole:8.3f}         "

    return value
