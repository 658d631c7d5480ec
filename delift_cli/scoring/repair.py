"""`delift verify`: every byte of a cache checked, and what is damaged scored again, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.dense import CacheWriter
from ..cache.sparse import SparseWriter
from ..cache.verification import Damage, Forgotten, examine, repaired, write_tokens
from ..display import Facts, Lines
from ..errors import InputError
from ..model.llama import Settings
from ..progress import Progress, Step, silent
from . import job
from .measures import Measures
from .pairs import BASE_CHUNK, Scoring, Unit

ANY_LENGTH = 2**31 - 1  # what was scored fitted the context


@dataclass(frozen=True, repr=False)
class Verified(Facts):
    """What `verify` found: everything that is damaged, and, with a repair, how many pairs were scored again for it."""

    cache: Path
    damages: list[Damage]
    repaired: bool = False
    pairs_scored: int = 0

    @property
    def sound(self) -> bool:
        """Is the cache as it was written, by now?"""
        return self.repaired or not self.damages

    def as_dict(self) -> dict[str, Any]:
        return {
            "cache": str(self.cache),
            "sound": self.sound,
            "damages": [damage._asdict() for damage in self.damages],
            "repaired": self.repaired,
            "pairs_scored": self.pairs_scored,
        }

    def lines(self) -> Lines:
        if not self.damages:
            return [("cache", f"{self.cache}: every byte is as it was written")]
        rows = [("cache", f"{self.cache}: {len(self.damages):,} damaged")]
        for damage in self.damages:
            then = damage.repair or "that cannot be computed again: score the records into a new directory"
            rows.append((damage.file, f"{damage.what}; {then}" if not self.repaired else damage.what))
        if self.repaired:
            rows.append(("repaired", f"{self.pairs_scored:,} pairs were scored again"))
        return rows


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
        InputError: no cache, a damaged manifest, or, with `repair`, damage that cannot be computed again.
        RunError: another process writes to it, or the disk is full.
    """
    path = Path(cache)
    damages = examine(path)
    if not repair or not damages:
        return Verified(path, damages)
    with repaired(path) as (writer, gone):
        pairs = _score_again(writer, gone, model, settings or Settings(), progress) if gone.needs_model else 0
    left = examine(path)
    if left:
        raise InputError(f"{path} is damaged even after the repair: {left[0].file}: {left[0].what}")
    return Verified(path, damages, repaired=True, pairs_scored=pairs)


def _score_again(
    writer: CacheWriter | SparseWriter, gone: Forgotten, model: str | None, settings: Settings, progress: Progress
) -> int:
    """Score what was forgotten, with the records, model and settings of the cache; how many pairs it was."""
    engine, template = job.engine_as_measured(writer, model, settings)
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
        if name in gone.tokens:
            write_tokens(writer, name, counts[name])
        elif not np.array_equal(getattr(writer, name), counts[name]):
            raise InputError(f"{writer.path} was made of these records by another delift: score them again")
    if not (gone.rows or gone.pairs or gone.targets):
        return 0
    targets = inputs.target_tokens
    total, done = len(gone.rows) + len(gone.pairs), 0
    with job.at_work(engine, inputs, targets) as models:
        scoring = Scoring(models, inputs.encoded_examples, targets)
        for start in sorted({target // BASE_CHUNK * BASE_CHUNK for target in gone.targets}):
            nothing = np.full(min(BASE_CHUNK, targets.count - start), np.nan, np.float32)
            writer.write_base(start, nothing, nothing)  # together, as they were measured, for the same bytes
        for _ in scoring.base(writer):
            pass
        for number in sorted({number for number, _ in gone.pairs}):
            assert isinstance(writer, SparseWriter)
            part = writer.rounds[number]
            examples = [example for at, example in gone.pairs if at == number]
            units = [Unit(example, part.targets[part.pairs_of(example)].astype(np.int64)) for example in examples]

            def write_pairs(unit: Unit, measured: Measures, part: Any = part) -> None:
                writer.write_pairs(part, unit.example, *measured)

            for _ in scoring.units(units, write_pairs):
                done += 1
                progress(Step("scoring again", done, total))
        if gone.rows:
            assert isinstance(writer, CacheWriter)
            dense = writer
            units = [Unit(example, dense.missing(example)) for example in gone.rows]
            for _ in scoring.units(units, lambda unit, measured: dense.write_row(unit.example, *measured)):
                done += 1
                progress(Step("scoring again", done, total))
        return scoring.work.pairs
