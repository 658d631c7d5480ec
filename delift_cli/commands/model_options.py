"""Options of every verb that runs a model: which one, how records reach it, and what it runs on."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Weights = Literal["auto", "as-is", "f32", "f16", "bf16", "q8_0", "q4_0"]

ModelChoice = Annotated[
    str | None, typer.Option("--model", "-m", help="A GGUF file, or smollm2; default $DELIFT_MODEL.")
]
TemplateChoice = Annotated[str | None, typer.Option(help="'plain' or a Jinja2 file; default the model's own.")]
PromptField = Annotated[str | None, typer.Option(help="Field that holds the prompt.")]
ResponseField = Annotated[str | None, typer.Option(help="Field that holds the response.")]
SkipInvalid = Annotated[bool, typer.Option("--skip-invalid", help="Leave bad records out and say how many.")]
WeightsChoice = Annotated[Weights, typer.Option(help="Run a converted copy; auto: the fastest that keeps the numbers.")]
GpuLayers = Annotated[int | None, typer.Option(min=0, help="Layers on the GPU; default all where possible.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default all cores.")]
