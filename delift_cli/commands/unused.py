"""Options that what else was asked for has no use for: refused, not passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import typer

from ..errors import InputError
from ..selection.methods import COVERING, MODELS_OWN
from ..selection.set_aside import OFF
from ..submodular.objectives import SUMS

METHODS_OF = {  # who has a use for which option of `delift select`; the others are everybody's
    **dict.fromkeys(("target", "existing", "objective", "self_utility", "eta", "nu", "quality"), COVERING),
    **dict.fromkeys(("alpha", "p", "beta", "depth", "count"), COVERING),
    **dict.fromkeys(("greedy", "epsilon", "parts"), COVERING),
    **dict.fromkeys(("utility", "kernel", "estimates", "paper"), ("delift",)),
}

OBJECTIVES_OF = {  # the same of objectives
    "eta": ("flmi", "flvmi", "fl1mi", "flcmi", *SUMS),
    "nu": ("flcg", "flcmi", *SUMS),
    "alpha": ("saturated",),
    "p": ("lp",),
    "beta": ("noisyor",),
    "depth": ("topm",),
}


class Use(NamedTuple):
    """Is an option of use here, and where it is not, what is in its way: `without --pool`, `beside --subset`."""

    here: bool
    otherwise: str


def refuse_unused(context: typer.Context, method: str, objective: str | None) -> None:
    """InputError for an option that the user gave and that this method or objective has no use for.

    objective: the one that is chosen by, named or not; None where the method has none.
    """
    for name, option in _given(context):
        methods, objectives = METHODS_OF.get(name, (method,)), OBJECTIVES_OF.get(name, (objective,))
        if method not in methods:
            raise InputError(
                f"{option} is of no use to --method {method}, only to {' and '.join(methods)}; leave it out"
            )
        if objective not in (None, *objectives):
            only = ", ".join(map(str, objectives))
            raise InputError(f"{option} is of no use to objective {objective}, only to {only}; leave it out")


def refuse_idle(context: typer.Context, uses: Mapping[str, Use]) -> None:
    """InputError for an option that the user gave and that, by its parameter's name, is of no use here."""
    for name, option in _given(context):
        if name in uses and not uses[name].here:
            raise InputError(f"{option} is of no use {uses[name].otherwise}; leave it out")


def uses_of_select(given: Mapping[str, Any]) -> dict[str, Use]:
    """What options of `delift select` are of use beside the others, of its parameters by name."""
    runs_model = given["method"] in MODELS_OWN or given["drop_suspects"] not in (None, OFF)
    for_model = Use(runs_model, f"without --method {' or '.join(MODELS_OWN)}, or --drop-suspects")
    quotas = any(given[name] for name in ("per", "at_least", "at_most", "shares", "share"))
    on_hub_alone = given["push"] is not None and str(given["destination"]) in ("None", "-")
    return {
        "nu": Use(given["existing"] is not None, "without --existing"),
        "group": Use(quotas, "without --per, --at-least, --at-most or --shares"),
        "epsilon": Use(given["greedy"] == "stochastic", "without --greedy stochastic"),
        "parts": Use(given["greedy"] == "partitioned", "without --greedy partitioned"),
        "with_scores": Use(not given["ids_only"], "beside --ids-only"),
        "ids_only": Use(not on_hub_alone, "to --push alone, which takes records"),
        **dict.fromkeys(("model", "gpu_layers", "threads"), for_model),
    }


def _given(context: typer.Context) -> Iterator[tuple[str, str]]:
    """Parameter and name of each option on the command line."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            yield parameter.name or "", parameter.opts[0]
