"""Options of `delift select` that a method or an objective has no use for: refused, not passed over."""

from __future__ import annotations

import typer

from ..errors import InputError
from ..selection.methods import COVERING

METHODS_OF = {  # who has a use for which option; the others are everybody's
    **dict.fromkeys(("target", "existing", "objective", "self_utility", "eta", "nu", "quality"), COVERING),
    **dict.fromkeys(("alpha", "p", "beta", "depth", "count"), COVERING),
    **dict.fromkeys(("greedy", "epsilon", "parts"), COVERING),
    **dict.fromkeys(("utility", "kernel", "estimates", "paper"), ("delift",)),
}

OBJECTIVE_OF = {"alpha": "saturated", "p": "lp", "beta": "noisyor", "depth": "topm"}


def refuse_unused(context: typer.Context, method: str, objective: str | None) -> None:
    """InputError for an option that the user gave and that this method or objective has no use for."""
    for parameter in context.command.params:
        name, option = parameter.name or "", parameter.opts[0]
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        methods = METHODS_OF.get(name, (method,))
        if method not in methods:
            raise InputError(
                f"{option} is of no use to --method {method}, only to {' and '.join(methods)}; leave it out"
            )
        if OBJECTIVE_OF.get(name, objective) != objective:
            raise InputError(f"{option} is of no use here, only to --objective {OBJECTIVE_OF[name]}; leave it out")
