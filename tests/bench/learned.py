"""Other ways to learn the pairs that were not scored than the planner's own, for `tests.bench.budget`."""

from __future__ import annotations

import warnings

import numpy as np

from delift_cli.budget.measured import HELD_OUT, RANDOM, Scored

HIDDEN, EPOCHS = 100, 20  # of NN-CIFT's network


def network(
    known: np.ndarray, example: np.ndarray, target: np.ndarray, embeddings: np.ndarray, seed: int
) -> np.ndarray:
    """NN-CIFT's way (arXiv 2502.09969, section 3): a network of one hidden layer on the embeddings of both records.

    Args:
        known: float64 [n, n], utilities of the pairs of `example` and `target`, chosen by chance, and of self-pairs.
        embeddings: float32 [n, d].

    It is trained on the known pairs for 20 passes; all others are what it says. Needs scikit-learn.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    n = len(known)
    scale = known[example, target].std() or 1.0
    model = MLPRegressor(
        hidden_layer_sizes=(HIDDEN,), max_iter=EPOCHS, random_state=seed, tol=0.0, n_iter_no_change=EPOCHS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after its 20 passes, as wanted
        model.fit(np.hstack([embeddings[example], embeddings[target]]), known[example, target] / scale)
    guessed = np.array([model.predict(np.hstack([np.tile(row, (n, 1)), embeddings])) for row in embeddings]) * scale
    guessed[example, target] = known[example, target]
    np.fill_diagonal(guessed, np.diag(known))
    return guessed


def additive(scored: Scored, shape: tuple[int, int]) -> np.ndarray:
    """Shrunken example and target effects."""
    n, m = shape
    keep = scored.example != scored.target
    J, I, y = scored.example[keep], scored.target[keep], scored.utility[keep].astype(float)  # noqa: E741
    mean = y[scored.source[keep] == RANDOM].mean() if (scored.source == RANDOM).any() else y.mean()
    a, b = np.zeros(n), np.zeros(m)
    for _ in range(20):
        a = np.bincount(J, y - mean - b[I], n) / (np.bincount(J, minlength=n) + 3)
        b = np.bincount(I, y - mean - a[J], m) / (np.bincount(I, minlength=m) + 3)
    return mean + a[:, None] + b


def trees(scored: Scored, similarity: np.ndarray, features: np.ndarray, seed: int) -> np.ndarray | None:
    """Gradient-boosted trees on similarities, shrunken effects and record features; needs scikit-learn."""
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError:
        return None
    n, m = similarity.shape
    keep = (scored.example != scored.target) & (scored.source != HELD_OUT)
    J, I, y = scored.example[keep], scored.target[keep], scored.utility[keep]  # noqa: E741
    # Effects without the pair itself, so that a pair's own value does not leak into its features.
    mean = y.mean()

    def effect(rows: np.ndarray, at: np.ndarray, loo: bool) -> np.ndarray:
        total, count = np.bincount(rows, y - mean, n), np.bincount(rows, minlength=n).astype(float)
        total, count = total[at], count[at]
        return (total - (y - mean) * loo) / (count - loo + 3) if loo else total / (count + 3)

    def columns(j: np.ndarray, i: np.ndarray, loo: bool) -> np.ndarray:
        return np.column_stack([similarity[j, i], effect(J, j, loo), effect(I, i, loo), features[j], features[i]])

    model = HistGradientBoostingRegressor(max_iter=200, learning_rate=0.06, random_state=seed)
    model.fit(columns(J, I, True), y)
    every_j, every_i = (a.ravel() for a in np.indices((n, m)))
    return model.predict(columns(every_j, every_i, False)).reshape(n, m)
