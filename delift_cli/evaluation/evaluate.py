"""One `delift evaluate` from end to end: subsets, held-out records, random subsets of the same size, intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..amount import counted
from ..budget.sources import Source, files_of, listed
from ..data.options import Reading
from ..data.reading import AS_IT_COMES, check_named_fields
from ..data.record import RecordSet, copy_groups
from ..display import Facts, Lines
from ..errors import InputError, check_seed
from ..model.apart import open_checked
from ..model.llama import Settings
from ..model.places import locate
from ..progress import Progress, Say, counting, silent
from ..prompt.builtin import parse_arguments
from ..prompt.chosen import chat_template
from ..prompt.encoding import encode_examples
from ..scoring import job
from .in_context import HeldOut, Joined, join, read_set
from .intervals import Interval, Outcome, outcomes, random_subsets


@dataclass(frozen=True, repr=False)
class Evaluation(Facts):
    """What subsets are worth to the model as it is, shown in context to held-out records; one row each."""

    rows: list[Outcome]
    held_out: int
    shots: int
    random: int
    seed: int
    model_sha256: str

    def as_dict(self) -> dict[str, Any]:
        """The figures as data."""
        return {
            "held_out": self.held_out,
            "shots": self.shots,
            "random": self.random,
            "seed": self.seed,
            "model_sha256": self.model_sha256,
            "rows": [_fields(row) for row in self.rows],
        }

    def lines(self) -> Lines:
        """For people."""
        behind = counted(self.shots, "example")
        lines = [("", f"{counted(self.held_out, 'held-out record')} behind {behind} each, with 95 % intervals")]
        for row in self.rows:
            told = f"{_with_interval(row.logprob)} nats per token, perplexity {row.perplexity:.2f}"
            lines.append((row.shown, told if row.verdict is None else f"{told}; {row.verdict}"))
        return lines

    def table(self) -> list[tuple[str, ...]]:
        """Rows of cells under their names, the names first."""
        names = ("shown", "records", "nats per token", "distance", "perplexity")
        cells = [
            (row.shown, f"{row.records:,}", *map(_with_interval, (row.logprob, row.distance)), f"{row.perplexity:.2f}")
            for row in self.rows
        ]
        return [names, *cells]


def evaluate(
    held_out: Source,
    subsets: Source | Iterable[Source],
    *,
    pool: Source | None = None,
    shots: int = 1,
    random: int = 5,
    seed: int = 0,
    model: str | None = None,
    template: str | None = None,
    template_arguments: Sequence[str] = (),
    as_trained: bool = False,
    reading: Reading = AS_IT_COMES,
    truncate: bool = False,
    weights: str = "auto",
    settings: Settings | None = None,
    progress: Progress = silent,
    say: Say = silent,
) -> Evaluation:
    """Show each held-out record each subset's best matches, and measure what the model then says of its response.

    Args:
        held_out: records in none of the subsets: a file, several, or records themselves.
        subsets: each one such a source or a cache; a file alone, or records alone, are one subset.
        pool: what random subsets are drawn from, `random` of them of each size; None: no comparison with them.
        shots: examples in front of each held-out record.

    Raises:
        InputError: records that cannot be read or do not fit the model's context, a pool that is too small, no subset,
            no shot, or fewer than two random subsets.
    """
    given = _each(subsets)
    _check(given, pool, shots, random, seed)
    names = [", ".join(files_of(source)) or f"subset {number}" for number, source in enumerate(given, 1)]
    sources = (held_out, *given, *([] if pool is None else [pool]))
    targets, *sets = (read_set(source, reading) for source in sources)
    check_named_fields([targets, *sets], reading)
    for each in (targets, *sets):
        if each.rejected:
            first, left_out = each.rejected[0], counted(len(each.rejected), "record")
            say(f"{each.source}: {left_out} left out, first: line {first.line}: {first.reason}")
    joined = join(sets)
    members = joined.members[: len(names)]
    for name, places in zip(names, members, strict=True):
        if len(places) < shots:  # what copies leave of it shows later, when the model is open
            raise InputError(f"{name} has fewer than {shots} records, which --shots asks for")
    sizes = list(dict.fromkeys(map(len, members))) if pool is not None else []
    drawn = {size: random_subsets(joined.members[-1], size, random, seed) for size in sizes}
    if (everything := len(joined.members[-1])) in drawn:
        say(f"random subsets of {counted(everything, 'record')} are the whole pool, each of them")
    file = open_checked(locate(model, say))
    sha256 = file.identity()["sha256"]
    arguments = parse_arguments(template_arguments)
    chat = chat_template(file, template, arguments=arguments, as_trained=as_trained, say=say)
    limit = file.context // (shots + 1) if truncate else None
    test = HeldOut(targets, joined.records, chat, limit)
    engine = job.choose_engine(
        file,
        sha256,
        weights,
        settings or Settings(),
        batch=None,
        inputs=job.Inputs(joined.records, targets, encode_examples(joined.records, chat, limit=limit), test.targets),
        cache=None,
        say=say,
    )
    for note in chat.notes():
        say(note)
    test.embed_prompts(engine, counting(progress, "prompts", len(targets.records) + len(joined.records.records)))
    shown = np.array(
        [
            *(test.nearest(each, shots, name) for name, each in zip(names, members, strict=True)),
            *(test.nearest(each, shots, "a random subset") for size in sizes for each in drawn[size]),
        ]
    )
    _say_what_is_both(targets, joined, names, say)
    report = counting(progress, "examples", len(np.unique(shown.reshape(-1, shots), axis=0)))
    measured = test.measure(engine, file.context, shown, report)
    rows = outcomes(
        measured[0],
        list(zip(names, map(len, members), measured[1:], strict=False)),
        {size: measured[1 + len(names) + at * random :][:random] for at, size in enumerate(sizes)},
        seed,
    )
    return Evaluation(rows, len(targets.records), shots, random if sizes else 0, seed, sha256)


def _say_what_is_both(held_out: RecordSet, joined: Joined, names: Sequence[str], say: Say) -> None:
    """How many held-out records are in a subset too, up to white space and case."""
    groups = copy_groups([*held_out.records, *joined.records.records])
    m = len(held_out.records)
    for name, members in zip(names, joined.members, strict=False):
        if both := int(np.isin(groups[:m], groups[m:][members]).sum()):
            which = f"{both:,} of the {m:,} held-out records are" if m > 1 else "the held-out record is"
            say(f"{which} in {name} too; none is shown behind a copy of itself")


def _each(subsets: Source | Iterable[Source]) -> list[list[Any]]:
    """The subsets, each as a list of its files or of its records."""
    if isinstance(subsets, str | Path):
        return [listed(subsets)]
    given: list[Any] = list(subsets)
    if given and isinstance(given[0], Mapping):
        return [listed(given)]
    return [listed(one) for one in given]


def _check(subsets: list[list[Any]], pool: Source | None, shots: int, random: int, seed: int) -> None:
    """InputError where the numbers asked for measure nothing; before anything is read."""
    if not subsets:
        raise InputError("give at least one subset to evaluate")
    if shots < 1:
        raise InputError(f"shots {shots}: give at least one example in front of each held-out record")
    if pool is not None and random < 2:
        raise InputError(f"random {random}: give at least two random subsets to compare each one with")
    check_seed(seed)


def _fields(row: Outcome) -> dict[str, Any]:
    better = None if row.better is None else {**row.better._asdict(), "verdict": row.verdict}
    return {
        "shown": row.shown,
        "records": row.records,
        "logprob": row.logprob._asdict(),
        "distance": row.distance._asdict(),
        "perplexity": row.perplexity,
        "better_than_random": better,
    }


def _with_interval(interval: Interval) -> str:
    told = "no interval" if math.isnan(interval.low) else f"{interval.low:.4f} to {interval.high:.4f}"
    return f"{interval.mean:.4f} ({told})"
