"""The sections of a report on one pool, each from what `Pool` has computed: one short function a section, in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..amount import counted
from ..cache.anchors import weights_of
from ..cache.contents import how_measured
from ..cache.figures import utility_in_words
from ..cache.sparse import SparseCache
from ..data.groups import group_sizes
from ..data.record import Record
from ..selection.blocks import COUNTED, AnyBlock, KernelOptions, PartialBlock
from ..visible import visible
from . import findings
from .choices import CHANGE, Choice
from .columns import record_columns, target_columns
from .document import Column, Document, Line, Plot, RecordColumns, Section, Table
from .look import SAID, to_look_at
from .pool import Pool
from .summary import in_short

CURVE_POINTS = 300


def document(pool: Pool) -> Document:
    """The whole report."""
    cache = pool.block.cache
    sets = {"records": record_columns(pool)}
    if pool.targets_are == "anchors":
        sets["anchors"] = target_columns("anchors", pool.block, pool.reach)
    if pool.aims is not None and pool.aims_reach is not None:
        sets["targets"] = target_columns("targets", pool.aims, pool.aims_reach)
    model = cache.manifest["model"]
    lead = f"{counted(len(pool), 'record')}, as {model['name']} sees them; made by delift from {cache.path.name}."
    sections = [
        in_short(pool),
        measured(pool),
        where(pool, sets["records"]),
        worth(pool),
        taken_and_left(pool),
        to_look_at(pool),
        chosen(pool),
        everything(sets),
    ]
    if pool.partial_block is not None:
        sections.insert(-1, certainty(pool, pool.partial_block))
    return Document(f"delift report: {cache.path.name}", lead, sections, sets)


def measured(pool: Pool) -> Section:
    """What was measured, with what."""
    blocks = [pool.block] + ([pool.aims] if pool.aims not in (None, pool.block) else [])
    facts: list[tuple[str, str]] = []
    for block in blocks:
        cache, manifest = block.cache, block.cache.manifest
        n, m = cache.shape
        against = "each other" if cache.square else f"{counted(m, 'target')} from {manifest['targets']['source']}"
        if weights_of(cache) is not None:
            against = f"{m:,} of them that stand for all, so that values are estimates"
        facts.append(("records", f"{n:,} from {manifest['examples']['source']}, scored against {against}"))
        if isinstance(cache, SparseCache):
            share = f"{cache.pairs_done:,} of {n * m:,} ({cache.pairs_done / (n * m):.2%})"
            rounds = counted(len(cache.rounds), "round")
            facts.append(("pairs measured", f"{share} in {rounds}{_rest(block, pool.options)}"))
        else:
            facts.append(("pairs measured", f"all {n * m:,}"))
    for block in blocks:
        if isinstance(block, PartialBlock) and _rest(block, pool.options):
            facts.append(("estimates", _quality(block, pool.options)))
            facts += [("approximate", line) for line in block.approximations(pool.options)]
    manifest = pool.block.cache.manifest
    every = pool.reach_of_all
    utility = utility_in_words(every.mean_of_pairs, every.harmful_share, "measured pairs")
    facts += [
        *how_measured(manifest),
        ("utility", f"{pool.options.utility}: {utility}"),
        ("objective", f"{_objective(pool)} ({pool.options.utility}, {pool.options.transform}, "
                      f"{pool.block.left_out(pool.options)}{COUNTED[pool.count]})"),
    ]  # fmt: skip
    groups = (
        f"by the field {pool.field!r}, {counted(len(set(pool.labels)), 'value')}"
        if pool.field
        else "no field was found to group by"
    )
    facts.append(("groups", groups))
    return Section("measured", "What was measured", facts=facts)


def _objective(pool: Pool) -> str:
    """Its name with its parameters, as `select` says it."""
    return ", ".join([pool.goal.name, *(f"{name} {value:g}" for name, value in pool.goal.parameters.items())])


def _rest(block: AnyBlock, options: KernelOptions) -> str:
    """As what pairs that are not measured count in a selection; nothing where all are."""
    if not isinstance(block, PartialBlock) or block.cache.pairs_done == math.prod(block.cache.shape):
        return ""
    return "; the others are estimated" if block.estimated(options) else "; the others count as 0"


def where(pool: Pool, known: RecordColumns) -> Section:
    """The map."""
    mapped = pool.map
    sampled = (
        f" {len(mapped.places):,} of {len(pool):,} records, drawn at random." if len(mapped.places) < len(pool) else ""
    )
    colours = [key for key in ("group", "mean", "covered", "suspicion", "apart", "rank") if key in known.columns]
    plot = Plot(
        "map",
        "Map of the records",
        f"Records are placed {mapped.by}: those that are alike lie near.{sampled} "
        "Point at one to see it, click or press Enter to open it; drag to look closer, double-click to go back.",
        ("first component", "second component"),
        of="records",
        places=mapped.places,
        x=[round(float(value), 4) for value in mapped.points[:, 0]],
        y=[round(float(value), 4) for value in mapped.points[:, 1]],
        colours=colours,
    )
    return Section("map", "The map", plots=[plot])


def worth(pool: Pool) -> Section:
    """Value against size."""
    lines = [_line(subset.name, subset.curve, [len(subset)]) for subset in pool.subsets]
    lines.append(_line("a random order", pool.random_curve, []))
    whole = pool.whole
    rows = pool.subsets

    def share(values: Sequence[float | None]) -> list[float | None]:
        return [None if value is None or whole <= 0 else value / whole for value in values]

    at = [subset.value_at(len(subset)) for subset in rows]
    fewer, more = (
        [None if count == len(subset) else subset.value_at(count) for subset, count in zip(rows, counts, strict=True)]
        for counts in ([subset.fewer for subset in rows], [subset.more for subset in rows])
    )
    chance = [float(pool.random_curve[len(subset) - 1]) for subset in rows]
    columns = [
        Column("name", "subset", "text", [subset.name for subset in rows]),
        Column("k", "records", "count", [len(subset) for subset in rows]),
        Column.figures(
            "tokens", "tokens", "count", [int(pool.block.cache.example_tokens[s.places].sum()) for s in rows]
        ),
        Column.figures("value", "value", "number", at),
        Column.figures("share", "of the whole pool's", "share", share(at)),
        Column.figures("fewer", f"{CHANGE:.0%} fewer", "share", share(fewer), "the same order, cut off"),
        Column.figures("more", f"{CHANGE:.0%} more", "share", share(more), "with what greedy would take next"),
        Column.figures("chance", "random order", "share", share(chance)),
    ]
    if len(rows) > 1:
        first = set(rows[0].places.tolist())
        common = [len(first & set(subset.places.tolist())) / max(1, len(subset)) for subset in rows]
        columns.append(Column.figures("common", f"in common with {rows[0].name}", "share", common))
    missing = "".join(
        f" {s.name} has {counted(s.missing, 'record')} that the pool lacks, left out." for s in rows if s.missing
    )
    tables = [Table("subsets", "Subsets", f"Under the objective {_objective(pool)}.{missing}", columns=columns)]
    plot = Plot(
        "curve",
        "Value against size",
        "What the first records of each order are worth together. The mark is the size that was chosen; behind it "
        "stands what would be taken next.",
        ("records", "value"),
        lines=lines,
    )
    return Section("value", "Value against size", _said_of(rows[0], whole), plots=[plot], tables=tables)


def _said_of(subset: Choice, whole: float) -> str:
    """The subset's share of the whole pool's value, and what a tenth fewer and more records would make of it."""
    said = []
    for count in dict.fromkeys((len(subset), subset.fewer, subset.more)):
        value = subset.value_at(count)
        if value is not None and whole > 0:
            covers = "would cover" if count != len(subset) else f"cover{'s' * (count == 1)}"
            said.append(f"{counted(count, 'record')} {covers} {value / whole:.1%}")
    if not said:
        return ""
    return f"Of what the whole pool covers, {subset.name}: " + "; ".join(said) + "."


def taken_and_left(pool: Pool) -> Section:
    """Selected against left out, by group and by length."""
    tables = []
    if pool.field is not None:
        names = [name for name, _ in group_sizes(pool.labels)]
        number = {name: place for place, name in enumerate(names)}
        which = np.array([number[label] for label in pool.labels])
        tables.append(_shares(pool, "by-group", f"By {pool.field}", pool.field, names, which))
    which, names = findings.length_classes(pool.block.cache.example_tokens)
    tables.append(_shares(pool, "by-length", "By length", "length", names, which))
    about = "A lift above 1: more of the group is in the subset than in the pool."
    return Section("balance", "Selected against left out", about, tables=tables)


def chosen(pool: Pool) -> Section:
    """The subset's records with gain and reason."""
    tables = [_list(pool, subset, number) for number, subset in enumerate(pool.subsets)]
    return Section("selected", "Selected records", tables=tables)


def everything(sets: Mapping[str, RecordColumns]) -> Section:
    """All records with all figures."""
    tables = [
        Table(name, f"All {name}", "", name, np.arange(len(found.records)), (*_figures(found), *SAID))
        for name, found in sets.items()
    ]
    return Section("all", "Everything", tables=tables)


def _figures(found: RecordColumns) -> list[str]:
    return [key for key in found.columns if key not in SAID]


def certainty(pool: Pool, block: PartialBlock) -> Section:
    """How sure a choice is that rests on estimates."""
    options = pool.options
    partial = block.partial(options)
    facts = [
        ("pairs measured", f"{partial.share:.2%}"),
        ("estimates", _quality(block, options)),
        (
            "in the selection",
            "estimates count" if block.estimated(options) else "pairs that are not measured count as 0",
        ),
    ]
    tables = []
    if block.estimated(options):
        found = [partial.subset_value(s.places, **block.excluded(options)) for s in pool.subsets]
        columns = [
            Column("name", "subset", "text", [subset.name for subset in pool.subsets]),
            Column.figures(
                "measured", "by measured pairs alone", "number", [f.measured for f in found], "a lower bound"
            ),
            Column.figures("estimated", "estimated", "number", [f.estimated for f in found]),
            Column.figures("low", "95 % from", "number", [f.low for f in found]),
            Column.figures("high", "to", "number", [f.high for f in found]),
        ]
        tables.append(
            Table("sure", "What the subsets cover", "Facility location with the clip kernel.", columns=columns)
        )
    return Section("sure", "How sure the choice is", facts=facts, tables=tables)


def _list(pool: Pool, subset: Choice, number: int) -> Table:
    records = pool.records
    targets = records if pool.square else pool.block.targets
    said = zip(subset.best_of.tolist(), subset.first_of.tolist(), subset.gains.tolist(), strict=True)
    reasons = [_reason(targets, *entry) for entry in said]
    columns = [
        Column("order", "order", "count", list(range(1, len(subset) + 1))),
        Column.figures("gain", "gain", "number", subset.gains, "what it added to the value when it was taken"),
        Column.figures("without", "lost without it", "number", subset.without, "what the others would cover less"),
        Column("reason", "why", "text", reasons),
    ]
    return Table(
        f"selected-{number}", subset.name, f"{counted(len(subset), 'record')}, in the order in which they were taken.",
        "records", subset.places, ("id",), columns, after=("group", "prompt", "response"),
    )  # fmt: skip


def _reason(targets: Sequence[Record], best_of: int, first_of: int, gain: float) -> str:
    if best_of == 0:
        return "others that were taken cover its targets better" if gain > 0 else "adds nothing to those before it"
    most = "" if first_of < 0 or first_of >= len(targets) else f", above all {visible(targets[first_of].id)}"
    return f"covers {counted(best_of, 'target')} best{most}"


def _shares(pool: Pool, id: str, title: str, what: str, names: list[str], which: np.ndarray) -> Table:
    count = len(names)
    size = np.bincount(which, minlength=count)
    sums = np.bincount(which, np.nan_to_num(pool.reach.mean), count)
    known = np.bincount(which, ~np.isnan(pool.reach.mean), count)
    columns = [
        Column("name", what, "text", names),
        Column.figures("pool", "in the pool", "count", size),
        Column.figures(
            "mean", "mean utility", "signed", np.divide(sums, known, out=np.full(count, np.nan), where=known > 0)
        ),
    ]
    for number, subset in enumerate(pool.subsets):
        inside = np.bincount(which[subset.places], minlength=count)
        lift = np.divide(inside / max(1, len(subset)), size / len(pool), out=np.full(count, np.nan), where=size > 0)
        name = "" if len(pool.subsets) == 1 else f" {subset.name}"
        columns += [
            Column.figures(f"in{number}", f"selected{name}", "count", inside),
            Column.figures(
                f"of{number}",
                f"share selected{name}",
                "bar",
                np.divide(inside, size, out=np.zeros(count), where=size > 0),
            ),
            Column.figures(f"lift{number}", f"lift{name}", "number", lift, digits=3),
        ]
    return Table(id, title, "", columns=columns)


def _line(name: str, curve: np.ndarray, sizes: Sequence[int]) -> Line:
    at = np.unique(np.linspace(1, len(curve), min(CURVE_POINTS, len(curve))).round().astype(int))
    at = np.unique([*at, *sizes])
    marks = [(size, float(curve[size - 1]), f"{size:,}") for size in sizes]
    return Line(name, at.tolist(), [float(f"{value:.6g}") for value in curve[at - 1]], marks)


def _quality(block: PartialBlock, options: KernelOptions) -> str:
    """How well estimates predict pairs held out; a large pool takes minutes less where none are asked for."""
    if options.estimates == "off":
        return "none, as asked for"
    return block.partial(options).quality.words
