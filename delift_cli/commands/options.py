"""Options that several verbs take, each declared once, in the panels in which `--help` shows them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import typer

from ..data.options import Reading, parse_roles

Weights = Literal["auto", "as-is", "f32", "f16", "bf16", "q8_0", "q4_0"]

LARGEST = 2**31 - 1  # what llama.cpp and the arrays count with


def _option(*names: Any, **settings: Any) -> Any:
    """`typer.Option`, in which a number that has a least value has a largest one too."""
    if "min" in settings:
        settings.setdefault("max", LARGEST)
    return typer.Option(*names, **settings)


records = partial(_option, rich_help_panel="Records")
model = partial(_option, rich_help_panel="Model")
how_much = partial(_option, rich_help_panel="How much")
choosing = partial(_option, rich_help_panel="Choosing")
limits = partial(_option, rich_help_panel="Limits")
machine = partial(_option, rich_help_panel="Machine")
output = partial(_option, rich_help_panel="Output")

PromptField = Annotated[
    str | None, records(metavar="FIELD", help="Field that holds the prompt, or a whole chat; a.b: nested.")
]
ResponseField = Annotated[str | None, records(metavar="FIELD", help="Field that holds the response; a.b: nested.")]
Turns = Annotated[Literal["all", "last"], records(help="Score all assistant turns, or the last only.")]
Roles = Annotated[
    list[str] | None, records("--role", metavar="NAME=ROLE", help="A role by another name: ai=assistant. Repeatable.")
]
RecordsKey = Annotated[str | None, records(metavar="KEY", help="Key of the list of records in a JSON object.")]
Strict = Annotated[bool, records("--strict", help="Refuse records that can be read in two ways.")]
SkipInvalid = Annotated[bool, records("--skip-invalid", help="Leave bad records out and say how many.")]
Truncate = Annotated[bool, records("--truncate", help="Cut the middle of prompts so that everything fits the context.")]

ModelChoice = Annotated[
    str | None, model("--model", "-m", metavar="GGUF", help="A GGUF file, or smollm2; default $DELIFT_MODEL.")
]
TemplateChoice = Annotated[
    str | None,
    model(metavar="NAME|FILE", help="alpaca, chatml, plain, … or a Jinja2 file; default the model's own."),
]
TemplateArguments = Annotated[
    list[str] | None,
    model("--template-arg", metavar="NAME=VALUE", help="For the template: enable_thinking=false. Repeatable."),
]
AsTrained = Annotated[
    bool,
    model("--as-trained", help="Score as the template prints a conversation, not behind its generation prompt."),
]
WeightsChoice = Annotated[Weights, model(help="Run a converted copy; auto: the fastest that keeps the numbers.")]

GpuLayers = Annotated[int | None, machine(metavar="N", min=0, help="Layers on the GPU; default all where possible.")]
Threads = Annotated[int | None, machine(metavar="N", min=1, help="CPU threads; default all cores.")]
Batch = Annotated[int | None, machine(metavar="TOKENS", min=16, help="Tokens in one llama.cpp call; default measured.")]


def reading(
    prompt_field: str | None,
    response_field: str | None,
    turns: Literal["all", "last"],
    role: list[str] | None,
    key: str | None,
    strict: bool,
    skip_invalid: bool,
) -> Reading:
    """How the records of a verb are read, of the options above."""
    return Reading(prompt_field, response_field, turns, parse_roles(role or ()), key, strict, skip_invalid)


Quiet = Annotated[bool, output("--quiet", "-q", help="Print nothing but data and errors.")]
AsJson = Annotated[bool, output("--json", help="The result as JSON on stdout.")]
