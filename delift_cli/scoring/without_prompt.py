"""What the model thinks of each response when it does not see the prompt: one more pass over the records of a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..cache.sidecar import WITHOUT_PROMPT, keep, kept_file, read_kept
from ..cache.stored import Stored
from ..data.record import Message, Record, RecordSet
from ..model.llama import Model
from ..prompt.encoding import EncodedExamples, encode_targets
from .job import OpenModel
from .pairs import Scoring, TargetTokens, cells_needed, lacking

EMPTY_PROMPT = (Message("user", ""),)


def logprob_without_prompt(
    cache: Stored, open_model: OpenModel, report: Callable[[int], None]
) -> npt.NDArray[np.float32]:
    """float32 [records]: mean log-probability (nats) of each response behind an empty prompt.

    The empty prompt stands for all of it, a system message too. Everything else is as in the cache's base_logprob: the
    template with what it prints around a prompt, the same response tokens and end of turn. Kept beside the cache, a
    part at a time, so that the model is run once.

    Args:
        cache: a pool scored against itself.
        report: is told now and then how many records are done.

    Raises:
        InputError: the template refuses an empty prompt.
    """
    file, n = kept_file(cache, "examples", WITHOUT_PROMPT), cache.shape[0]
    found: npt.NDArray[np.float32] | None = read_kept(file, (n,), np.float32, whole=False)
    if found is None:
        found = np.full(n, np.nan, np.float32)
    if not np.isnan(found).any():
        return found
    engine, template = open_model(cache)
    targets = TargetTokens(
        encode_targets(
            _without_prompts(cache.examples()),
            template,
            limit=None,
            response_tokens=cache.manifest["settings"].get("max_response_tokens"),
        )
    )
    with Model(engine.file, engine.settings, cells=cells_needed([], targets, engine.settings.batch)) as model:
        scoring = Scoring([model], EncodedExamples([], []), targets)
        for missing in lacking(found):
            found[missing] = scoring.without_example(missing).logprob
            keep(file, found)
            report(int(missing[-1]) + 1)
    return found


def _without_prompts(records: RecordSet) -> RecordSet:
    return replace(records, records=[_without_prompt(record) for record in records.records])


def _without_prompt(record: Record) -> Record:
    """The scored turns, each behind an empty one of the user."""
    turns = tuple(each for turn in record.turns if turn.scored for each in (*EMPTY_PROMPT, turn))
    return Record(record.id, turns, record.raw, record.line)
