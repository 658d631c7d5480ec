"""How fast each type of weights is likely to be, by what the processor can do: a guess that a measurement tests.

Rates are of prompt processing in batches of 512 tokens, beside F16 on the same processor. The three rows of AVX were
measured (SmolLM2-135M, flash attention on, two cores each); the others follow from which kernels llama.cpp has there.
"""

from __future__ import annotations

from typing import NamedTuple

from ..model.processor import GPU


class Row(NamedTuple):
    """Relative rates by type where the processor has all these features."""

    needs: frozenset[str]
    rates: dict[str, float]


_REPACKED_K = {"q4_k_m": 0.75, "q4_k_s": 0.8, "q2_k": 0.6}  # llama.cpp interleaves these for its fast kernels
TABLE = (
    Row(frozenset({GPU}), {"f16": 1.0, "bf16": 0.98, "f32": 0.4, "q8_0": 0.95, "q4_0": 0.95}),
    Row(
        frozenset({"AVX512_BF16"}),
        {"bf16": 1.61, "q4_0": 1.31, "f32": 1.04, "f16": 1.0, "q8_0": 0.85, "q4_1": 0.41, **_REPACKED_K},
    ),
    Row(
        frozenset({"AVX512"}),
        {"f32": 1.27, "q4_0": 1.13, "f16": 1.0, "bf16": 0.91, "q8_0": 0.82, "q4_1": 0.5, **_REPACKED_K},
    ),
    Row(
        frozenset({"AVX2"}),
        {"f16": 1.0, "q4_0": 0.9, "q8_0": 0.82, "f32": 0.79, "bf16": 0.71, "q4_1": 0.44, **_REPACKED_K},
    ),
    Row(frozenset({"MATMUL_INT8"}), {"q4_0": 1.6, "q8_0": 1.2, "f16": 1.0, "bf16": 0.6, "f32": 0.6, **_REPACKED_K}),
    Row(frozenset({"NEON"}), {"f16": 1.0, "q4_0": 1.0, "q8_0": 0.9, "f32": 0.6, "bf16": 0.5, **_REPACKED_K}),
    Row(frozenset(), {"f32": 1.0, "q8_0": 0.9, "f16": 0.6, "bf16": 0.6, "q4_0": 0.8}),
)
_UNLISTED = {True: 0.9, False: 0.4}  # on a GPU, elsewhere: types without kernels for many tokens at once


def ranked(features: frozenset[str], own: str | None, candidates: tuple[str, ...]) -> list[tuple[str, float]]:
    """The candidates that should beat the model's own type, fastest first, with their expected gains (1.5: half more).

    Args:
        features: of the processor, as `model.processor.features` names them.
        own: the type of most of the model's weights as llama.cpp names it, in either case; None if it says none.
    """
    rates, own = next(row.rates for row in TABLE if row.needs <= features), (own or "").lower()
    mine = rates.get(own, _UNLISTED[GPU in features])
    gains = [(name, rates[name] / mine) for name in candidates if name in rates and name != own]
    return sorted((each for each in gains if each[1] > 1.0), key=lambda each: -each[1])
