"""What is compared: each way to choose, as the arguments that `delift select` is given, and how often it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["instruction", "task-specific", "continual"]


@dataclass(frozen=True)
class Variant:
    """A way to choose.

    Attributes:
        arguments: of `delift select CACHE -k SIZE`; POOL, TARGET and EXISTING stand for caches.
        sizes: shares of the pool, the first of them is run first.
        seeds: training seeds; a choice by chance is made anew for each.
        chance: the choice depends on the seed.
        part: of the plan, in which its first seed comes; each further seed comes a part later.
    """

    name: str
    arguments: tuple[str, ...]
    sizes: tuple[str, ...] = ("30%",)
    seeds: int = 2
    chance: bool = False
    part: int = 0

    def part_of(self, seed: int) -> int:
        """The part of the plan that a seed belongs to; what is compared with needs some draws from the start."""
        return seed // FIRST_DRAWS if self.chance else self.part + seed


FIRST_DRAWS = 3

BOTH = ("30%", "10%")
RANDOM = Variant("random", ("POOL", "--method", "random"), BOTH, seeds=5, chance=True)
DELIFT = Variant("delift", ("POOL",), BOTH, seeds=5)

INSTRUCTION = (
    RANDOM,
    DELIFT,
    Variant("paper", ("POOL", "--paper"), BOTH, seeds=3),
    Variant("pmi", ("POOL", "--utility", "pmi"), BOTH, seeds=3),
    Variant("embedding", ("POOL", "--method", "embedding"), BOTH, seeds=3),
    Variant("loss", ("POOL", "--method", "loss"), BOTH, seeds=3),
    Variant("ifd", ("POOL", "--method", "ifd"), BOTH),
    Variant("length", ("POOL", "--method", "length"), BOTH),
    Variant("sqrt", ("POOL", "--objective", "sqrt"), seeds=1),
    Variant("saturated", ("POOL", "--objective", "saturated"), seeds=1),
    Variant("sqrt-pmi", ("POOL", "--objective", "sqrt", "--utility", "pmi"), seeds=1, part=1),
    Variant("pmi-include", ("POOL", "--utility", "pmi", "--self", "include"), seeds=1, part=1),
    Variant("minmax", ("POOL", "--kernel", "minmax"), seeds=1),
    Variant("minmax-include", ("POOL", "--kernel", "minmax", "--self", "include"), seeds=1, part=1),
    Variant("log1p", ("POOL", "--objective", "log1p"), seeds=1, part=1),
)
TASK_SPECIFIC = (
    RANDOM,
    DELIFT,
    Variant("flmi", ("POOL", "--target", "TARGET"), BOTH, seeds=3),
    Variant("flvmi", ("--target", "TARGET", "--objective", "flvmi"), BOTH, seeds=3),
)
CONTINUAL = (
    Variant("random", RANDOM.arguments, seeds=3, chance=True),
    Variant("delift", DELIFT.arguments, seeds=3),
    Variant("flcg", ("POOL", "--existing", "EXISTING"), seeds=3),
)

# The pools on which a stage is run. What a task-specific choice is compared with was trained for the first stage.
STAGES: dict[Stage, tuple[tuple[str, ...], tuple[Variant, ...]]] = {
    "instruction": (("p3", "gsm8k-p3", "instruct-code"), INSTRUCTION),
    "task-specific": (("gsm8k-p3",), TASK_SPECIFIC),
    "continual": (("instruct-code",), CONTINUAL),
}
EXTREMES = {"nothing": 1, "all": 2}  # training seeds of what bounds every choice
QUICK = ("random", "delift", "paper", "pmi", "loss")
