"""One `delift select` from end to end: caches, an objective, limits, and the records that were chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..amount import Amount, parse_amount, parse_share
from ..budget.partial_block import measured, measured_lines
from ..cache.anchors import weights_of
from ..cache.sidecar import keep, read_kept
from ..data.folders import kind_of
from ..data.limits import labels, named_indices, read_quotas
from ..data.record import Record
from ..data.writing import form_of
from ..display import Facts, Lines
from ..errors import InputError, check_choice
from ..progress import Progress, Say, silent
from ..submodular.objectives import Objective, value
from ..submodular.select import Method as Greedy
from ..submodular.select import Selection, select
from . import blocks, output
from .blocks import COUNTED, AnyBlock, Count, KernelOptions, PartialBlock, Records
from .curve import curve_rows
from .first_gains import gains_file
from .hygiene import ANY, Hygiene, Repeats, benchmarks, hygiene, repeats
from .larger_than_memory import beyond_memory
from .methods import (
    COVERING,
    WHAT,
    AnyCache,
    Method,
    OpenModel,
    cosine_blocks,
    defaults_for,
    objective_for,
    opened_cache,
    per_record,
    scored_blocks,
)
from .overwriting import files_read, refuse_to_destroy, source_folders
from .set_aside import OFF, SetAside, set_aside

LET_GO = {"distinct": "near-copies", "drop_suspects": "doubtful answers"}


@dataclass(frozen=True, repr=False)
class Subset(Facts):
    """Chosen records in the order of their usefulness.

    selection: their places in the pool, gains, and how it came about. goal: what they were chosen by. pool: what they
    were chosen from. whole: the value of the whole pool. amount: how much was asked for, `asked` in the user's words.
    doubted: suspects that were left out or put last. count: what of a target counts alike, see `blocks.objective_over`.
    missed: how many there are of values of which at least so many were asked for, (there, asked for).
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
    missed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
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
        if ids_only and destination is not None and kind_of(Path(destination).name):
            raise InputError(f"{destination}: ids are lines of text, not a file of records; name it .txt, say")
        return output.render(
            self.pool.examples,
            self.selection,
            form=self.form(destination),
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
        budget = f", budget {tokens:,} tokens, by {selection.rule}" if tokens is not None else ""
        whole = "what the whole pool reaches" if covering else "the pool's"
        share = "" if found["share"] is None else f", {found['share']:.1%} of {whole}"
        seed = f" (seed {found['seed']})" if self.method == "random" else ""
        rows = [
            ("selected", f"{found['selected']:,} of {found['pool']:,} records, {found['tokens']:,} tokens{budget}"),
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
            rows.append(("anchors", f"{found['anchors']:,} records stand for all as targets: the value is an estimate"))
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
            rows.append(("stopped", f"gains fell under the limit: {taken:.1%} of the pool was enough"))
        if selection.stopped == "exhausted":
            all_taken = found["selected"] == found["pool"]
            why = "the whole pool is taken" if all_taken else "no other record is admissible under the limits given"
            rows.append(("stopped", why))
        if self.missed:
            short = [f"{value} {there:,} of {asked:,}" for value, (there, asked) in list(self.missed.items())[:8]]
            more = f" and {len(self.missed) - 8:,} more" if len(self.missed) > 8 else ""
            rows.append(("short", f"fewer than were to be at least: {', '.join(short)}{more}"))
        if selection.saturated_at is not None:
            rest = f"; the other {found['filled']:,} were taken by what each is worth alone" if found["filled"] else ""
            if self.method == "ifd" and found["filled"]:
                rest = f"; the other {found['filled']:,} have a ratio above 1"
            rows.append(("saturated", f"nothing more to gain after {selection.saturated_at:,} records{rest}"))
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

    def _measured(self, block: PartialBlock) -> dict[str, Any]:
        """What of a block was measured and, where estimates count, what the choice covers by them."""
        partial = block.partial(self.options)
        estimated = block.estimated(self.options)
        found = {"cache": str(block.cache.path), "estimates": "on" if estimated else "off", **measured(partial)}
        if block is self.pool and estimated:
            covered = partial.subset_value(self.selection.indices, **block.excluded(self.options))
            found["covered"] = asdict(covered)
        return found


def select_records(
    cache: AnyCache | None = None,
    k: str | int = "30%",
    *,
    target: AnyCache | None = None,
    existing: AnyCache | None = None,
    method: Method = "delift",
    objective: str | None = None,
    options: KernelOptions | None = None,
    eta: float | None = None,
    nu: float = 1.0,
    alpha: float | None = None,
    p: float = 2.0,
    beta: float = 1.0,
    depth: int = 3,
    count: Count | None = None,
    always: str | Path | None = None,
    never: str | Path | None = None,
    per: str | None = None,
    group: str | None = None,
    at_least: Sequence[str] = (),
    at_most: Sequence[str] = (),
    keep_shares: bool = False,
    shares: Sequence[str] = (),
    quality: str | None = None,
    not_like: Sequence[str] = (),
    distinct: str | None = None,
    drop_suspects: str | None = None,
    until: str | None = None,
    stop_at_zero: bool = False,
    greedy: Greedy = "exact",
    epsilon: float = 0.01,
    parts: int = 2,
    seed: int = 0,
    model: str | None = None,
    gpu_layers: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    say: Say = silent,
) -> Subset:
    """Choose the records of a pool that are worth training on.

    Args:
        cache: the pool's, a path or opened; None with a target set alone. target, existing: see
            `blocks.objective_over`.
        k: a number of records, a share (30%) or a token budget (200ktok).
        objective: None for that of the stage and the share that is wanted, see `blocks.default_objective`.
        options: how measurements become similarities; what of itself a record covers unsaid: see `methods.Defaults`.
        alpha: of `saturated`; None: 0.3, where the objective is the default's the share of the pool that is chosen.
        count: what of a target counts alike, see `blocks.objective_over`. None: see `methods.Defaults`.
        always, never: files of ids. per, group, at_least, at_most, keep_shares, shares: see
            `data.limits.read_quotas`.
        quality, not_like, distinct: see `hygiene.hygiene`; None of distinct: see `methods.Defaults`.
        until: a share, such as 1%. drop_suspects: the share of the pool to leave out whose answers are the most
            suspect, `last` or `off`, see `set_aside`; None: see `methods.Defaults`.
        say: is told where the matrix is larger than memory, and where neighbours are approximate.
        model, gpu_layers, threads: for the methods ifd and embedding and for suspects, which run the cache's model
            once.

    Raises:
        InputError: caches that do not fit each other or the objective, or limits that nothing satisfies.
    """
    check_choice("method", method, get_args(Method))
    check_choice("greedy", greedy, get_args(Greedy))
    if count is not None:
        check_choice("count", count, get_args(Count))
    options = options or KernelOptions(seed=seed)
    given = {"pool": cache, "target": target, "existing": existing}
    caches = {role: opened_cache(one) for role, one in given.items() if one is not None}
    open_model = OpenModel(model, gpu_layers, threads)
    opened: dict[str, AnyBlock] = {}
    pool: Records
    kept_gains = None
    unsaid = defaults_for(caches, objective, method)
    if method in COVERING:
        count = count or unsaid.count
        options = options.with_default(unsaid.self_utility)
        name, unsaid_alpha = (objective, blocks.ALPHA) if objective else objective_for(caches, str(k), method)
        opened = cosine_blocks(caches, open_model, progress) if method == "embedding" else scored_blocks(caches)
        goal, pool = blocks.objective_over(
            opened.get("pool"),
            opened.get("target"),
            opened.get("existing"),
            name,
            options,
            eta=eta,
            nu=nu,
            alpha=unsaid_alpha if alpha is None else alpha,
            p=p,
            beta=beta,
            depth=depth,
            count=count,
        )
        kept_gains = gains_file(
            pool.cache,
            list(caches.values()),
            objective=name,
            options=asdict(options),
            parameters=goal.parameters,
            **({} if method == "delift" else {"method": method}),
            **({} if count == "records" else {"count": count}),
        )
    else:
        count = None
        goal, pool = per_record(method, caches.get("pool"), seed, open_model, progress)  # type: ignore[arg-type]
    records = pool.examples
    amount = parse_amount(str(k), len(records))
    limits = (list(at_least), list(at_most), records, amount)
    group_field, least, most = read_quotas(per, group, *limits, keep=keep_shares, shares=shares)
    let_go = []
    if distinct is None and greedy == "exact":
        distinct = unsaid.distinct
    elif distinct is None and unsaid.distinct != ANY:  # the other ways rule no near-duplicates out
        let_go.append("distinct")
    clean = hygiene(records, not_like=not_like, distinct=distinct, quality=quality)
    if quality is not None:
        goal = clean.with_quality(goal, len(records), amount, float(pool.cache.example_tokens.mean()))
        kept_gains = None  # they are without it
    first, left_out = (named_indices(None if file is None else Path(file), records) for file in (always, never))
    if both := {*first} & {*left_out}:
        raise InputError(f"record {records[min(both)].id} is in both {always} and {never}")
    if greedy != "exact" and drop_suspects is None:  # the other ways let nothing come last
        drop_suspects = "off"
        if unsaid.suspects != OFF and pool.cache.square:
            let_go.append("drop_suspects")
    doubted = set_aside(caches.get("pool"), records, drop_suspects, unsaid.suspects, first, open_model, progress)
    if greedy == "exact" and (hint := beyond_memory(goal)):
        say(hint)
    partial = {role: block for role, block in opened.items() if isinstance(block, PartialBlock)}
    for block in partial.values():
        for line in block.approximations(options):
            say(line)
    group_of = None if group_field is None else labels(records, group_field)
    selection = select(
        goal,
        amount.records,
        cost=None if amount.tokens is None else pool.cache.example_tokens,
        budget=amount.tokens,
        always=first,
        never=sorted({*left_out, *clean.left_out, *doubted.never} - {*first}),
        last=doubted.last,
        group=group_of,
        at_least=least,
        at_most=most,
        near_duplicates=clean.near and clean.near[:2],
        lenient=clean.lenient,
        until=0.0 if until is None else parse_share(until, "--until"),
        stop_at_zero=stop_at_zero,
        method=greedy,
        epsilon=epsilon,
        parts=parts,
        seed=seed,
        initial_gains=None if kept_gains is None else read_kept(kept_gains, (len(records),), np.float64),
        per_token=method in COVERING,
    )
    if not len(selection.indices) and selection.stopped == "exhausted":
        smallest = f"; the smallest has {pool.cache.example_tokens.min():,} tokens" if amount.tokens else ""
        raise InputError(f"-k {k} selects nothing: no record is admissible{smallest}")
    if kept_gains is not None:
        keep(kept_gains, selection.initial_gains)
    missed = _missed(least, [] if group_of is None else [group_of[place] for place in selection.indices.tolist()])
    return Subset(
        selection,
        goal,
        pool,
        value(goal),
        method,
        str(k),
        amount,
        options,
        seed,
        partial,
        clean,
        doubted,
        count,
        missed=missed,
        read=files_read(caches.values(), always, never, model, *benchmarks(not_like)),
        let_go=let_go,
    )


def _missed(least: Mapping[str, int], chosen: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of values of which there are fewer than asked for, how many there are and were asked for."""
    there = Counter(chosen)
    return {value: (there[value], asked) for value, asked in least.items() if there[value] < asked}
