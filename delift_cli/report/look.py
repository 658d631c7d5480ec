"""The records worth a look: harmful, suspect, the same twice, covered by nothing, far from the others."""

from __future__ import annotations

import numpy as np

from ..amount import counted
from ..selection.suspects import Suspects
from . import findings
from .document import Column, Section, Table
from .pool import ALIKE, SEARCHED, Pool

LISTED = 500  # rows of a list
SAID = ("group", "prompt", "response")  # what a list says of a record behind its figures


def to_look_at(pool: Pool) -> Section:
    """Records worth a look, for different reasons."""
    reach = pool.reach
    tables = []
    worst = findings.harmful(reach)
    tables.append(
        Table(
            "harmful",
            "Harmful to others",
            _of("Behind these the model finds the others' answers less likely, on average.", worst, "record"),
            "records",
            worst[:LISTED],
            ("id", "mean", "harmful", "pairs", *SAID),
            empty="No record harms the others on average.",
        )
    )
    if pool.suspects is not None:
        tables.append(_suspects(pool, pool.suspects))
    tables.append(_near_duplicates(pool))
    aims = pool.aims_reach
    if aims is not None:
        bare = findings.uncovered(aims)
        tables.append(
            Table(
                "uncovered",
                "Uncovered targets",
                _of("No measured record of the pool makes these answers more likely.", bare, "target"),
                "targets",
                bare[:LISTED],
                ("id", "covered", "offered", "loss", "prompt", "response"),
                empty="Every target is helped by some record.",
            )
        )
    elif pool.square:
        bare = findings.uncovered(reach)
        tables.append(
            Table(
                "uncovered",
                "Uncovered records",
                _of("No other measured record makes these answers more likely.", bare, "record"),
                "records",
                bare[:LISTED],
                ("id", "covered", "offered", "loss", *SAID),
                empty="Every record is helped by another one.",
            )
        )
    if pool.apart is not None:
        far = findings.outliers(pool.apart)
        tables.append(
            Table(
                "outliers",
                "Outliers",
                _of(
                    "These neither help nor are helped much by any record: the last twentieth by both together.",
                    far,
                    "record",
                ),
                "records",
                far[:LISTED],
                ("id", "apart", "covered", "gives", "loss", *SAID),
                empty="No record stands apart from the others.",
            )
        )
    return Section("look", "Records to look at", tables=tables)


def _suspects(pool: Pool, found: Suspects) -> Table:
    ranked = found.worst(len(pool))
    about = (
        "Neither its prompt nor having seen how the nearest prompts are answered makes these answers much likelier "
        "to the model. The first are worth reading; hard and odd records are among them too."
    )
    if found.alone is None:
        command = f"delift inspect {pool.block.cache.path.name} --suspects {LISTED}"
        about = (
            "The model finds these answers unlikely though it has seen how the nearest prompts are answered. Running "
            f"it once more, without the prompts, tells much better: {command}, then this report again."
        )
    if unjudged := len(pool) - len(ranked):
        about += f" {unjudged:,} records are measured behind none of their kin and are not judged."
    listed = ranked[: min(LISTED, max(20, len(pool) // 5))]
    keys = ("id", "suspicion", "loss", "behind", "alone", *SAID)
    empty = "Too few pairs are measured to judge any record."
    return Table("suspects", "Suspected wrong answers", about, "records", listed, keys, empty=empty)


def _near_duplicates(pool: Pool) -> Table:
    first, size = np.unique(pool.alike, return_counts=True)
    large = first[size > 1]
    order = np.argsort(-size[size > 1], kind="stable")
    number = {int(place): rank for rank, place in enumerate(large[order].tolist(), start=1)}
    inside = np.flatnonzero(np.isin(pool.alike, large))
    group = np.array([number[int(pool.alike[place])] for place in inside.tolist()], np.int64)
    order = np.argsort(group, kind="stable")
    which = f"Texts that are nearly the same (cosine of n-grams {ALIKE} or more)"
    if len(pool) > SEARCHED:
        which = f"Copies up to case and white space (in pools of over {SEARCHED:,} records alone these are looked for)"
    about = _of(
        f"{which}, in {counted(len(number), 'group')}.",
        inside,
        "record",
    )
    columns = [Column.figures("same", "group of copies", "count", group[order][:LISTED])]
    return Table(
        "alike",
        "Near-duplicates",
        about,
        "records",
        inside[order][:LISTED],
        ("id", "mean", *SAID),
        columns,
        "No two texts are nearly the same.",
    )


def _of(about: str, places: np.ndarray, what: str) -> str:
    """With how many there are; nothing where there are none, which the table says."""
    if not len(places):
        return ""
    return f"{about} {counted(len(places), what)}" + (
        f", the first {LISTED:,} listed." if len(places) > LISTED else "."
    )
