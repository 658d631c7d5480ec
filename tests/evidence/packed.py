"""Lines of results in less than half of their room: what an earlier line holds already is not written again.

Of a run's line these are written otherwise, and read as they were:

    chosen   the places that the ids have in an earlier `chosen` of the pool which has all of them
    tokens   the name of an earlier run of the pool that was tested on as many, record by record
    exact    a 1 or a 0 for each held-out record, as one text
    heldout  the name of the run that this one is the same as
"""

from __future__ import annotations

from typing import Any

Line = dict[str, Any]
TESTED = ("heldout", "heldout-existing", "heldout-fresh")


class Lines:
    """The runs that are in a file so far, for the next line to refer to."""

    def __init__(self) -> None:
        self._named: dict[str, Line] = {}
        self._of_pool: dict[str, list[Line]] = {}

    def packed(self, line: Line) -> Line:
        """A line as it is written behind the others, which it then joins."""
        packed = self._packed(line) if _is_run(line) else line
        self._join(line)
        return packed

    def unpacked(self, line: Line) -> Line:
        """A line as it was before it was written, which it then joins."""
        found = self._unpacked(line) if _is_run(line) else line
        self._join(found)
        return found

    def _join(self, line: Line) -> None:
        if _is_run(line) and line["name"] not in self._named:
            self._named[line["name"]] = line
            self._of_pool.setdefault(line["pool"], []).append(line)

    def _packed(self, line: Line) -> Line:
        measured, earlier = dict(line["measured"]), self._of_pool.get(line["pool"], [])
        same = self._named.get(measured.get("same_as", ""), {"measured": {}})
        for role in TESTED:
            if role not in measured:
                continue
            if measured[role] == same["measured"].get(role):
                measured[role] = measured["same_as"]
                continue
            tested = dict(measured[role])
            alike = (e["name"] for e in earlier if e["measured"].get(role, {}).get("tokens") == tested["tokens"])
            tested["tokens"] = next(alike, tested["tokens"])
            tested["exact"] = "".join("01"[right] for right in tested["exact"])
            measured[role] = tested
        packed = {**line, "measured": measured}
        whole = next((e for e in earlier if {*line["chosen"]} <= {*e["chosen"]}), None)
        if whole is not None:
            place = {id_: at for at, id_ in enumerate(whole["chosen"])}
            packed["chosen"] = {"of": whole["name"], "places": [place[id_] for id_ in line["chosen"]]}
        return packed

    def _unpacked(self, line: Line) -> Line:
        measured = dict(line["measured"])
        for role in TESTED:
            tested = measured.get(role)
            if isinstance(tested, str):
                measured[role] = self._named[tested]["measured"][role]
            elif tested is not None:
                tested = dict(tested)
                if isinstance(tested["tokens"], str):
                    tested["tokens"] = self._named[tested["tokens"]]["measured"][role]["tokens"]
                if isinstance(tested["exact"], str):
                    tested["exact"] = [right == "1" for right in tested["exact"]]
                measured[role] = tested
        chosen = line["chosen"]
        if isinstance(chosen, dict):
            whole = self._named[chosen["of"]]["chosen"]
            chosen = [whole[place] for place in chosen["places"]]
        return {**line, "chosen": chosen, "measured": measured}


def _is_run(line: Line) -> bool:
    return {"name", "pool", "chosen", "measured"} <= line.keys()
