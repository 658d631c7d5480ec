"""Records as points, two for each: the model's hidden state behind a text's last token, and the mean over all of them.

The text of a record is its prompt and response, as the chat template renders them as an example. The state behind the
response's last token says what was just done with what kind of prompt, which is near to how examples help. The mean
says what the record is about.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..cache.sidecar import EMBEDDINGS, keep, kept_file, read_kept
from ..cache.stored import Stored
from ..model.llama import Model
from ..prompt.encoding import encode_examples
from ..prompt.template import ChatTemplate, Tokens
from .job import Engine

Embeddings: TypeAlias = npt.NDArray[np.float32]  # [pooling, records, width], rows of length 1
LAST, MEAN = range(2)  # poolings; the better one to propose pairs with comes first
PART = 256  # texts embedded together; fixed, so that a resumed run agrees
KEEP_SECONDS = 30.0  # what an interruption may cost
KEEP_SHARE = 20  # and so many times as long as keeping took, for all of them are written each time


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
        file = kept_file(cache, role, EMBEDDINGS)
        if file.name not in known:
            count = cache.manifest[role]["count"]
            places = (home.path / file.parent.name / file.name for home in (cache, *others))
            homes = (read_kept(place, (2, count, -1), np.float32) for place in places)
            kept = next((embeddings for embeddings in homes if embeddings is not None), None)
            known[file.name] = _embed_records(cache, role, open_model, report) if kept is None else kept
        return known[file.name]

    return of("examples"), of("targets")


def _embed_records(
    cache: Stored, role: str, open_model: Callable[[], tuple[Engine, ChatTemplate]], report: Callable[[int], None]
) -> Embeddings:
    """Embed the records that none are kept of yet, and keep them with the others, some at a time."""
    file, records = kept_file(cache, role, EMBEDDINGS), cache.examples() if role == "examples" else cache.targets()
    count = len(records.records)
    found: Embeddings | None = read_kept(file, (2, count, -1), np.float32, whole=False)
    missing = np.arange(count) if found is None else np.flatnonzero(np.isnan(found).any(axis=(0, 2)))
    engine, template = open_model()
    truncate = cache.manifest["settings"]["truncate"]
    limit = None if truncate is None else truncate // 2  # what `run.prepare` leaves an example
    new = replace(records, records=[records.records[place] for place in missing.tolist()])
    texts = encode_examples(new, template, limit=limit).prefixes
    kept_at, took = time.monotonic(), 0.0
    for start, part in _in_parts(engine, texts, lambda done: report(count - len(missing) + done)):
        if found is None:
            found = np.full((2, count, part.shape[2]), np.nan, np.float32)
        stop = start + part.shape[1]
        found[:, missing[start:stop]] = part
        now = time.monotonic()
        if stop == len(missing) or now - kept_at > max(KEEP_SECONDS, KEEP_SHARE * took):
            keep(file, found)
            kept_at = time.monotonic()
            took = kept_at - now
    assert found is not None
    return found


def embed_texts(engine: Engine, texts: Sequence[Tokens], report: Callable[[int], None]) -> Embeddings:
    """`embed` with a model that is loaded for it."""
    return np.concatenate([part for _, part in _in_parts(engine, texts, report)], axis=1)


def _in_parts(
    engine: Engine, texts: Sequence[Tokens], report: Callable[[int], None]
) -> Iterator[tuple[int, Embeddings]]:
    """The embeddings of a part of the texts after the other, and at which text it starts."""
    cells = max(map(len, texts)) + engine.settings.batch
    with Model(engine.file, engine.settings, cells=cells, embeddings=True) as model:
        for start in range(0, len(texts), PART):
            yield start, embed(model, texts[start : start + PART], partial(_report_from, report, start))


def _report_from(report: Callable[[int], None], start: int, done: int) -> None:
    report(start + done)


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
    sequences = model.settings.sequences
    sequence = (owner % sequences).astype(np.int32)  # a batch holds no two texts with the same one
    ends = np.cumsum(lengths) - 1
    pooled: npt.NDArray[np.float64] | None = None
    model.clear()
    start = 0
    while start < len(tokens):
        last_owner = owner[start] + sequences - 1
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
            model.drop_sequence(done % sequences)
        report(int(here[-1]) + (not unfinished))
        start = stop
    assert pooled is not None
    norms = np.linalg.norm(pooled, axis=2, keepdims=True)
    return np.ascontiguousarray(pooled / np.maximum(norms, np.finfo(np.float64).tiny), np.float32)
