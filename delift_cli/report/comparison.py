"""The report on two caches of the same records: two models, or one before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..cache.dense import Cache
from ..cache.utility import block_utilities
from ..data.record import Record
from ..errors import InputError
from ..selection.blocks import AnyBlock, Block
from . import findings
from .choices import Choice, found_again
from .columns import said
from .document import Column, Document, Pairs, Plot, RecordColumns, Section, Table, Tile
from .look import LISTED
from .pool import MAPPED, Ints, Pool, Wanted
from .reach import Ends
from .sections import measured

NAMES = ("A", "B")
SAMPLED = 100_000  # pairs that are compared
UNTOLD = "too few or too equal to correlate"


def compare(first: AnyBlock, second: AnyBlock, wanted: Wanted) -> Document:
    """What the second cache says otherwise than the first about the records that both have.

    Raises:
        InputError: they have no example, or other targets, in common.
    """
    if (not first.cache.square and first.target_key != second.target_key) or first.cache.square != second.cache.square:
        raise InputError(f"{first.cache.path} and {second.cache.path} have other targets; nothing to compare")
    pools = [Pool(block, None, wanted) for block in (first, second)]
    places = common(*(pool.records for pool in pools))
    if not len(places[0]):
        raise InputError(f"{first.cache.path} and {second.cache.path} have no example in common; nothing to compare")
    records = [pools[0].records[place] for place in places[0].tolist()]
    n = len(records)
    mean = [pool.reach.mean[at] for pool, at in zip(pools, places, strict=True)]
    change = mean[1] - mean[0]
    chosen = [_members(pool.subsets[0], at) for pool, at in zip(pools, places, strict=True)]
    columns = [*said(records)]
    if pools[0].field is not None:
        labels = [pools[0].labels[place] for place in places[0].tolist()]
        columns.insert(1, Column("group", pools[0].field, "text", labels))
    for name, values, ranks in zip(NAMES, mean, chosen, strict=True):
        columns.append(Column.figures(f"mean{name}", f"mean utility in {name}", "signed", values))
        columns.append(Column(f"place{name}", f"place in {name}", "count", [rank or None for rank in ranks.tolist()]))
    columns.append(Column.figures("change", "change", "signed", change, "of the mean utility, B less A"))
    losses: list[np.ndarray] = []
    ends: list[Pairs] = []
    if all(pool.square for pool in pools):
        losses = [-pool.block.cache.base_logprob[at] for pool, at in zip(pools, places, strict=True)]
        columns += [
            Column.figures(f"loss{name}", f"loss in {name}", "number", loss)
            for name, loss in zip(NAMES, losses, strict=True)
        ]
        ends = [
            Pairs(f"helps most in {name}", "records", _among(pool, at))
            for name, pool, at in zip(NAMES, pools, places, strict=True)
        ]
    sets = {"records": RecordColumns("records", records, {column.key: column for column in columns}, ends)}
    both = int(((chosen[0] > 0) & (chosen[1] > 0)).sum())
    sizes = [int((ranks > 0).sum()) for ranks in chosen]
    chance = sizes[0] * sizes[1] / n
    ranked = findings.rank_correlation(*mean)
    facts = [
        ("records", f"{n:,} in both" + "".join(
            f", {len(pool) - n:,} in {name} alone" for name, pool in zip(NAMES, pools, strict=True) if len(pool) > n)),
        ("mean utilities", f"{_correlated(ranked)} over the records"),
        ("subsets", f"{sizes[0]:,} in A, {sizes[1]:,} in B, {both:,} in both; by chance it would be {chance:,.0f}"),
    ]  # fmt: skip
    alike = _pairs_alike(pools, places, wanted.seed)
    if alike is not None:
        facts.append(("pairs", f"{_correlated(alike)} of the utilities of pairs drawn at random"))
    if losses:
        means = " in A, ".join(f"{loss.mean():.3f}" for loss in losses)
        alike = findings.rank_correlation(*losses)
        facts.append(("loss", f"mean {means} in B, nats per token; {_correlated(alike)}"))
    turned = int((mean[0] * mean[1] < 0).sum())
    alike_said, too_few = ("?", f": {UNTOLD}") if np.isnan(ranked) else (f"{ranked:.2f}", "")
    tiles = [
        Tile(alike_said, f"rank correlation of the records' mean utilities{too_few}", "plot-values"),
        Tile(f"{both:,} of {sizes[0]:,}", f"of A's subset are in B's too; by chance {chance:,.0f} would be", "subsets"),
        Tile.of(turned, "record", " whose mean utility has one sign in A and the other in B", "table-changed"),
    ]
    known = np.flatnonzero(~np.isnan(change))
    order = known[np.argsort(-np.abs(change[known]), kind="stable")]
    keys = ("id", "change", "meanA", "meanB", "placeA", "placeB", "lossA", "lossB", "group", "prompt", "response")
    only = [np.flatnonzero((chosen[a] > 0) & (chosen[1 - a] == 0)) for a in (0, 1)]
    shown = np.sort(np.random.default_rng(wanted.seed).choice(known, min(MAPPED, len(known)), replace=False))
    plot = Plot(
        "values",
        "Values",
        "Each record's mean utility in A and in B; far from the dashed line, where both are equal, are those that "
        "changed.",
        ("mean utility in A", "mean utility in B"),
        of="records",
        places=shown,
        x=[round(float(value), 5) for value in mean[0][shown]],
        y=[round(float(value), 5) for value in mean[1][shown]],
        colours=[key for key in ("group", "change", "placeA", "placeB") if key in sets["records"].columns],
        equal=True,
    )
    tables = [
        Table("changed", "Changed records", f"The largest changes first.{_more(len(order))}", "records",
              order[:LISTED], keys),
        *(Table(f"only{name}", f"Selected in {name} alone", "", "records", places_, keys, empty="none")
          for name, places_ in zip(NAMES, only, strict=True)),
        Table("records", "All records", "", "records", np.arange(n), keys),
    ]  # fmt: skip
    sections = [
        Section("compared", "What changed", tiles=tiles, facts=facts, plots=[plot], tables=tables[:1]),
        Section("subsets", "The subsets", tables=tables[1:3]),
        Section("all", "Everything", tables=tables[3:]),
        *(_measured(pool, name) for name, pool in zip(NAMES, pools, strict=True)),
    ]
    names = [pool.block.cache.path.name for pool in pools]
    paths = names if names[0] != names[1] else [str(pool.block.cache.path) for pool in pools]
    return Document(
        f"delift report: {names[0]} and {names[1]}",
        f"A is {paths[0]}, B is {paths[1]}.",
        sections,
        sets,
    )


def common(a: Sequence[Record], b: Sequence[Record]) -> tuple[Ints, Ints]:
    """Where records that two pools have in common stand in each, in the first one's order; copies one for one."""
    found = found_again(a, b)
    there = np.flatnonzero(found >= 0)
    return there, found[there]


def _members(subset: Choice, places: Ints) -> Ints:
    """int64: each record's place in a subset, from 1; 0 where it is not in it."""
    rank = np.zeros(int(max(places.max(initial=-1), subset.places.max(initial=-1))) + 1, np.int64)
    rank[subset.places] = np.arange(1, len(subset) + 1)
    return rank[places]


def _among(pool: Pool, places: Ints) -> Ends:
    """Whom the common records help most, those that the other pool lacks left out."""
    number = np.full(len(pool) + 1, -1, np.int32)
    number[places] = np.arange(len(places))
    return Ends(number[pool.reach.helped.other[places]], pool.reach.helped.utility[places])


def _measured(pool: Pool, name: str) -> Section:
    section = measured(pool)
    return replace(section, id=f"measured{name}", title=f"What was measured in {name}")


def _pairs_alike(pools: Sequence[Pool], places: Sequence[Ints], seed: int) -> float | None:
    """Rank correlation of utilities over a sample of the pairs; None unless both caches have all of them."""
    if not all(isinstance(pool.block, Block) and pool.square for pool in pools):
        return None
    draw = np.random.default_rng(seed).integers(0, len(places[0]), (2, SAMPLED))
    draw = draw[:, draw[0] != draw[1]]
    found = []
    for pool, at in zip(pools, places, strict=True):
        cache = pool.block.cache
        assert isinstance(cache, Cache)
        found.append(block_utilities(cache, pool.options.utility, *at[draw]))
    return findings.rank_correlation(*found)


def _correlated(ranks: float) -> str:
    return UNTOLD if np.isnan(ranks) else f"rank correlation {ranks:.2f}"


def _more(count: int) -> str:
    return f" {count:,} records, the first {LISTED:,} listed." if count > LISTED else ""
