"""Kernels: stored rows to similarities, without a copy of the matrix."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from delift_cli.errors import InputError
from delift_cli.submodular.kernel import dense_kernel, factored_kernel, kernel_shape, utility_kernel, utility_range
from delift_cli.submodular.sweeps import TOP, aggregate, column_maxima, column_sums, row_maxima, similarities

EXAMPLES = np.array([0, 1, 2, 3, 3, 9, -1])
TARGETS = np.array([0, -1, 2, 3, 3, 7, 0, 1, 8, 8, -1])
EXCLUDED = (EXAMPLES[:, None] == TARGETS) & (EXAMPLES[:, None] >= 0)


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    return rng.random((7, 11)).astype(np.float32), rng.random(11).astype(np.float32)


def expected(utilities, transform):
    if transform == "clip":
        utilities = np.maximum(utilities, 0.0)
    if transform == "minmax":
        utilities = (utilities - utilities.min()) / (utilities.max() - utilities.min())
    return np.where(EXCLUDED, 0.0, utilities)


@pytest.mark.parametrize("transform", ["clip", "minmax", "raw"])
@pytest.mark.parametrize("utility", ["euclidean", "pmi"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_utilities_become_similarities(measured, dtype, utility, transform):
    matrix, base = measured[0].astype(dtype), measured[1]
    kernel = utility_kernel(matrix, base, utility, transform, example_group=EXAMPLES, target_group=TARGETS)
    sign = -1.0 if utility == "euclidean" else 1.0
    s = expected(sign * (matrix.astype(np.float64) - base), transform)
    np.testing.assert_allclose(similarities(kernel), s, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(similarities(kernel, [3]), s[[3]], rtol=1e-12, atol=1e-15)
    positive = np.maximum(s, 0.0)
    np.testing.assert_allclose(column_sums(kernel), positive.sum(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(column_maxima(kernel), positive.max(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(column_maxima(kernel, [5, 1]), positive[[5, 1]].max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(row_maxima(kernel), positive.max(axis=1), rtol=1e-12, atol=1e-15)
    assert kernel_shape(kernel) == (7, 11)


def test_every_float16_is_decoded():
    bits = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    finite = np.where(np.isfinite(bits), bits, np.float16(0.0))
    assert (similarities(dense_kernel(finite)) == finite.astype(np.float64)).all()


def test_long_rows_agree_with_numpy():
    matrix = np.random.default_rng(1).standard_normal((40, 3001)).astype(np.float32)
    kernel = dense_kernel(matrix)
    np.testing.assert_allclose(row_maxima(kernel), np.maximum(0.0, matrix.max(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(column_sums(kernel), np.maximum(matrix, 0).sum(axis=0, dtype=float), rtol=1e-9)
    low, high = utility_range(matrix, np.zeros(3001), "pmi")
    assert (low, high) == (matrix.min(), matrix.max())


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("transform", ["clip", "raw", "minmax"])
def test_measured_pairs_override_the_estimate(rank, transform):
    rng = np.random.default_rng(2)
    left, right = rng.standard_normal((7, rank)), rng.standard_normal((11, rank))
    known = rng.random((7, 11)) < 0.4
    values = rng.standard_normal((7, 11)).astype(np.float32)
    kernel = factored_kernel(
        np.concatenate([[0], np.cumsum(known.sum(axis=1))]),
        np.nonzero(known)[1],
        values[known],
        left,
        right,
        transform,
        example_group=EXAMPLES,
        target_group=TARGETS,
        value_range=(-2.0, 3.0),
    )
    utilities = np.where(known, values, left @ right.T)
    if transform == "minmax":
        utilities = (utilities + 2.0) / 5.0
    if transform != "raw":
        utilities = np.maximum(utilities, 0.0)
    s = np.where(EXCLUDED, 0.0, utilities)
    np.testing.assert_allclose(similarities(kernel), s, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(column_sums(kernel), np.maximum(s, 0).sum(axis=0), rtol=1e-5, atol=1e-6)


def test_memory_maps_are_used_in_place(tmp_path):
    path = tmp_path / "distance.npy"
    np.save(path, np.random.default_rng(3).random((1500, 1500), dtype=np.float32))
    mapped = np.load(path, mmap_mode="r")
    utility_range(mapped[:4], np.zeros(1500))  # compile outside of the measurement
    tracemalloc.start()
    kernel = utility_kernel(mapped, np.zeros(1500), example_group=range(1500), target_group=range(1500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.shares_memory(kernel.matrix, mapped)
    assert peak < 1_000_000  # the matrix has 9,000,000 bytes


def test_other_arrays_are_converted():
    integers = [[1, 2], [3, 4]]
    assert (similarities(dense_kernel(integers)) == np.array(integers)).all()
    transposed = np.arange(6.0).reshape(2, 3).T
    assert (similarities(dense_kernel(transposed)) == transposed).all()
    big_endian = np.arange(6.0).reshape(2, 3).astype(">f4")
    assert (similarities(dense_kernel(big_endian)) == big_endian).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: dense_kernel([1.0, 2.0]),
        lambda: dense_kernel([["a"]]),
        lambda: dense_kernel([[0.0, np.nan]]),
        lambda: dense_kernel(np.array([[0.0, np.nan]], np.float16)),
        lambda: dense_kernel(np.eye(2), example_group=[0, 1]),
        lambda: dense_kernel(np.eye(2), example_group=[0, 1], target_group=[0, 1, 2]),
        lambda: utility_kernel(np.eye(2), [0.0]),
        lambda: utility_kernel(np.eye(2), [0.0, 0.0], "cosine"),
        lambda: utility_kernel(np.eye(2), [0.0, 0.0], "pmi", "softmax"),
        lambda: factored_kernel([0, 1], [5], [1.0], np.zeros((1, 0)), np.zeros((3, 0))),
        lambda: factored_kernel([0, 0], [], [], np.zeros((1, 2)), np.zeros((3, 1))),
        lambda: factored_kernel([0, 0], [], [], np.zeros((1, 0)), np.zeros((3, 0)), "minmax"),
    ],
)
def test_bad_kernels_are_refused(call):
    with pytest.raises(InputError):
        call()


def test_the_best_few_of_each_target():
    s = np.random.default_rng(3).random((90, 40)) - 0.5
    top = aggregate(dense_kernel(s), TOP, range(10, 90), depth=4)
    np.testing.assert_array_equal(top, -np.sort(-np.maximum(0.0, s[10:]), axis=0)[:4])
