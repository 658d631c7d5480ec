"""What is compared: each way to choose, as the arguments that `delift select` is given, and how often it is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Stage = Literal[
    "instruction",
    "informed",
    "task-specific",
    "continual",
    "spoiled",
    "uneven",
    "large",
    "large-spoiled",
    "as-long",
    "chance",
    "fresh",
]


@dataclass(frozen=True)
class Variant:
    """A way to choose.

    Attributes:
        arguments: of `delift select CACHE -k SIZE`; POOL, TARGET and EXISTING stand for caches.
        seeds: training seeds for 30 % of the pool; a choice by chance is made anew for each.
        small: the same for 10 %.
        chance: the choice depends on the seed.
        never: what may not be chosen, and is covered all the same: a random "quarter" of the pool, another one for each
            seed, or what was "changed" when the pool was made: spoiled, or copied with other words.
        peer: not a choice of `delift select` but one of `tests.evidence.peers`.
        part: of the plan, in which its first seed comes; each further seed comes a part later.
        pools: the only ones that it is run on; none: those of the stage.
    """

    name: str
    arguments: tuple[str, ...] = ()
    seeds: int = 1
    small: int = 0
    chance: bool = False
    never: Literal["", "quarter", "changed"] = ""
    peer: str = ""
    part: int = 0
    pools: tuple[str, ...] = ()

    @property
    def seeds_of(self) -> dict[str, int]:
        """Training seeds of each share of the pool."""
        return {"30%": self.seeds, "10%": self.small}

    def part_of(self, seed: int) -> int:
        """The part of the plan that a seed belongs to; what is compared with needs some draws from the start."""
        return seed // FIRST_DRAWS if self.chance else self.part + seed


FIRST_DRAWS = 3

BOTH, TOKENS = (("--count", what) for what in ("both", "tokens"))
DEEP = ("POOL", "--objective", "topm")
RANDOM = Variant("random", ("POOL", "--method", "random"), seeds=5, small=3, chance=True)
FL = Variant("fl", ("POOL", "--objective", "fl"), seeds=5, small=2)
TOPM = Variant("topm", DEEP, seeds=3, small=1)
BEST = Variant("topm-both", (*DEEP, *BOTH), seeds=3)  # the default at 30 % where no long answers are shared
BEST_ANSWERS = Variant("topm-both-answers", (*BEST.arguments, "--self", "exclude-answers"), seeds=3)  # on any pool
BEST_ONCE = replace(BEST, seeds=1)
UNLIKE = ("--self", "exclude-answers", "--distinct", "copies")
BEST_UNLIKE = Variant("topm-both-unlike", (*BEST.arguments, *UNLIKE), seeds=3)  # the default on any pool
FL_BOTH = Variant("fl-both", ("POOL", "--objective", "fl", *BOTH), seeds=0, small=1)  # the default at 10 %

# What might become a default, or is one now, has several seeds; the others have what a first look needs.
INSTRUCTION = (
    RANDOM,
    FL,
    TOPM,
    Variant("topm-pmi", (*TOPM.arguments, "--depth", "10", "--utility", "pmi"), small=1),
    Variant("topm-tokens", (*DEEP, *TOKENS)),
    BEST,
    FL_BOTH,
    Variant("saturated-both", ("POOL", "--objective", "saturated", *BOTH)),
    Variant("top10-both", (*BEST.arguments, "--depth", "10")),
    Variant("topm-tokens-pmi", (*DEEP, *TOKENS, "--utility", "pmi")),
    Variant("stratified", (*RANDOM.arguments, "--group", "task", "--shares", "keep"), seeds=2, chance=True),
    Variant("random-tokens", peer="tokens", seeds=2, chance=True),
    Variant("paper", ("POOL", "--paper"), seeds=2, small=1),
    Variant("pmi", (*FL.arguments, "--utility", "pmi"), seeds=2),
    Variant("embedding", ("POOL", "--method", "embedding"), seeds=2),
    Variant("loss", ("POOL", "--method", "loss")),
    Variant("ifd", ("POOL", "--method", "ifd")),
    Variant("length", ("POOL", "--method", "length")),
    Variant("sqrt", ("POOL", "--objective", "sqrt"), seeds=3, small=1),
    Variant("saturated", ("POOL", "--objective", "saturated"), seeds=3, small=1),
    Variant("saturated-0.1", ("POOL", "--objective", "saturated", "--alpha", "0.1"), seeds=0, small=2),
    Variant("log1p", ("POOL", "--objective", "log1p"), part=1),
    Variant("sqrt-pmi", ("POOL", "--objective", "sqrt", "--utility", "pmi"), part=1),
    Variant("pmi-include", (*FL.arguments, "--utility", "pmi", "--self", "include"), part=1),
    Variant("minmax", (*FL.arguments, "--kernel", "minmax")),
    Variant("minmax-include", (*FL.arguments, "--kernel", "minmax", "--self", "include"), part=1),
    replace(BEST_UNLIKE, pools=("p3", "instruct-code")),  # by pairs that were planned anew
)
# What knows how much every record helps the first held-out ones, or which these are.
INFORMED = (
    replace(RANDOM, small=0),
    Variant("influence", peer="influence"),
    Variant("rds", peer="states"),
    Variant("oracle-best", peer="euclidean: best"),
    Variant("oracle-top3", peer="euclidean: top 3: 1, 1/2, …"),
    Variant("oracle-top10-pmi", peer="pmi: top 10: 1, 1/2, …"),
)
TASK_SPECIFIC = (
    RANDOM,
    FL,
    Variant("flmi", ("POOL", "--target", "TARGET"), seeds=3, small=1),
    Variant("flvmi", ("--target", "TARGET", "--objective", "flvmi"), seeds=2),
    Variant("rds", peer="states"),
)
CONTINUAL = (
    Variant("random", RANDOM.arguments, seeds=3, chance=True),
    Variant("fl", FL.arguments, seeds=2),
    Variant("flcg", ("POOL", "--existing", "EXISTING"), seeds=3),
)
# Pools of about 100 records, of which choosing is about more than luck. Who drops suspects does not know how many there
# are: always 30 % here.
SOUND = ("--drop-suspects", "30%")
SPOILED = (
    Variant("random", RANDOM.arguments, seeds=5, chance=True),
    Variant("random-sound", (*RANDOM.arguments, *SOUND), seeds=5, chance=True),
    Variant("fl", FL.arguments, seeds=2),
    Variant("fl-sound", (*FL.arguments, *SOUND), seeds=2),
    Variant("topm", TOPM.arguments),
    Variant("topm-sound", (*TOPM.arguments, *SOUND)),
    BEST_ONCE,
    BEST_ANSWERS,
    Variant("topm-both-sound", (*BEST.arguments, *SOUND), seeds=3),
    Variant("saturated", ("POOL", "--objective", "saturated"), part=1),
    Variant("ifd", ("POOL", "--method", "ifd"), part=1),
    Variant("length", ("POOL", "--method", "length"), part=1),
    Variant("embedding", ("POOL", "--method", "embedding"), part=1),
)
LAST = ("--drop-suspects", "last")
DISTINCT = ("--distinct", "0.9")
UNEVEN = (
    Variant("random", RANDOM.arguments, seeds=5, chance=True),
    Variant("fl", FL.arguments, seeds=2),
    Variant("embedding", ("POOL", "--method", "embedding")),
    Variant("saturated", ("POOL", "--objective", "saturated"), part=1),
    Variant("topm", TOPM.arguments, part=1),
    BEST_ONCE,
    Variant("random-distinct", (*RANDOM.arguments, *DISTINCT), seeds=5, chance=True),
    Variant("fl-distinct", (*FL.arguments, *DISTINCT)),
    Variant("topm-both-distinct", (*BEST.arguments, *DISTINCT), seeds=3),
    replace(BEST_UNLIKE, pools=("redundant",)),
    Variant("stratified", (*RANDOM.arguments, "--group", "task", "--shares", "keep"), seeds=2, chance=True, part=1),
    Variant("length", ("POOL", "--method", "length"), part=1),
)
SATURATED = Variant("saturated-both-unlike", ("POOL", "--objective", "saturated", *BOTH, *UNLIKE), seeds=3)
SATURATED_LAST = replace(SATURATED, name="saturated-both-unlike-last", arguments=(*SATURATED.arguments, *LAST))
LARGE = (
    Variant("random", RANDOM.arguments, seeds=5, small=5, chance=True),
    FL_BOTH,
    Variant("fl", FL.arguments, seeds=1, small=1),
    Variant("topm", TOPM.arguments, small=1),
    BEST_ONCE,
    BEST_UNLIKE,
    Variant("top15-both-unlike", (*BEST_UNLIKE.arguments, "--depth", "15")),
    SATURATED,
    SATURATED_LAST,
    Variant("saturated", ("POOL", "--objective", "saturated"), small=1, part=1),
    Variant("embedding", ("POOL", "--method", "embedding"), small=1, part=1),
)
LARGE_SPOILED = (
    replace(RANDOM, small=0),
    SATURATED_LAST,
    replace(SATURATED, name="saturated-both-told", seeds=1, never="changed"),
)

# Trained for as many steps as everything is: what the records are worth, apart from how many they are.
AS_LONG = (
    replace(RANDOM, small=0),
    replace(BEST, pools=("redundant", "p3", "gsm8k-p3", "instruct-code")),
    replace(BEST_ANSWERS, pools=("spoiled-40", "spoiled-20")),
    Variant("random-sound", (*RANDOM.arguments, *SOUND), seeds=3, chance=True, pools=("spoiled-40", "spoiled-20")),
    Variant("topm-both-sound", (*BEST.arguments, *SOUND), seeds=3, pools=("spoiled-40", "spoiled-20")),
    Variant("random-distinct", (*RANDOM.arguments, *DISTINCT), seeds=3, chance=True, pools=("redundant",)),
    Variant("topm-both-distinct", (*BEST.arguments, *DISTINCT), seeds=3, pools=("redundant",)),
    replace(BEST_UNLIKE, pools=("redundant",)),
)

CLEAN = ("p3", "gsm8k-p3", "instruct-code")  # pools
HARDER = ("spoiled-40", "spoiled-20", "redundant")  # pools
# One choice is one draw: the default, made several times, each out of another three quarters of the pool.
THINNED = Variant("topm-both-thinned", BEST_UNLIKE.arguments, seeds=8, chance=True, never="quarter", pools=CLEAN)

# What dropping suspects costs where no answer is spoiled, and what few of them bring where many are; and the default,
# which puts the doubtful ones last, however many these are.
LAST_UNLIKE = Variant(
    "topm-both-unlike-last", (*BEST_UNLIKE.arguments, *LAST), seeds=3, pools=(*CLEAN, "spoiled-40", "spoiled-20")
)
THINNED_LAST = replace(THINNED, name="topm-both-thinned-last", arguments=(*BEST_UNLIKE.arguments, *LAST), seeds=24)
UNSUSPECTED = (
    *(
        Variant(
            f"topm-both-unlike-drop-{share}", (*BEST_UNLIKE.arguments, "--drop-suspects", f"{share}%"), 3, pools=pools
        )
        for share, pools in ((10, (*CLEAN, "spoiled-40", "spoiled-20")), (30, CLEAN))
    ),
    LAST_UNLIKE,
    replace(LAST_UNLIKE, seeds=10, pools=("redundant",)),
    THINNED_LAST,
)
# At 10 % targets are covered by one record each.
FEW = (
    replace(RANDOM, seeds=0, small=5, pools=CLEAN),
    replace(FL_BOTH, name="fl-both-unlike", arguments=(*FL_BOTH.arguments, *UNLIKE), small=3, pools=CLEAN),
    replace(FL_BOTH, name="fl-both-unlike-last", arguments=(*FL_BOTH.arguments, *UNLIKE, *LAST), small=3, pools=CLEAN),
)

# What is there to be had: the default told which answers are sound, or which records are copies, and all of those.
TOLD = Variant("topm-both-told", BEST_UNLIKE.arguments, seeds=3, never="changed", pools=HARDER)
ORIGINALS = Variant("originals", peer="originals", seeds=3, pools=HARDER)

# So many random subsets that the best of them is known, and that their mean leaves no doubt in a difference to it.
MANY = 200
CHANCE = (
    replace(RANDOM, seeds=MANY, small=0),
    replace(BEST, seeds=10, pools=("gsm8k-p3", "redundant", "p3", "instruct-code")),
    replace(BEST_ANSWERS, pools=("spoiled-40", "spoiled-20")),
    Variant("topm-both-sound", (*BEST.arguments, *SOUND), seeds=3, pools=("spoiled-40", "spoiled-20")),
    Variant("topm-both-distinct", (*BEST.arguments, *DISTINCT), seeds=3, pools=("redundant",)),
    replace(BEST_UNLIKE, seeds=10, pools=("redundant", "gsm8k-p3", "p3")),  # the latter by pairs that were planned anew
    THINNED,
    *UNSUSPECTED,
    *FEW,
    TOLD,
    ORIGINALS,
)
# Choices that are there, tested on records by which nothing was settled.
FRESH = (
    replace(RANDOM, seeds=40, small=0),
    replace(THINNED_LAST, pools=()),
)

# The pools on which a stage is run. What a task-specific choice is compared with was trained for the first stage.
STAGES: dict[Stage, tuple[tuple[str, ...], tuple[Variant, ...]]] = {
    "instruction": (("p3", "gsm8k-p3", "instruct-code"), INSTRUCTION),
    "informed": (("p3", "instruct-code", "gsm8k-p3"), INFORMED),
    "task-specific": (("gsm8k-p3",), TASK_SPECIFIC),
    "continual": (("instruct-code",), CONTINUAL),
    "spoiled": (("spoiled-40", "spoiled-20"), SPOILED),
    "uneven": (("redundant", "skewed"), UNEVEN),
    "large": (("p3-1000",), LARGE),
    "large-spoiled": (("spoiled-1000",), LARGE_SPOILED),
    "as-long": (("spoiled-40", "spoiled-20", "redundant", "p3", "gsm8k-p3", "instruct-code"), AS_LONG),
    "chance": (("gsm8k-p3", "redundant", "p3", "instruct-code", "spoiled-40", "spoiled-20"), CHANCE),
    "fresh": (("p3", "gsm8k-p3"), FRESH),
}
# What `delift select` does with a pool where nothing else is said; several choices come before a single one.
DEFAULT = ("topm-both-thinned-last", "topm-both-unlike-last", "saturated-both-unlike-last", "fl-both-unlike-last")
EXTREMES = {"nothing": "0%", "all": "100%"}  # what bounds every choice, with its share of the pool
QUICK = ("random", "fl", "topm", "paper", "loss")
