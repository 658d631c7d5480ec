"""Records as points, two for each: the model's hidden state behind a text's last token, and the mean over all of them.

The text of a record is its prompt and response, as the chat template renders them as an example. The state behind the
response's last token says what was just done with what kind of prompt, which is near to how examples help. The mean
says what the record is about; it gives a facility location the paper's DELIFT (SE), similarity of texts in place of
utilities, with the model's own hidden states in place of a sentence encoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache as once
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .blocks import EmbeddedBlock, check_same_measure
from .cache import Cache, Stored
from .encoding import encode_examples
from .kept import keep, kept_file, read_kept
from .model import MAX_SEQUENCES, Model
from .run import Engine, OpenModel
from .sparse_cache import SparseCache
from .template import ChatTemplate, Tokens

Embeddings: TypeAlias = npt.NDArray[np.float32]  # [pooling, records, width], rows of length 1
LAST, MEAN = range(2)  # poolings; the better one to propose pairs with comes first


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


def embeddings_of(
    cache: Stored,
    open_model: Callable[[], tuple[Engine, ChatTemplate]],
    report: Callable[[int], None],
    *,
    others: Sequence[Stored] = (),
    known: dict[str, Embeddings] | None = None,
) -> tuple[Embeddings, Embeddings]:
    """Embeddings of a cache's examples and targets: kept beside it or one of the others, or made and kept beside it.

    Args:
        known: embeddings by the name of their file; those that are found or made here join them.

    Returns:
        float32 [2, examples, width] and [2, targets, width], rows of length 1: see `embed`.
    """
    known = {} if known is None else known

    def of(role: str) -> Embeddings:
        file = kept_file(cache, role, "embeddings: last, mean")
        if file.name not in known:
            count = cache.manifest[role]["count"]
            places = (home.path / file.parent.name / file.name for home in (cache, *others))
            homes = (read_kept(place, (2, count, -1), np.float32) for place in places)
            kept = next((embeddings for embeddings in homes if embeddings is not None), None)
            if kept is None:
                kept = _embed_records(cache, role, *open_model(), report)
                keep(file, kept)
            known[file.name] = kept
        return known[file.name]

    return of("examples"), of("targets")


def _embed_records(
    cache: Stored, role: str, engine: Engine, template: ChatTemplate, report: Callable[[int], None]
) -> Embeddings:
    records = cache.examples() if role == "examples" else cache.targets()
    truncate = cache.manifest["settings"]["truncate"]
    limit = None if truncate is None else truncate // 2  # what `run.prepare` leaves an example
    return embed_texts(engine, encode_examples(records, template, limit=limit).prefixes, report)


def embed_texts(engine: Engine, texts: Sequence[Tokens], report: Callable[[int], None]) -> Embeddings:
    """`embed` with a model that is loaded for it."""
    cells = max(map(len, texts)) + engine.settings.batch
    with Model(engine.file, engine.settings, cells=cells, embeddings=True) as model:
        return embed(model, texts, report)


def embed(model: Model, texts: Sequence[Tokens], report: Callable[[int], None] = lambda done: None) -> Embeddings:
    """float32 [2, texts, width], rows of length 1: the state behind each text's last token, and the mean.

    Texts stand end to end and are evaluated a batch at a time, several texts in one or one text over several, each in
    a sequence of its own.

    Args:
        model: opened for embeddings, with cells for the longest text and a batch.
        texts: token ids, int32, none of them empty.
        report: is told after each batch how many texts are done.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    tokens = np.concatenate(texts).astype(np.int32)
    owner = np.repeat(np.arange(len(texts)), lengths)
    positions = (np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)).astype(np.int32)
    sequence = (owner % MAX_SEQUENCES).astype(np.int32)  # a batch holds no two texts with the same one
    ends = np.cumsum(lengths) - 1
    pooled: npt.NDArray[np.float64] | None = None
    model.clear()
    start = 0
    while start < len(tokens):
        last_owner = owner[start] + MAX_SEQUENCES - 1
        stop = min(start + model.settings.batch, int(np.searchsorted(owner, last_owner, side="right")))
        states = model.hidden_states(tokens[start:stop], positions[start:stop], sequence[start:stop])
        here, first = np.unique(owner[start:stop], return_index=True)
        if pooled is None:
            pooled = np.zeros((2, len(texts), states.shape[1]))
        pooled[MEAN, here] += np.add.reduceat(states, first, axis=0, dtype=np.float64)
        unfinished = stop < len(tokens) and owner[stop] == owner[stop - 1]
        finished = here[:-1] if unfinished else here
        pooled[LAST, finished] = states[ends[finished] - start]
        for done in finished.tolist():
            model.drop_sequence(done % MAX_SEQUENCES)
        report(int(here[-1]) + (not unfinished))
        start = stop
    assert pooled is not None
    norms = np.linalg.norm(pooled, axis=2, keepdims=True)
    return np.ascontiguousarray(pooled / np.maximum(norms, np.finfo(np.float64).tiny), np.float32)
