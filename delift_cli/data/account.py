"""What was read, left out and ignored: the counts of a set of records as data, and in lines for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..amount import counted
from .fields import quoted
from .record import RecordSet

_DROPPED = {
    "unanswered": "behind the last scored turn left out",
    "masked": "of the assistant masked, not scored",
    "empty": "of the assistant empty, not scored",
}


def account(records: RecordSet) -> dict[str, Any]:
    """The counts: layouts, notes (those on records that can be read in two ways also apart), turns that are not
    scored, rejected records by reason, repeated ids, exact copies, and ignored fields by layout."""
    return {
        "source": records.source,
        "records": len(records.records),
        "layouts": records.layouts,
        "notes": records.notes,
        "ambiguous": records.ambiguous,
        "turns_not_scored": records.dropped,
        "left_out": records.reasons,
        "repeated_ids": records.repeated_ids,
        "duplicates": records.duplicates,
        "ignored": records.ignored,
    }


def account_lines(sets: Iterable[RecordSet], *, ignored: bool = False) -> list[tuple[str, str]]:
    """The same as rows of name and text, for one set or several; nothing where there is nothing to say."""
    lines: list[tuple[str, str]] = []
    several = [*sets]
    for records in several:
        where = f"{records.source}: " if len(several) > 1 else ""
        lines += [("read as", f"{where}{note} ({counted(count, 'record')})") for note, count in records.notes.items()]
        for reason, count in records.dropped.items():
            lines.append(("turns", f"{where}{counted(count, 'turn')} {_DROPPED[reason]}"))
        for reason, count in list(records.reasons.items())[:8]:
            lines.append(("left out", f"{where}{counted(count, 'record')}: {reason}"))
        if (more := len(records.reasons) - 8) > 0:
            lines.append(("left out", f"{where}and for {counted(more, 'other reason')}; --json has them all"))
        if records.rejected:
            first = records.rejected[0]
            lines.append(("", f"{where}the first of them: line {first.line}: {first.reason}"))
        if records.repeated_ids:
            lines.append(("ids", f"{where}{counted(records.repeated_ids, 'record')} with the id of an earlier one"))
        if records.duplicates:
            lines.append(("duplicates", f"{where}{records.duplicates:,} exact copies (kept)"))
        for layout, names in records.ignored.items() if ignored else ():
            shown = ", ".join(f"{name or quoted(name)} ({count:,})" for name, count in list(names.items())[:12])
            lines.append(("ignored", f"{where}{layout}: {shown}"))
    return lines
