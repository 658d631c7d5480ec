"""Log-probabilities against float64 NumPy."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
import pytest

from delift_cli.model.logprob import token_logprobs


def expected(logits: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], tokens: npt.NDArray[np.int32]) -> np.ndarray:
    exact = logits.astype(np.float64)
    top = exact.max(1, keepdims=True)
    normalizer = top[:, 0] + np.log(np.exp(exact - top).sum(1))
    return exact[rows, tokens] - normalizer[rows]


def check(logits: npt.NDArray[np.float32], rows: list[int], tokens: list[int], tolerance: float = 3e-7) -> np.ndarray:
    places, wanted = np.array(rows, np.int64), np.array(tokens, np.int32)
    given = token_logprobs(logits, places, wanted)
    assert given.dtype == np.float64
    assert given.shape == (len(tokens),)
    np.testing.assert_allclose(given, expected(logits, places, wanted), rtol=1e-12, atol=tolerance)
    return given


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 1000, 49152, 151_937])
@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 100.0])
def test_random_logits(vocabulary: int, scale: float) -> None:
    rng = np.random.default_rng(vocabulary)
    logits = (rng.normal(size=(5, vocabulary)) * scale + rng.normal() * scale).astype(np.float32)
    rows = [0, 0, 0, 1, 2, 3, 3, 4]
    tokens = rng.integers(0, vocabulary, len(rows))
    tokens[-1] = logits[4].argmax()
    given = check(logits, rows, tokens.tolist())
    assert (given <= 1e-12).all()


def test_one_row_asked_for_every_token_sums_to_one() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 5000)).astype(np.float32) * 4
    given = check(logits, [0] * 5000, list(range(5000)))
    assert np.exp(given).sum() == pytest.approx(1.0, abs=1e-7)


def test_every_argument_of_the_exponential() -> None:
    """Two tokens, one x below the other: ln p of the upper is -ln(1 + e^x)."""
    below = np.concatenate([[0.0], np.geomspace(1e-7, 120.0, 20_000)]).astype(np.float32)
    logits = np.stack([np.zeros_like(below), -below], 1)
    given = token_logprobs(logits, np.arange(len(below)), np.zeros(len(below), np.int32))
    exact = -np.log1p(np.exp(-below.astype(np.float64)))
    # the exponential is good to 2 units in the last place of a float32, and so is the sum
    np.testing.assert_allclose(given, exact, rtol=0, atol=2.5e-7)
    given = token_logprobs(logits, np.arange(len(below)), np.ones(len(below), np.int32))
    np.testing.assert_allclose(given, exact - below.astype(np.float64), rtol=0, atol=2.5e-7)


@pytest.mark.parametrize("shift", [-1e6, -1e4, 0.0, 1e4, 1e6])
def test_shifted_far_from_zero(shift: float) -> None:
    logits = np.full((2, 77), shift, np.float32)
    given = check(logits, [0, 1], [0, 76])
    np.testing.assert_allclose(given, -np.log(77), atol=1e-6)


def test_one_logit_far_above_the_others() -> None:
    logits = np.full((3, 1000), -1e4, np.float32)
    logits[0, 7] = 1e4
    logits[1, 999] = 500.0
    logits[2, 0] = np.finfo(np.float32).max
    given = check(logits, [0, 0, 1, 1, 2], [7, 8, 999, 0, 0])
    assert given[[0, 2, 4]].tolist() == [0.0, 0.0, 0.0]
    assert given[1] == -2e4


@pytest.mark.parametrize("vocabulary", [3, 16, 1000])
def test_masked_tokens(vocabulary: int) -> None:
    """-inf is a probability of nothing, wherever in the row it stands."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, vocabulary)).astype(np.float32)
    logits[0, 0] = logits[1, -1] = -np.inf
    logits[2, 1:] = -np.inf
    logits[3, ::2] = -np.inf
    last = vocabulary - 1
    with np.errstate(divide="ignore"):
        given = check(logits, [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, last, 0, 1, 0, 1])
    assert given[4] == 0.0
    assert np.isneginf(given[[0, 3, 5, 6]]).all()
    assert np.isfinite(given[[1, 2, 4, 7]]).all()


@pytest.mark.parametrize("vocabulary", [2, 16, 1000])
def test_nonsense_is_not_hidden(vocabulary: int) -> None:
    """What a model with overflowing activations gives must not come out as a probability."""
    logits = np.full((1, vocabulary), np.nan, np.float32)
    assert not np.isfinite(token_logprobs(logits, np.array([0]), np.array([1], np.int32)))
    logits[:] = -np.inf
    assert not np.isfinite(token_logprobs(logits, np.array([0]), np.array([1], np.int32)))


def test_on_a_foreign_buffer_without_a_copy_and_without_a_change() -> None:
    rng = np.random.default_rng(2)
    buffer = (ctypes.c_float * (6 * 333))(*rng.normal(size=6 * 333))
    logits = np.ctypeslib.as_array(buffer).reshape(6, 333)
    before = logits.copy()
    check(logits, [0, 1, 2, 3, 4, 5, 5], [1, 2, 3, 4, 5, 6, 332])
    assert np.array_equal(logits, before)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(64, 4999)).astype(np.float32)
    every = token_logprobs(logits, np.arange(64), np.arange(64, dtype=np.int32))
    for row in range(64):
        one = token_logprobs(logits[row : row + 1], np.array([0]), np.array([row], np.int32))
        assert one[0] == every[row]


def test_nothing() -> None:
    given = token_logprobs(np.empty((0, 100), np.float32), np.empty(0, np.int64), np.empty(0, np.int32))
    assert given.shape == (0,)
