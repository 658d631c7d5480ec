"""`delift doctor`: is everything here that delift needs, and what to do where it is not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..visible import visible
from . import console, options
from .options import AsJson, ModelChoice


def doctor(
    model: ModelChoice = None,
    speed: Annotated[bool, options.output(help="Time the model for 5 seconds.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check compiler, llama-cpp-python, GPU, memory, disk and model; say what to do next.

    Examples:

        delift doctor
        delift doctor -m model.gguf --no-speed
    """
    from ..doctor import diagnose, lines

    checks = diagnose(model, speed=speed)
    failed = [check for check in checks if check.ok is False]
    if as_json:
        console.write_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        for line in lines(checks):
            console.stdout().print(visible(line), markup=False)
    if failed:
        raise typer.Exit(1)
