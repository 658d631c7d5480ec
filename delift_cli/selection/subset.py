"""The records that were chosen: as lines of a file, as figures, and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..amount import Amount, counted
from ..budget.partial_block import measured, measured_lines
from ..cache.anchors import weights_of
from ..data.record import Record
from ..data.writing import form_of
from ..display import Facts, Lines
from ..progress import Say, silent
from ..submodular.objectives import Objective
from ..submodular.select import Selection
from . import output
from .blocks import COUNTED, Count, KernelOptions, PartialBlock, Records
from .curve import curve_rows
from .hygiene import Hygiene, Repeats, repeats
from .methods import COVERING, WHAT
from .overwriting import refuse_to_destroy, source_folders
from .set_aside import SetAside

LET_GO = {"distinct": "near-copies", "drop_suspects": "doubtful answers"}


@dataclass(frozen=True, repr=False)
class Subset(Facts):
    """Chosen records in the order of their usefulness.

    selection: their places in the pool, gains, and how it came about. goal: what they were chosen by. pool: what they
    were chosen from. whole: the value of the whole pool. amount: how much was asked for, `asked` in the user's words.
    doubted: suspects that were left out or put last. count: what of a target counts alike, see `blocks.objective_over`.
    group: the field that limits go by, group_of: each record's value of it, at_least: how many were asked for at least.
    read: the files that it was made from. let_go: defaults that the way to search for it knows nothing of.
    """

    selection: Selection
    goal: Objective
    pool: Records
    whole: float
    method: str
    asked: str
    amount: Amount
    options: KernelOptions
    seed: int
    partial: Mapping[str, PartialBlock]
    clean: Hygiene = field(default_factory=Hygiene)
    doubted: SetAside = field(default_factory=SetAside)
    count: Count | None = None
    group: str | None = None
    group_of: Sequence[str] = ()
    at_least: Mapping[str, int] = field(default_factory=dict)
    read: Sequence[Path] = ()
    let_go: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.selection.indices)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @property
    def records(self) -> list[Record]:
        """The chosen records, the most useful first."""
        return [self.pool.examples[place] for place in self.selection.indices.tolist()]

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [record.id for record in self.records]

    @cached_property
    def repeats(self) -> Repeats:
        """What the chosen records have in common; looked for when it is first asked for."""
        return repeats(self.records, distinct=self.clean.near is not None and not self.clean.lenient)

    @cached_property
    def groups(self) -> dict[str, tuple[int, int]]:
        """By value of the field that limits go by, how many records were chosen and the pool has, most chosen first."""
        chosen = Counter(self.group_of[place] for place in self.selection.indices.tolist() if self.group_of)
        there = Counter(self.group_of)
        return {value: (chosen[value], there[value]) for value in sorted(there, key=lambda value: -chosen[value])}

    @property
    def missed(self) -> dict[str, tuple[int, int]]:
        """Values of which fewer were chosen than asked for: how many were, and were asked for."""
        chosen = {value: self.groups.get(value, (0, 0))[0] for value in self.at_least}
        return {value: (chosen[value], asked) for value, asked in self.at_least.items() if chosen[value] < asked}

    @property
    def strict(self) -> bool:
        """Were records that share a long answer kept from covering each other?"""
        return self.method in COVERING and self.options.self_utility == "exclude-answers"

    def form(self, destination: str | Path | None = None) -> str:
        """The container that the records go into: the one that a file's name says, else the one they came in."""
        return form_of(None if destination is None else Path(destination), self.pool.cache.manifest["examples"]["form"])

    def render(
        self,
        *,
        destination: str | Path | None = None,
        say: Say = silent,
        input_order: bool = False,
        with_scores: bool = False,
        ids_only: bool = False,
    ) -> bytes:
        """The records as they came in, in the container that the name of `destination` says; see `output.render`.

        Raises:
            InputError: the container is not for these, as one of records is not for ids.
        """
        form = self.form(destination)
        output.check_form(form, None if destination is None else Path(destination), ids_only=ids_only)
        return output.render(
            self.pool.examples,
            self.selection,
            form=form,
            whole=self.whole,
            came=self.form(),
            source=self.pool.cache.manifest["examples"]["source"],
            folders=source_folders(self.pool.cache),
            say=say,
            input_order=input_order,
            with_scores=with_scores,
            ids_only=ids_only,
        )

    def curve(self) -> list[dict[str, object]]:
        """Value and gain against the number of records; see `curve_rows`."""
        return curve_rows(self.selection, [record.id for record in self.pool.examples], self.whole)

    def write(self, destination: str | Path, *, force: bool = False, **form: Any) -> None:
        """`render` into a file, whole or not at all; over a file that it was chosen from only with `force`."""
        refuse_to_destroy(
            {"the output": Path(destination)}, self.read, force=force, insist=", or insist with force=True"
        )
        output.write(self.render(destination=destination, **form), Path(destination))

    def as_dict(self) -> dict[str, Any]:
        """What was chosen, by what, how good it is."""
        selection, options, covering = self.selection, self.options, self.method in COVERING
        return {
            "selected": len(selection.indices),
            "pool": len(self.pool.examples),
            "tokens": int(self.pool.cache.example_tokens[selection.indices].sum()),
            "asked": self.asked,
            "method": self.method,
            "objective": selection.objective,
            "parameters": selection.parameters,
            "utility": {"delift": options.utility, "embedding": "cosine"}.get(self.method),
            "kernel": options.transform if covering else None,
            "self": options.self_utility if covering else None,
            "shared_answers": self.pool.shared_answers if self.strict else None,
            "count": self.count,
            "value": selection.value,
            "whole_pool": self.whole,
            "anchors": None if weights_of(self.pool.cache) is None else self.pool.cache.shape[1],
            "share": selection.value / self.whole if self.whole > 0 else None,
            "saturated_at": selection.saturated_at,
            "filled": len(selection.indices) - selection.filled_from,
            "stopped": selection.stopped,
            **({"groups": {"field": self.group, "chosen_of": self.groups}} if self.group else {}),
            **({"at_least_missed": self.missed} if self.missed else {}),
            **self.doubted.as_dict(selection.indices.tolist()),
            **self.repeats.as_dict(),
            "greedy": selection.method,
            "defaults_let_go": list(self.let_go),
            "seed": self.seed if self.method == "random" else selection.seed,
            "rule": selection.rule,
            "guarantee": selection.guarantee_note,
            "at_least_of_optimum": selection.value / selection.optimum_bound if selection.optimum_bound else None,
            "model_sha256": self.pool.cache.manifest["model"]["sha256"],
            "measured": {role: self._measured(block) for role, block in self.partial.items()},
            **self.clean.as_dict(),
        }

    def lines(self) -> Lines:
        """The same for people, as rows of name and text."""
        found, selection = self.as_dict(), self.selection
        covering = self.method in COVERING
        parameters = "".join(f", {name} {number:g}" for name, number in found["parameters"].items())
        tokens = self.amount.tokens
        budget = f", budget {counted(tokens, 'token')}, by {selection.rule}" if tokens is not None else ""
        whole = "what the whole pool reaches" if covering else "the pool's"
        share = "" if found["share"] is None else f", {found['share']:.1%} of {whole}"
        seed = f" (seed {found['seed']})" if self.method == "random" else ""
        pool = counted(found["pool"], "record")
        rows = [
            ("selected", f"{found['selected']:,} of {pool}, {counted(found['tokens'], 'token')}{budget}"),
            ("method", f"{self.method}: {WHAT[self.method]}{seed}"),
        ]
        rows += self.doubted.lines(self.pool.cache.path, selection.indices.tolist())
        if covering:
            how = f"{found['utility']}, {found['kernel']}, {self.pool.left_out(self.options)}"
            how += COUNTED[self.count or "records"]
            rows.append(("objective", f"{found['objective']}{parameters} ({how})"))
        if covering:
            rows.append(("value", f"{found['value']:.4f}{share}"))
        elif self.method != "random":  # whose numbers mean nothing
            rows.append(("scores", f"{found['value']:,.4f} in all{share}"))
        if covering and found["anchors"]:
            which = f"{counted(found['anchors'], 'record')} stand{'s' * (found['anchors'] == 1)} for all as targets"
            rows.append(("anchors", f"{which}: the value is an estimate"))
        if covering and found["at_least_of_optimum"]:
            proven = f"proven in general: {selection.guarantee_note}"
            best = f"best subset{' without suspects' if found['suspects_last'] and not found['suspects_taken'] else ''}"
            rows.append(("quality", f"at least {found['at_least_of_optimum']:.1%} of the {best}; {proven}"))
        if found["shared_answers"]:
            which = f"{found['shared_answers']:,} records of the pool give unlike prompts one long answer"
            rows.append(("shared", f"{which}: none covers another (--self exclude: they may)"))
        if self.let_go:
            which = " and ".join(LET_GO[option] for option in self.let_go)
            rows.append(("greedy", f"{selection.method}: takes {which} as any others; exact greedy puts them last"))
        rows += self.clean.lines()
        rows += self.repeats.lines(self.pool.cache.path)
        if selection.stopped == "until":
            taken = found["selected"] / found["pool"]
            enough = f"gains fell under the limit: {taken:.1%} of the pool was enough"
            rows.append(("stopped", enough if found["selected"] else "no record gains anything"))
        if selection.stopped == "exhausted":
            all_taken = found["selected"] == found["pool"]
            why = "the whole pool is taken" if all_taken else "no other record is admissible under the limits given"
            rows.append(("stopped", why))
        if self.group:
            shown = [f"{value} {taken:,} of {there:,}" for value, (taken, there) in list(self.groups.items())[:8]]
            more = f" and {len(self.groups) - 8:,} more" if len(self.groups) > 8 else ""
            rows.append((f"by {self.group}", ", ".join(shown) + more))
        if self.missed:
            short = [f"{value} {there:,} of {asked:,}" for value, (there, asked) in list(self.missed.items())[:8]]
            more = f" and {len(self.missed) - 8:,} more" if len(self.missed) > 8 else ""
            rows.append(("short", f"fewer than were to be at least: {', '.join(short)}{more}"))
        if selection.saturated_at is not None:
            rows.append(("saturated", self._saturated(selection.saturated_at, found["filled"])))
        for part in found["measured"].values():
            others = "estimated" if part["estimates"] == "on" else "counted as 0"
            unmeasured = f", unmeasured pairs {others}" if part["pairs_measured"] < part["pairs_all"] else ""
            rows += [("cache", f"{part['cache']}{unmeasured}"), *measured_lines(part)]
            if "covered" in part:
                covered = part["covered"]
                interval = f"95 % interval {covered['low']:.4f} to {covered['high']:.4f}"
                alone = f"{covered['measured']:.4f} by measured pairs alone"
                rows.append(("coverage", f"by fl, {covered['estimated']:.4f} estimated ({interval}), {alone}"))
        return rows

    def _saturated(self, taken: int, filled: int) -> str:
        """That no more is gained after so many records, and how many were taken all the same."""
        said = f"nothing more to gain after {counted(taken, 'record')}" if taken else "no record gains anything"
        if not filled:
            return said
        one = filled == 1
        others = f"the other {'one' if one else format(filled, ',')}" if taken else counted(filled, "record")
        if self.method == "ifd":
            return f"{said}; {others} {'has' if one else 'have'} a ratio above 1"
        return f"{said}; {others} {'was' if one else 'were'} taken by what {'it' if one else 'each'} is worth alone"

    def _measured(self, block: PartialBlock) -> dict[str, Any]:
        """What of a block was measured and, where estimates count, what the choice covers by them."""
        partial = block.partial(self.options)
        estimated = block.estimated(self.options)
        found = {"cache": str(block.cache.path), "estimates": "on" if estimated else "off", **measured(partial)}
        if block is self.pool and estimated:
            covered = partial.subset_value(self.selection.indices, **block.excluded(self.options))
            found["covered"] = asdict(covered)
        return found
