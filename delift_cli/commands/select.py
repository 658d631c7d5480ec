"""`delift select`: from caches to the records worth training on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import typer

from ..cache.stored import Stored
from ..data.writing import form_of
from ..errors import InputError
from ..selection import output as files
from ..selection import overwriting
from ..selection.blocks import CAPPED, KernelOptions
from ..selection.card import publish
from ..selection.curve import render_curve
from ..selection.hygiene import benchmarks
from ..selection.methods import COVERING, objective_for, opened_cache
from ..selection.run import select_records
from ..visible import in_a_shell
from . import bars, console
from . import select_options as given
from .options import GpuLayers, ModelChoice, Quiet, Threads
from .unused import refuse_idle, refuse_unused, uses_of_select

PUBLISHED = ("fl", "flmi", "flcg")  # the paper's objectives
CURVES: dict[str, Literal["csv", "json"]] = {".csv": "csv", ".json": "json", "": "csv"}


def select(
    context: typer.Context,
    cache: given.CacheOption = None,
    k: given.HowMuchOption = "30%",
    until: given.UntilOption = None,
    stop_at_zero: given.StopAtZeroOption = False,
    target: given.TargetOption = None,
    existing: given.ExistingOption = None,
    method: given.MethodOption = "delift",
    objective: given.ObjectiveOption = None,
    utility: given.UtilityOption = "euclidean",
    kernel: given.KernelOption = "clip",
    self_utility: given.SelfUtilityOption = None,
    estimates: given.EstimatesOption = "auto",
    paper: given.PaperOption = False,
    eta: given.EtaOption = None,
    nu: given.NuOption = 1.0,
    alpha: given.AlphaOption = None,
    p: given.NormOption = 2.0,
    beta: given.BetaOption = 1.0,
    depth: given.DepthOption = 3,
    count: given.CountOption = None,
    always: given.AlwaysOption = None,
    never: given.NeverOption = None,
    per: given.PerOption = None,
    group: given.GroupOption = None,
    at_least: given.AtLeastOption = None,
    at_most: given.AtMostOption = None,
    shares: given.SharesOption = None,
    share: given.ShareOption = None,
    quality: given.QualityOption = None,
    not_like: given.NotLikeOption = None,
    distinct: given.DistinctOption = None,
    drop_suspects: given.DropSuspectsOption = None,
    greedy: given.GreedyOption = "exact",
    epsilon: given.EpsilonOption = 0.01,
    parts: given.PartsOption = 2,
    seed: given.SeedOption = 0,
    model: ModelChoice = None,
    gpu_layers: GpuLayers = None,
    threads: Threads = None,
    destination: given.DestinationOption = None,
    force: given.ForceOption = False,
    push: given.PushOption = None,
    order: given.OrderWrittenOption = "selection",
    with_scores: given.WithScoresOption = False,
    ids_only: given.IdsOnlyOption = False,
    curve: given.CurveOption = None,
    quiet: Quiet = False,
    as_json: given.AsJsonOption = False,
) -> None:
    """Choose the records worth training on, and write them as they came in.

    Examples:

        delift select train.delift -k 30% > subset.jsonl
        delift select train.delift --target dev.delift -k 500
        delift select train.delift --existing old.delift -k 30%
    """
    if str(destination) == "-":
        destination = None
    if paper:
        if (utility, kernel) != ("euclidean", "clip") or self_utility not in (None, "include"):
            raise InputError("--paper means --utility euclidean --kernel clip --self include; leave those out")
        if objective not in (None, *PUBLISHED):
            raise InputError(f"--paper means an objective of the paper, {', '.join(PUBLISHED)}, not {objective}")
        self_utility = "include"
        if objective is None and target is None and existing is None:
            objective = "fl"
    caches = {
        role: opened_cache(path)
        for role, path in (("pool", cache), ("target", target), ("existing", existing))
        if path is not None
    }
    chosen_by = None
    if caches:
        chosen_by = objective_for(caches, k, objective, method)[0] if method in COVERING else None
        refuse_unused(context, method, chosen_by)
    refuse_idle(context, uses_of_select(context.params))
    on_stdout = as_json if destination is not None else push is None
    overwriting.refuse_to_destroy(
        {"-o": destination, "--curve": curve, "stdout": overwriting.STDOUT if on_stdout else None},
        overwriting.files_read(caches.values(), always, never, model, *benchmarks(not_like or ())),
        force=force,
        insist=", or insist with --force",
    )
    overwriting.check_places({"-o": destination, "--curve": curve})
    if caches and (destination is not None or push is None):
        came = next(iter(caches.values())).manifest["examples"]["form"]
        files.check_form(form_of(destination, came), destination, ids_only=ids_only)
    if push is not None:
        overwriting.refuse_to_push(push, caches.values(), force=force, insist=", or insist with --force")
    curve_form = None if curve is None else _curve_form(curve)
    notes = console.Notes(console.sayer(quiet or as_json))  # stderr may be where the JSON goes
    with console.bars(quiet=quiet or as_json) as progress:
        subset = select_records(
            caches.get("pool"),
            k,
            target=caches.get("target"),
            existing=caches.get("existing"),
            method=method,
            objective=objective,
            options=KernelOptions(utility, kernel, self_utility, estimates, seed),
            eta=eta,
            nu=nu,
            alpha=alpha,
            p=p,
            beta=beta,
            depth=depth,
            count=count,
            always=always,
            never=never,
            per=per,
            group=group,
            at_least=at_least or (),
            at_most=at_most or (),
            keep_shares=shares == "keep",
            shares=share or (),
            quality=quality,
            not_like=not_like or (),
            distinct=distinct,
            drop_suspects=drop_suspects,
            until=until,
            stop_at_zero=stop_at_zero,
            greedy=greedy,
            epsilon=epsilon,
            parts=parts,
            seed=seed,
            model=model,
            gpu_layers=gpu_layers,
            threads=threads,
            progress=progress,
            say=notes,
        )
    how: dict[str, Any] = {"input_order": order == "input", "with_scores": with_scores, "say": notes}
    if destination is not None or push is None:
        files.write(subset.render(destination=destination, ids_only=ids_only, **how), destination)
    if push is not None:
        address = publish(subset, push, shlex.join(["delift", *sys.argv[1:]]), force=force, **how)
        notes(f"pushed to {address}")
    if curve_form is not None:
        files.write(render_curve(subset.curve(), curve_form), curve)
    stream = sys.stderr if destination is None else sys.stdout
    also = [] if as_json or quiet else bars.selected(subset, console.stderr())
    if destination is not None and destination.is_file():
        also = [*also, ("next", _next_command(caches, chosen_by, destination))]
    console.show(subset, as_json=as_json, quiet=quiet, also=also, data=stream, notes=notes)
    if curve is not None and not (quiet or as_json):
        value = subset.selection.value
        console.plot(
            bars.plot(subset.selection.curve.tolist()), f"value against k, up to {value:.4f} at {len(subset):,}"
        )


def _next_command(caches: Mapping[str, Stored], objective: str | None, written: Path) -> str:
    """How to look at what was chosen."""
    of = {role: in_a_shell(cache.path) for role, cache in caches.items()}
    by_target = "pool" in of and "target" in of and objective not in CAPPED
    aims = f" --target {of['target']}" if by_target else ""
    return f"delift report {of.get('pool') or of['target']}{aims} --subset {in_a_shell(written)} -o report.html"


def _curve_form(curve: Path) -> Literal["csv", "json"]:
    """What its name says; InputError where that is neither."""
    form = CURVES.get(curve.suffix.lower())
    if form is None:
        raise InputError(f"--curve {curve}: a curve is written as .csv or .json")
    return form
