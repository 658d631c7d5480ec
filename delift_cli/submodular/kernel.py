"""Similarity kernels: rows of what the model said, turned into similarities while they are read.

A kernel is a matrix [example, target] whose entries are never all computed at once. Row j is read as it is
stored (float32 on disk), and each entry becomes a similarity on its way through the processor:

    s[j, i] = max(floor, slope * x[j, i] + offset[i])        s[j, i] = 0 where i is excluded for j

That one affine form holds every utility and transform (see `utility_kernel`). Two kinds of kernel differ only
in how a row is read: `DenseKernel` (every pair measured) and `FactoredKernel` (some pairs measured, the others
estimated). Both are named tuples, so that compiled code takes them apart at compile time; `sweeps.load_row` is
where they part ways.

No objective counts a similarity below zero. Sweeps therefore cut at zero, whatever the floor is; the floor
matters to those who look at single values (`similarities`).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numba import prange, types
from numba.extending import overload
from numpy.typing import ArrayLike, NDArray

from ..compiled import jit
from ..compressed import row_starts, rows_taken
from ..errors import InputError
from .mapped import copied

Array: TypeAlias = NDArray[Any]
Utility = Literal["euclidean", "pmi"]
Transform = Literal["clip", "minmax", "raw"]

# Reassociation lets LLVM keep several vector accumulators; infinities keep their meaning (a floor may be
# -inf); a kernel holds no NaN.
FASTMATH = {"reassoc", "contract", "nsz", "nnan"}

# Reductions split the rows into this many runs whatever the number of threads, so that sums are the same on
# every machine size.
RUNS = 32


class DenseKernel(NamedTuple):
    """Every pair measured. `matrix` is float32, float64 or float16 (held as its uint16 bits)."""

    matrix: Array  # [n, m], C order, read-only
    slope: float
    offset: Array  # float64[m]
    floor: float
    group: Array  # int32[n]; -1: no target is excluded for this example
    group_start: Array  # int64[groups + 1]
    group_targets: Array  # int32; group g may not cover group_targets[group_start[g]:group_start[g + 1]]


class FactoredKernel(NamedTuple):
    """Some pairs measured (compressed rows), the others estimated as left @ right; rank 0 estimates zero."""

    indptr: Array  # int64[n + 1]
    columns: Array  # int32
    values: Array  # float32
    left: Array  # float32[n, r]
    right: Array  # float32[r, m]
    slope: float
    offset: Array  # float64[m]
    floor: float
    group: Array  # int32[n]; -1: no target is excluded for this example
    group_start: Array  # int64[groups + 1]
    group_targets: Array  # int32; group g may not cover group_targets[group_start[g]:group_start[g + 1]]


Kernel: TypeAlias = DenseKernel | FactoredKernel


# ---------------------------------------------------------------------------------------------- constructors


def dense_kernel(
    similarities: ArrayLike,
    *,
    example_group: ArrayLike | None = None,
    target_group: ArrayLike | None = None,
) -> DenseKernel:
    """A kernel over similarities that are already computed: s[j, i] = similarities[j, i].

    similarities: [n, m], float16, float32 or float64; C-ordered arrays and memory maps are used in place,
        others are copied once. Entries must not be NaN (InputError; memory maps are not read for that).
    example_group, target_group: int[n], int[m]; where both carry the same label >= 0, s[j, i] = 0. For
        leave-one-out coverage of a square kernel pass the same labels twice (`range(n)`, or one label for all
        copies of a record).
    """
    matrix = _in_place(similarities)
    if matrix.size and not isinstance(similarities, np.memmap) and np.isnan(np.min(similarities)):
        raise InputError("a similarity is NaN: give 0 where there is none")
    excluded = _exclusion(matrix.shape, example_group, target_group)
    return DenseKernel(matrix, 1.0, np.zeros(matrix.shape[1]), -np.inf, *excluded)


def utility_kernel(
    matrix: ArrayLike,
    base: ArrayLike,
    utility: Utility = "euclidean",
    transform: Transform = "clip",
    *,
    example_group: ArrayLike | None = None,
    target_group: ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
) -> DenseKernel:
    """The kernel over measured distances (`euclidean`) or mean log-probabilities (`pmi`).

    matrix: [n, m], what the model said of target i with example j in context (memory maps are used in place);
    base: [m], the same without an example. NaN marks a pair that was not scored: such matrices belong in
    `factored_kernel`, and the caller must refuse them here.

    utility: `euclidean` U = base[i] - matrix[j, i] (DELIFT's utility function; base is a distance);
        `pmi` U = matrix[j, i] - base[i] (nats per token).
    transform: `clip` max(0, U); `minmax` (U - lo) / (hi - lo) with lo, hi over the whole matrix, excluded
        pairs too; `raw` U (coverage starts at zero and no target falls below it, so that every objective
        gives what it gives with `clip`).
    value_range: (lo, hi) of `minmax`. Kernels that one objective compares (pool and existing data, say) need
        one range in common: take the union of their `utility_range`s.
    """
    stored = _in_place(matrix)
    sign, start = _utility_form(stored, base, utility)
    if transform == "minmax" and value_range is None:
        value_range = _range(stored, sign, start)
    form = _transformed(transform, sign, start, value_range)
    return DenseKernel(stored, *form, *_exclusion(stored.shape, example_group, target_group))


def factored_kernel(
    indptr: ArrayLike,
    columns: ArrayLike,
    values: ArrayLike,
    left: ArrayLike,
    right: ArrayLike,
    transform: Transform = "clip",
    *,
    example_group: ArrayLike | None = None,
    target_group: ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
) -> FactoredKernel:
    """The kernel of a partly scored block: measured utilities where there are any, left @ right.T elsewhere.

    indptr int[n + 1], columns int[pairs], values float[pairs]: the scored pairs' utilities (not distances) in
    compressed rows; left float[n, r], right float[m, r]: the estimate, r = 0 for none (unscored pairs count
    as zero). transform and the rest as in `utility_kernel`; `minmax` needs `value_range`.
    """
    left32 = np.ascontiguousarray(left, dtype=np.float32)
    right32 = np.ascontiguousarray(np.asarray(right, dtype=np.float32).T)
    shape = (left32.shape[0], right32.shape[1])
    if left32.shape[1] != right32.shape[0]:
        raise InputError(f"left has rank {left32.shape[1]}, right has rank {right32.shape[0]}")
    return FactoredKernel(
        *_compressed_rows(indptr, columns, values, shape),
        left32,
        right32,
        *_transformed(transform, 1.0, np.zeros(shape[1]), value_range),
        *_exclusion(shape, example_group, target_group),
    )


def utility_range(matrix: ArrayLike, base: ArrayLike, utility: Utility = "euclidean") -> tuple[float, float]:
    """Smallest and largest utility of a block: one parallel sweep. Arguments as in `utility_kernel`."""
    stored = _in_place(matrix)
    slope, offset = _utility_form(stored, base, utility)
    low, high = _range(stored, slope, offset)
    return float(low), float(high)


def kernel_shape(kernel: Kernel) -> tuple[int, int]:
    """(examples, targets)."""
    return kernel.group.size, kernel.offset.size


def rows_of(kernel: Kernel, rows: Array) -> Kernel:
    """The kernel of some of the examples (int64, ascending), its rows copied into memory; targets stay."""
    if isinstance(kernel, DenseKernel):
        return kernel._replace(matrix=_in_place(copied(kernel.matrix, rows)), group=kernel.group[rows])
    start, places = rows_taken(kernel.indptr, rows)
    columns, values = kernel.columns[places], kernel.values[places]
    return kernel._replace(
        indptr=start, columns=columns, values=values, left=kernel.left[rows], group=kernel.group[rows]
    )


def _in_place(matrix: ArrayLike) -> Array:
    """The array as compiled code takes it: plain, C-ordered, read-only, one of three types; a view if possible."""
    array = np.asarray(matrix)
    if array.ndim != 2:
        raise InputError(f"a kernel is a matrix [example, target], not an array of shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise InputError(f"a kernel holds numbers, not {array.dtype}")
    if array.dtype not in (np.float16, np.float32, np.float64) or not array.dtype.isnative:
        array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
    view = np.ascontiguousarray(array).view(np.ndarray)
    if view.dtype == np.float16:
        view = view.view(np.uint16)  # Numba has no float16 on CPUs; `as_float` decodes the bits
    view = view[:]
    view.flags.writeable = False
    return view


def _compressed_rows(
    indptr: ArrayLike, columns: ArrayLike, values: ArrayLike, shape: tuple[int, int]
) -> tuple[Array, Array, Array]:
    start = np.ascontiguousarray(indptr, dtype=np.int64)
    column = np.ascontiguousarray(columns, dtype=np.int32)
    value = np.ascontiguousarray(values, dtype=np.float32)
    if start.shape != (shape[0] + 1,) or column.shape != value.shape or start[-1] != column.size:
        raise InputError(f"indptr, columns and values are not the compressed rows of a kernel of shape {shape}")
    if column.size and (column.min() < 0 or column.max() >= shape[1]):
        raise InputError(f"a scored pair names a target outside the {shape[1]} of the kernel")
    return start, column, value


def _utility_form(matrix: Array, base: ArrayLike, utility: Utility) -> tuple[float, Array]:
    without = np.asarray(base, dtype=np.float64)
    if without.shape != matrix.shape[1:]:
        raise InputError(f"{matrix.shape[1]} targets in the matrix, {without.shape} values without an example")
    if utility == "euclidean":
        return -1.0, np.ascontiguousarray(without)
    if utility == "pmi":
        return 1.0, -without
    raise InputError(f"unknown utility {utility!r}: choose euclidean or pmi")


def _transformed(
    transform: Transform, slope: float, offset: Array, value_range: tuple[float, float] | None
) -> tuple[float, Array, float]:
    """Slope, offset and floor of similarities, by those of the utilities."""
    if transform == "raw":
        return slope, offset, -np.inf
    if transform == "clip":
        return slope, offset, 0.0
    if transform != "minmax":
        raise InputError(f"unknown transform {transform!r}: choose clip, minmax or raw")
    if value_range is None:
        raise InputError("a factored kernel needs value_range for minmax")
    low, high = value_range
    scale = 1.0 / (high - low) if high > low else 0.0
    return slope * scale, (offset - low) * scale, 0.0


def _exclusion(
    shape: tuple[int, int], example_group: ArrayLike | None, target_group: ArrayLike | None
) -> tuple[Array, Array, Array]:
    n, m = shape
    if (example_group is None) != (target_group is None):
        raise InputError("example_group and target_group come together: pairs with equal labels are excluded")
    if example_group is None or target_group is None:
        return np.full(n, -1, np.int32), np.zeros(1, np.int64), np.empty(0, np.int32)
    examples, targets = np.asarray(example_group), np.asarray(target_group)
    if examples.shape != (n,) or targets.shape != (m,):
        raise InputError(f"group labels {examples.shape}, {targets.shape} for a kernel of shape {shape}")
    # Labels become 0, 1, ... over those that targets carry; an example with another label excludes nothing.
    labels, counts = np.unique(targets[targets >= 0], return_counts=True)
    order = np.argsort(targets, kind="stable").astype(np.int32)
    group = np.full(n, -1, np.int32)
    if labels.size:
        position = np.minimum(np.searchsorted(labels, examples), labels.size - 1)
        group = np.where(labels[position] == examples, position, -1).astype(np.int32)
    start = row_starts(counts)
    return group, start, order[m - int(start[-1]) :]


# ---------------------------------------------------------------------------------------------- stored numbers


def as_float(x: Any) -> Any:
    """The stored number as float64; uint16 is a float16's bits."""
    raise NotImplementedError("compiled code only")


@overload(as_float)
def _as_float(x):  # type: ignore[no-untyped-def]
    if x == types.uint16:

        def decode(x):  # type: ignore[no-untyped-def]
            # Exponent and mantissa move to float32's place; 2**112 makes up for the biases (15 and 127).
            magnitude = np.uint32((np.uint32(x) & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32)
            scaled = np.float64(magnitude) * 2.0**112
            return -scaled if x & np.uint16(0x8000) else scaled

        return decode
    return lambda x: np.float64(x)


@jit(parallel=True, fastmath=FASTMATH)
def _range(matrix: Array, slope: float, offset: Array) -> tuple[float, float]:
    n, m = matrix.shape
    lowest, highest = np.full((RUNS, m), np.inf), np.full((RUNS, m), -np.inf)
    for run in prange(RUNS):
        low, high = lowest[run], highest[run]
        for j in range(run * n // RUNS, (run + 1) * n // RUNS):
            row = matrix[j]
            for i in range(m):
                u = slope * as_float(row[i]) + offset[i]
                low[i] = min(low[i], u)
                high[i] = max(high[i], u)
    return lowest.min(), highest.max()
