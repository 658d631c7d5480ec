"""The options of `delift select`, in the panels in which `--help` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import LARGEST_SEED
from ..selection.blocks import Count, Estimates, SelfUtility
from ..selection.methods import Method
from ..submodular.kernel import Transform, Utility
from ..submodular.select import Method as Greedy
from . import options

ObjectiveName = Literal[
    "fl", "flmi", "flvmi", "fl1mi", "flcg", "flcmi", "sqrt", "log1p", "saturated", "lp", "noisyor", "topm"
]

CacheOption = Annotated[Path | None, typer.Argument(metavar="CACHE", help="The pool's cache, from: delift score POOL.")]
HowMuchOption = Annotated[
    str, options.how_much("-k", metavar="AMOUNT", help="Records (500), a share (30%) or tokens (200ktok).")
]
UntilOption = Annotated[
    str | None,
    options.how_much(metavar="SHARE", help="Stop when a gain falls under this share of the first: 1%."),
]
StopAtZeroOption = Annotated[
    bool, options.how_much("--stop-at-zero", help="Select fewer rather than records that gain nothing.")
]
TargetOption = Annotated[
    Path | None, options.choosing(metavar="CACHE", help="Lean towards a target set: pool by targets.")
]
ExistingOption = Annotated[
    Path | None, options.choosing(metavar="CACHE", help="Cover what existing data do not: existing by pool.")
]
MethodOption = Annotated[
    Method, options.choosing(help="What to choose by: DELIFT, or a plainer way to compare it with.")
]
ObjectiveOption = Annotated[
    ObjectiveName | None,
    options.choosing(
        help="Default: topm, below 20% fl, for 150 records to half of the pool saturated (anchors: topm); flmi with "
        "--target (alone: flvmi), flcg with --existing, flcmi with both."
    ),
]
UtilityOption = Annotated[Utility, options.choosing(help="From distances, or from log-probabilities (nats per token).")]
KernelOption = Annotated[Transform, options.choosing(help="How utilities become similarities.")]
SelfUtilityOption = Annotated[
    SelfUtility | None,
    options.choosing(
        "--self",
        help="May a record, or a copy of it, cover itself? exclude-answers: nor may records cover each other that give "
        "unlike prompts one long answer. Default: that where a pool is covered by default, exclude with any other "
        "objective.",
    ),
]
EstimatesOption = Annotated[
    Estimates,
    options.choosing(help="Pairs that were not scored count as estimated (on), as 0 (off); auto: if that is any good."),
]
PaperOption = Annotated[
    bool, options.choosing("--paper", help="As published: fl, euclidean, clip, self-utilities included.")
]
EtaOption = Annotated[
    float | None,
    options.choosing(
        metavar="X",
        min=0,
        max=1e6,
        help="Weight of the target set, default 1; with 'sqrt' to 'topm' of what each record helps most, default 0.",
    ),
]
NuOption = Annotated[float, options.choosing(metavar="X", min=0, max=1e6, help="Weight of the existing data.")]
AlphaOption = Annotated[
    float | None,
    options.choosing(
        metavar="X",
        min=0,
        max=1,
        help="Ceiling of 'saturated', a share of the pool's sum. Default: 0.3; where saturated is the default, the "
        "share that is chosen.",
    ),
]
NormOption = Annotated[
    float, options.choosing("--p", metavar="X", help="Norm of 'lp': 1 adds helpers up, a large one is like 'fl'.")
]
BetaOption = Annotated[
    float,
    options.choosing(metavar="X", min=0, max=1e6, help="Of 'noisyor': how soon a target is served by its helpers."),
]
DepthOption = Annotated[
    int, options.choosing(metavar="N", min=1, max=1000, help="Of 'topm': how many helpers of a target count.")
]
CountOption = Annotated[
    Count | None,
    options.choosing(
        help="What counts alike: targets, the tokens of their responses, or both, halfway. "
        "Default: both where a pool is covered by default, records with any other objective."
    ),
]
AlwaysOption = Annotated[Path | None, options.limits(metavar="FILE", help="Ids, one a line, that are chosen first.")]
NeverOption = Annotated[Path | None, options.limits(metavar="FILE", help="Ids, one a line, that are left out.")]
PerOption = Annotated[
    str | None,
    options.limits(metavar="FIELD:SHARE", help="Most that one value of a field may take: task:10% or task:50."),
]
GroupOption = Annotated[
    str | None,
    options.limits(
        metavar="FIELD",
        help="Field of --at-least, --at-most and --shares; default that of --per or --share, else task.",
    ),
]
AtLeastOption = Annotated[
    list[str] | None, options.limits(metavar="VALUE=N", help="Least for one value: code=200. Repeatable.")
]
AtMostOption = Annotated[
    list[str] | None, options.limits(metavar="VALUE=N", help="Most for one value: chat=500. Repeatable.")
]
SharesOption = Annotated[
    Literal["keep"] | None,
    options.limits(metavar="keep", help="Each value of --group keeps the share that it has in the pool."),
]
ShareOption = Annotated[
    list[str] | None,
    options.limits(metavar="FIELD:VALUE=SHARE", help="Share of one value: source:code=30%. Repeatable."),
]
QualityOption = Annotated[
    str | None,
    options.choosing(metavar="FIELD[:W]", help="Weigh a score that the data carry, higher is better."),
]
NotLikeOption = Annotated[
    list[str] | None,
    options.limits(metavar="DATA[:SHARE]", help="Leave out what overlaps a benchmark: test.jsonl:0.8. Repeatable."),
]
DistinctOption = Annotated[
    str | None,
    options.limits(
        metavar="SHARE",
        help="Never two records whose texts are this similar: 0.9 or 90%. copies: of records with one answer to nearly "
        "one prompt one, as long as others are left (default where a pool alone is covered); off.",
    ),
]
DropSuspectsOption = Annotated[
    str | None,
    options.limits(
        metavar="SHARE",
        help="Leave out the most suspect answers: 30% of the pool; see inspect. last: those that their prompts hardly "
        "make likelier come last (default where a pool alone is covered); off.",
    ),
]
GreedyOption = Annotated[Greedy, options.machine(help="exact; stochastic (samples); partitioned (larger than memory).")]
EpsilonOption = Annotated[float, options.machine(metavar="X", min=1e-6, max=0.99, help="Of --greedy stochastic.")]
PartsOption = Annotated[int, options.machine(metavar="N", min=2, help="Of --greedy partitioned.")]
SeedOption = Annotated[int, options.machine(metavar="N", min=0, max=LARGEST_SEED, help="Of everything random.")]
DestinationOption = Annotated[
    Path | None,
    options.output("--output", "-o", metavar="FILE", help="File, also .parquet or .csv; default stdout (-)."),
]
ForceOption = Annotated[
    bool, options.output("--force", help="Write even over what is read here or, with --push, what others put there.")
]
PushOption = Annotated[
    str | None,
    options.output(metavar="hf:OWNER/NAME", help="Put the subset on the hub, with a card of how it was made."),
]
OrderWrittenOption = Annotated[Literal["selection", "input"], options.output(help="Order of the records written.")]
WithScoresOption = Annotated[
    bool, options.output("--with-scores", help="Add a field delift to each record: id, rank, gain and coverage.")
]
IdsOnlyOption = Annotated[bool, options.output("--ids-only", help="Write ids, one a line.")]
CurveOption = Annotated[
    Path | None,
    options.output(metavar="FILE", help="Write value and gain against k (.csv or .json), and plot it."),
]
AsJsonOption = Annotated[bool, options.output("--json", help="The summary as JSON: on stdout with -o, else on stderr.")]
