"""Which options of `delift select` are of use to which method."""

from __future__ import annotations

import typer

from ..errors import InputError
from ..selection.subset import COVERING

METHODS_OF = {  # who has a use for which option; the others are everybody's
    **dict.fromkeys(("target", "existing", "objective", "self_utility", "eta", "nu", "alpha", "quality"), COVERING),
    **dict.fromkeys(("greedy", "epsilon", "parts"), COVERING),
    **dict.fromkeys(("utility", "kernel", "estimates", "paper"), ("delift",)),
}


def refuse_unused(context: typer.Context, method: str) -> None:
    """InputError for an option that the user gave and that this method has no use for."""
    for parameter in context.command.params:
        methods = METHODS_OF.get(parameter.name or "", (method,))
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and method not in methods:
            option = parameter.opts[0]
            raise InputError(
                f"{option} is of no use to --method {method}, only to {' and '.join(methods)}; leave it out"
            )
