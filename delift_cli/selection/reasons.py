"""Why a record is in a selection, or who made it redundant, and whom it harms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..amount import counted
from ..cache.anchors import weights_of
from ..data.ids import find_record
from ..data.record import Record
from ..display import Facts, Lines
from ..errors import InputError
from ..submodular.explain import explain_chosen, explain_left_out, harmed
from ..visible import in_a_shell
from .blocks import KernelOptions, as_block
from .methods import AnyCache, opened_cache
from .run import select_records
from .shown import as_example


@dataclass(frozen=True, repr=False)
class Reasons(Facts):
    """Why one record was chosen, or not: `figures` has what `delift explain --json` prints."""

    record: Record
    figures: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The figures as data."""
        return self.figures

    def lines(self) -> Lines:
        """The same for people."""
        found = self.figures
        shown = " ".join((self.record.asked or self.record.response).split())[:72]
        lines = [("record", f"{found['id']} (line {self.record.line}): {shown}")]
        where = f"of the {found['selected']:,} selected from {found['of']:,}"
        if found["chosen"]:
            lines.append(("chosen", f"number {found['rank']:,} {where}, gain {found['gain']:.4f}"))
            lines.append(("without it", f"the others would cover {found['lost_without_it']:.4f} less"))
            for entry in found["covers"]:
                other = "nothing else"
                if entry["otherwise"] is not None:
                    other = f"{entry['otherwise']} with {entry['otherwise_similarity']:.4f}"
                lines.append(("covers", f"{entry['id']} with {entry['similarity']:.4f}; otherwise {other}"))
            if not found["covers"]:
                why = (
                    "what it adds, it adds behind others" if found["gain"] > 0 else "it was taken to fill the selection"
                )
                lines.append(("covers", f"no target best: {why}"))
        else:
            lines.append(("left out", f"not one {where}; it could still add {found['could_still_add']:.4f}"))
            if found["nearly_the_same"]:
                which = ", ".join(found["nearly_the_same"])
                lines.append(("like", f"{which}: one of them is enough as long as others are left"))
            if found["suspect"]:
                why = f"number {found['suspect']:,} of the doubtful answers, which come last"
                lines.append(("suspect", f"{why} (select --drop-suspects off: as any other)"))
            lines.append(("alone", f"it is worth {found['worth_alone']:.4f} over all targets"))
            for entry in found["made_redundant_by"]:
                share = f"{entry['targets']:,} of its targets, {entry['share']:.0%} of its worth"
                lines.append(("covered by", f"{entry['id']}: {share}"))
        harms = found["harms"]
        lines.append(("harms", f"{harms['targets']:,} of the {counted(harms['measured'], 'target')} measured"))
        return lines + [("", f"{entry['id']} by {entry['utility']:+.4f}") for entry in harms["most"]]


def explain_record(
    cache: AnyCache,
    record: str | int,
    k: str | int = "30%",
    *,
    objective: str | None = None,
    options: KernelOptions | None = None,
    top: int = 5,
) -> Reasons:
    """Why the record with this id is in the selection of `k`, or what made it redundant; and whom it harms.

    Args:
        cache: the pool's, a path or opened. objective: as for `select_records`. top: how many lines of each kind.

    Raises:
        InputError: no record has this id, or as for `select_records`.
    """
    opened = opened_cache(cache)
    if not opened.square and weights_of(opened) is None:
        raise InputError(f"{opened.path} is not a pool scored against itself, which selections are explained of")
    try:
        place = find_record(opened.examples().records, record)
    except InputError as error:
        raise InputError(f"{opened.path}: {error}; delift inspect {in_a_shell(opened.path)} shows some") from None
    subset = select_records(opened, k, objective=objective, options=options)
    goal, pool, chosen = subset.goal, as_block(opened), subset.selection
    records = pool.examples
    # harm is said of measured pairs alone, and of other records than itself and its copies
    own = pool.excluded(KernelOptions(self_utility="exclude"))
    signed = pool.kernel(KernelOptions(subset.options.utility, "raw", estimates="off"), **own)
    harm = harmed(signed, place, top)
    measured, _ = as_example(opened, place)
    indices = chosen.indices.tolist()
    figures: dict[str, Any] = {
        "id": records[place].id,
        "chosen": place in indices,
        "selected": len(indices),
        "of": len(records),
    }
    if place in indices:
        rank = indices.index(place)
        found = explain_chosen(goal, chosen.indices, place, top)
        covered = zip(
            *(array.tolist() for array in (found.targets, found.value, found.otherwise, found.otherwise_value)),
            strict=True,
        )
        figures |= {
            "rank": rank + 1,
            "gain": float(chosen.gains[rank]),
            "lost_without_it": found.margin,
            "covers": [
                {
                    "id": pool.targets[target].id,
                    "similarity": value,
                    "otherwise": None if other < 0 else records[other].id,
                    "otherwise_similarity": other_value,
                }
                for target, value, other, other_value in covered
            ],
        }
    else:
        last = list(subset.doubted.last)
        missed = explain_left_out(goal, chosen.indices, place, top)
        by_whom = zip(missed.by.tolist(), missed.targets.tolist(), missed.share.tolist(), strict=True)
        figures |= {
            "nearly_the_same": [records[near].id for near in subset.clean.near_to(place) if near in indices],
            "suspect": last.index(place) + 1 if place in last else None,
            "could_still_add": missed.gain,
            "worth_alone": missed.total,
            "made_redundant_by": [
                {"id": records[by].id, "targets": targets, "share": share} for by, targets, share in by_whom
            ],
        }
    most = zip(harm.targets.tolist(), harm.utility.tolist(), strict=True)
    figures["harms"] = {
        "targets": harm.count,
        "measured": int((own["target_group"][measured] != own["example_group"][place]).sum()),
        "most": [{"id": pool.targets[target].id, "utility": utility} for target, utility in most],
    }
    return Reasons(records[place], figures)
