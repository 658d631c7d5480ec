"""`delift verify`: every byte of a cache checked, and what is damaged scored again, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..amount import counted
from ..cache.dense import CacheWriter
from ..cache.repair import Lost, repairable, repaired, write_tokens
from ..cache.sparse import SparseWriter
from ..cache.verification import Damage, examine, unfinished
from ..display import Facts, Lines
from ..errors import InputError
from ..model.llama import Settings
from ..progress import Progress, Step, silent
from ..prompt.template import ChatTemplate
from . import job
from .measures import Measures
from .pairs import BASE_CHUNK, Scoring, Unit, write_base

ANY_LENGTH = 2**31 - 1  # what was scored fitted the context


@dataclass(frozen=True, repr=False)
class Verified(Facts):
    """What `verify` found: everything that is damaged, and, with a repair, how many pairs were scored again for it.

    unfinished: what a sound cache has not scored yet, if anything: that is no damage.
    """

    cache: Path
    damages: list[Damage]
    repaired: bool = False
    pairs_scored: int = 0
    unfinished: str | None = None

    @property
    def sound(self) -> bool:
        """Is the cache as it was written, by now?"""
        return self.repaired or not self.damages

    def as_dict(self) -> dict[str, Any]:
        return {
            "cache": str(self.cache),
            "sound": self.sound,
            "complete": self.sound and self.unfinished is None,
            "damages": [damage._asdict() for damage in self.damages],
            "repaired": self.repaired,
            "pairs_scored": self.pairs_scored,
        }

    def lines(self) -> Lines:
        then = "the same delift score command goes on"
        left = [("unfinished", f"{self.unfinished}; {then}")] if self.unfinished else []
        if not self.damages:
            return [("cache", f"{self.cache}: every byte is as it was written"), *left]
        rows = [("cache", f"{self.cache}: {len(self.damages):,} damaged")]
        for damage in self.damages:
            then = damage.repair or "that cannot be computed again: score the records into a new directory"
            rows.append((damage.file, f"{damage.what}; {then}" if not self.repaired else damage.what))
        if self.repaired:
            rows.append(("repaired", f"{counted(self.pairs_scored, 'pair')} scored again"))
        return rows + left


def verify(
    cache: str | Path,
    *,
    repair: bool = False,
    model: str | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Verified:
    """Check every byte of a cache against its checksum.

    Args:
        repair: compute what is damaged again, as the manifest says that it was.
        model: the GGUF file, needed where pairs must be scored again; see `model.locate`.

    Raises:
        InputError: no cache, or, with `repair`, damage that cannot be computed again, or another model; then nothing
            was changed.
        RunError: another process writes to it, or the disk is full.
    """
    path = Path(cache)
    damages = examine(path)
    if not damages:
        return Verified(path, damages, unfinished=unfinished(path))
    if not repair:
        return Verified(path, damages)
    subject, how, pairs = repairable(path, damages), settings or Settings(), 0
    ready = None
    if any(damage.needs_model for damage in damages):  # before anything is touched
        ready = job.engine_as_measured(subject, model, how)
    with repaired(path) as (writer, lost):
        if lost.needs_model:
            pairs = _score_again(writer, lost, ready or job.engine_as_measured(subject, model, how), progress)
    left = examine(path)
    if left:
        raise InputError(f"{path} is damaged even after the repair: {left[0].file}: {left[0].what}")
    return Verified(path, damages, repaired=True, pairs_scored=pairs, unfinished=unfinished(path))


def _score_again(
    writer: CacheWriter | SparseWriter, lost: Lost, ready: tuple[job.Engine, ChatTemplate], progress: Progress
) -> int:
    """Score what is lost, with the records, model and settings of the cache; how many pairs it was."""
    engine, template = ready
    cut = writer.manifest["settings"]["truncate"]
    inputs = job.prepare(
        writer.examples(),
        None if writer.square else writer.targets(),
        template,
        context=cut or ANY_LENGTH,
        truncate=cut is not None,
        skip_invalid=False,
        response_tokens=writer.manifest["settings"].get("max_response_tokens"),
    )
    counts = job.token_counts(inputs)
    for name in ("example_tokens", "response_tokens"):
        if name in lost.tokens:
            write_tokens(writer, name, counts[name])
        elif not np.array_equal(getattr(writer, name), counts[name]):
            raise InputError(f"{writer.path} was made of these records by another delift: score them again")
    if not (lost.rows or lost.pairs or lost.targets):
        return 0
    targets = inputs.target_tokens
    total, done = len(lost.rows) + len(lost.pairs), 0
    with job.at_work(engine, inputs, targets) as models:
        scoring = Scoring(models, inputs.encoded_examples, targets)
        for start in sorted({target // BASE_CHUNK * BASE_CHUNK for target in lost.targets}):
            together = targets.all[start : start + BASE_CHUNK]  # as they were measured, for the same bytes
            write_base(writer, together, scoring.without_example(together))
        for number in sorted({number for number, _ in lost.pairs}):
            assert isinstance(writer, SparseWriter)
            part = writer.rounds[number]
            examples = [example for at, example in lost.pairs if at == number]
            units = [Unit(example, part.targets[part.pairs_of(example)].astype(np.int64)) for example in examples]

            def write_pairs(unit: Unit, measured: Measures, part: Any = part) -> None:
                writer.write_pairs(part, unit.example, *measured)

            for unit in units:
                if not len(unit.targets):  # it has no pairs, and its count says otherwise
                    write_pairs(unit, Measures(*np.empty((2, 0), np.float32)))
            for _ in scoring.units([unit for unit in units if len(unit.targets)], write_pairs):
                done += 1
                progress(Step("scoring again", done, total))
        if lost.rows:
            assert isinstance(writer, CacheWriter)
            dense = writer
            for row in lost.rows:
                dense.forget_row(row)
            units = [Unit(row, dense.missing(row)) for row in lost.rows]
            for _ in scoring.units(units, lambda unit, measured: dense.write_row(unit.example, *measured)):
                done += 1
                progress(Step("scoring again", done, total))
        return scoring.work.pairs
