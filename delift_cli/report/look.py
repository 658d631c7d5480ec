"""The records worth a look: harmful, suspect, the same twice, covered by nothing, far from the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..amount import counted
from ..selection.hygiene import ALIKE
from ..selection.suspects import SUSPECT, Suspects
from ..visible import in_a_shell
from . import findings
from .document import Column, Section, Table
from .pool import SEARCHED, Ints, Pool

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
    if pool.square or pool.aims_reach is not None:
        tables.append(_uncovered(pool))
    if pool.apart is not None:
        far = findings.outliers(pool.apart)
        tables.append(
            Table(
                "outliers",
                "Outliers",
                _of(
                    "These neither help nor are helped much by any record: the last twentieth by mean rank in both.",
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


def _uncovered(pool: Pool) -> Table:
    reach, of = (pool.reach, "records") if pool.aims_reach is None else (pool.aims_reach, "targets")
    bare = findings.uncovered(reach)
    about, empty = "No other measured record makes these answers more likely.", "Every record is helped by another one."
    another = "no other"
    if of == "targets":
        about = "No measured record of the pool makes these answers more likely."
        empty = "Every target is helped by some record."
        another = "no record"
    about = _of(about, bare, of[:-1])
    if unjudged := int(np.isnan(reach.covered).sum()):
        are = "is" if unjudged == 1 else "are"
        about = f"{about} {counted(unjudged, of[:-1])} {are} measured behind {another} and not judged.".lstrip()
        empty = "none" if unjudged == len(reach.covered) else "Every other one is helped."
    keys = ("id", "covered", "offered", "loss", *SAID)
    return Table("uncovered", f"Uncovered {of}", about, of, bare[:LISTED], keys, empty=empty)


def _suspects(pool: Pool, found: Suspects) -> Table:
    ranked = found.worst(len(pool))
    about = (
        "Neither its prompt nor having seen how the nearest prompts are answered makes these answers much likelier "
        "to the model. The first are worth reading; hard and odd records are among them too."
    )
    if found.alone is None:
        command = f"delift inspect {in_a_shell(Path(pool.block.cache.path.name))} --suspects {LISTED}"
        about = (
            "The model finds these answers unlikely though it has seen how the nearest prompts are answered. Running "
            f"it once more, without the prompts, tells much better: {command}, then this report again."
        )
    elif not found.telling:
        about += " But hardly any answer is likelier behind its prompt to this model: the order says little."
    else:
        about += f" Doubtful, with a suspicion above {SUSPECT:g}: {counted(len(found.doubtful), 'answer')}."
    if same := int(found.boilerplate.sum()):
        about += f" Boilerplate comes first: {counted(same, 'long answer')}, word for word the same to unlike prompts."
    if unjudged := len(pool) - len(ranked):
        are = "is" if unjudged == 1 else "are"
        about += f" {counted(unjudged, 'record')} {are} measured behind none of their kin and not judged."
    whole = ("behind", "alone") if found.alone is not None else ()  # else suspicion is the loss behind kin
    keys = ("id", "suspicion", "loss", *whole, *SAID)
    empty = "Too few pairs are measured to judge any record."
    return Table("suspects", "Suspected wrong answers", about, "records", suspected(pool, found), keys, empty=empty)


def suspected(pool: Pool, found: Suspects) -> Ints:
    """Whose answers are listed, the most suspect first: a fifth of a pool, within limits."""
    return found.worst(min(LISTED, max(20, len(pool) // 5)))


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
