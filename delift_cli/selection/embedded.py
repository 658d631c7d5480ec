"""Caches as blocks of cosines: the paper's DELIFT (SE), similarity of texts in place of utilities, with the model's own
mean hidden states in place of a sentence encoder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache as once

from ..cache.dense import Cache
from ..cache.sparse import SparseCache
from ..scoring.embeddings import MEAN, Embeddings, embeddings_of
from ..scoring.job import OpenModel
from .blocks import EmbeddedBlock, check_same_measure


def embedded_blocks(
    caches: Sequence[Cache | SparseCache], open_model: OpenModel, report: Callable[[int], None]
) -> list[EmbeddedBlock]:
    """Caches measured alike as blocks of cosines of means; embeddings that none of them keeps are made and kept.

    Args:
        open_model: called at most once, and only where something is missing.
        report: is told now and then how many records of a set are done.

    Raises:
        InputError: the caches were not measured alike, or the model is not theirs.
    """
    check_same_measure(caches)
    opened = once(lambda: open_model(caches[0]))
    known: dict[str, Embeddings] = {}
    blocks = []
    for cache in caches:
        cache.check_shared()
        examples, targets = embeddings_of(cache, opened, report, others=caches, known=known)
        blocks.append(EmbeddedBlock(cache, examples[MEAN], targets[MEAN]))
    return blocks
