"""Caches to the kernels of one objective: which block is which, and whether they belong together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..budget.partial_block import Partial
from ..budget.partial_block import hint as few_estimates
from ..cache.anchors import weights_of
from ..cache.dense import Cache
from ..cache.manifest import adapters_of, field
from ..cache.sparse import SparseCache
from ..cache.stored import Stored
from ..data import large_pools
from ..data.record import Record, copy_groups
from ..data.shared_answers import answer_groups
from ..errors import InputError, check_choice
from ..submodular.kernel import Kernel, Transform, Utility, factored_kernel, utility_kernel, utility_range
from ..submodular.objectives import SUMS, Objective, check_blocks, make_objective

SelfUtility = Literal["exclude", "exclude-answers", "include"]
Estimates = Literal["auto", "on", "off"]
Count = Literal["records", "both", "tokens"]
COUNTED: dict[Count, str] = {  # in a summary, behind what else an objective goes by
    "records": "",
    "both": ", targets weighted by the root of their tokens",
    "tokens": ", targets weighted by their tokens",
}
_POWER_OF_TOKENS: dict[Count, float] = {"records": 0.0, "both": 0.5, "tokens": 1.0}
GROUPS = ("example_group", "target_group")
DEEP_FROM = 0.2  # of the pool: who wants so many records has more than one to help each target
ALPHA = 0.3  # of `saturated` where it is named
MANY, HALF = 150, 0.5  # records from which on, and share of the pool up to which, what helps a target is shared out
CAPPED = ("fl1mi", "flcmi")  # their target block is target set × pool
SWEEP_TARGET = ("flvmi", *SUMS)  # with a target set they cover it alone


@dataclass(frozen=True)
class KernelOptions:
    """How measurements become similarities: see `kernel.utility_kernel`.

    self_utility: what a record covers of itself, see `kernels`; None for what the stage has by default (see
        `methods.Defaults`), `exclude` where nothing says which it is.
    estimates: do pairs that were not scored count as estimated, or as zero? `auto`: as estimated where the estimates
        predict held-out pairs better than their mean does. seed: of the estimate.
    """

    utility: Utility = "euclidean"
    transform: Transform = "clip"
    self_utility: SelfUtility | None = None
    estimates: Estimates = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("utility", self.utility, get_args(Utility))
        check_choice("transform", self.transform, get_args(Transform))
        check_choice("estimates", self.estimates, get_args(Estimates))
        if self.self_utility is not None:
            check_choice("self_utility", self.self_utility, get_args(SelfUtility))

    def with_default(self, self_utility: SelfUtility) -> KernelOptions:
        """The same with what a record covers of itself where that was left open."""
        return self if self.self_utility is not None else replace(self, self_utility=self_utility)


class Records:
    """A cache whose records are read once."""

    def __init__(self, cache: Cache | SparseCache) -> None:
        self.cache = cache

    @cached_property
    def examples(self) -> Sequence[Record]:
        return self.cache.examples().records

    @cached_property
    def targets(self) -> Sequence[Record]:
        return self.examples if self.cache.square else self.cache.targets().records

    @cached_property
    def copies(self) -> npt.NDArray[np.int32]:
        """See `copy_groups`; of examples and targets, one behind the other, unless these are the same."""
        return copy_groups(self._sides)

    @cached_property
    def answers(self) -> npt.NDArray[np.int32]:
        """See `answer_groups`; as `copies`."""
        return answer_groups(self._sides, self.copies)

    @property
    def shared_answers(self) -> int:
        """How many of the examples share a long answer with an unlike prompt."""
        merged = self.answers[self.answers != self.copies]
        return int(np.isin(self.answers[: self.cache.shape[0]], merged).sum())

    def own(self, options: KernelOptions) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Labels of examples and targets, equal where a target would stand in its own context."""
        same = self.answers if options.self_utility == "exclude-answers" else self.copies
        return same[: self.cache.shape[0]], same[-self.cache.shape[1] :]

    def excluded(self, options: KernelOptions) -> dict[str, npt.NDArray[np.int32]]:
        """The same as `example_group` and `target_group` of a kernel; empty where a record may cover itself."""
        return {} if options.self_utility == "include" else dict(zip(GROUPS, self.own(options), strict=True))

    def left_out(self, options: KernelOptions) -> str:
        """In a summary: what of themselves the records do not cover."""
        if options.self_utility == "include":
            return "self-utilities included"
        answers = options.self_utility == "exclude-answers" and self.shared_answers
        return f"self-utilities {'and shared answers ' if answers else ''}excluded"

    @property
    def _sides(self) -> Sequence[Record]:
        return self.examples if self.cache.square else [*self.examples, *self.targets]

    @property
    def example_key(self) -> str:
        return str(self.cache.manifest["examples"]["sha256"])

    @property
    def target_key(self) -> str:
        return str(self.cache.manifest["targets"]["sha256"])


class Block(Records):
    """One complete cache of all pairs.

    Raises:
        InputError: the cache is not complete; how to finish it.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        if not cache.complete:
            cache.check_shared()  # what is lost is not what is still to come
            raise InputError(
                f"{cache.path} is not complete: {cache.rows_done} of {cache.shape[0]} rows are scored; "
                "run the same delift score command again, it goes on from there"
            )
        cache.check_rows()
        self._measured = {
            "euclidean": (cache.distance, cache.base_distance),
            "pmi": (cache.logprob, cache.base_logprob),
        }

    def utility_range(self, options: KernelOptions) -> tuple[float, float]:
        """Smallest and largest utility."""
        return utility_range(*self._measured[options.utility], options.utility)

    def kernel(self, options: KernelOptions, **shared: Any) -> Kernel:
        """Its kernel; `shared` is what `kernels` finds out for all blocks."""
        return utility_kernel(*self._measured[options.utility], options.utility, options.transform, **shared)


class PartialBlock(Records):
    """One cache of some of the pairs; unfinished rounds count as far as they are scored.

    Raises:
        InputError: no pair is scored yet.
    """

    def __init__(self, cache: SparseCache) -> None:
        self.cache: SparseCache = cache
        if not (cache.base_complete and cache.pairs_done):
            cache.check_shared()
            lacks = "does not know what its new records are without an example" if cache.pairs_done else "holds no pair"
            raise InputError(
                f"{cache.path} {lacks} yet; run the same delift score command again, it goes on from there"
            )
        cache.check_rows()
        self._partial: dict[tuple[Utility, int], Partial] = {}

    def partial(self, options: KernelOptions) -> Partial:
        """Its scored pairs under this utility."""
        key = options.utility, options.seed
        if key not in self._partial:
            targets = None if self.cache.square else self.targets
            self._partial[key] = Partial(self.cache, self.examples, targets, *key)
        return self._partial[key]

    def estimated(self, options: KernelOptions) -> bool:
        """Do its unscored pairs count as estimated?"""
        if options.estimates != "auto":
            return options.estimates == "on"
        return self.partial(options).quality.trusted

    def utility_range(self, options: KernelOptions) -> tuple[float, float]:
        """Smallest and largest measured utility."""
        utility = self.partial(options).scored.utility
        return float(utility.min()), float(utility.max())

    def best_estimates(self, options: KernelOptions) -> str | None:
        """What to say where the best estimates alone count."""
        counts = self.estimated(options) and options.transform != "minmax"
        return few_estimates(self.cache.shape) if counts else None

    def approximations(self, options: KernelOptions) -> list[str]:
        """What is approximate in estimates for so large a block, a line each."""
        if options.estimates == "off":
            return []
        lines = large_pools.hint(max(self.cache.shape)), self.best_estimates(options)
        return [line for line in lines if line]

    def kernel(self, options: KernelOptions, **shared: Any) -> Kernel:
        """Its kernel, of measured utilities and, for the other pairs, estimates or nothing."""
        partial = self.partial(options)
        left, right = (np.zeros((size, 0), np.float32) for size in self.cache.shape)
        rows = partial.rows
        if self.best_estimates(options):
            rows = partial.rows_with_estimates
        elif self.estimated(options):
            left, right = partial.estimate.factors()
        return factored_kernel(*rows(), left, right, options.transform, **shared)


class EmbeddedBlock(Records):
    """The records of one cache by their embeddings: a similarity is a cosine, and no pair need be scored.

    Args:
        examples, targets: float32 [records, width], rows of length 1.
    """

    def __init__(
        self, cache: Cache | SparseCache, examples: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]
    ) -> None:
        super().__init__(cache)
        self._embeddings = examples, targets

    def utility_range(self, options: KernelOptions) -> tuple[float, float]:
        """What cosines lie between."""
        return -1.0, 1.0

    def kernel(self, options: KernelOptions, **shared: Any) -> Kernel:
        """Its kernel: the cosines are the product of its embeddings, so that no matrix of all pairs is ever held."""
        measured = np.zeros(self.cache.shape[0] + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
        return factored_kernel(*measured, *self._embeddings, options.transform, **shared)


AnyBlock = Block | PartialBlock | EmbeddedBlock


def as_block(cache: Cache | SparseCache) -> AnyBlock:
    """The block that a cache holds."""
    return PartialBlock(cache) if isinstance(cache, SparseCache) else Block(cache)


def kernels(blocks: Sequence[AnyBlock], options: KernelOptions) -> list[Kernel]:
    """One kernel for each block; `minmax` scales all of them by their common range.

    With self_utility `exclude`, a record covers neither itself nor a copy of itself, in any block; with
    `exclude-answers` none either that gives an unlike prompt the same long answer, as boilerplate does: shown one, the
    model repeats it before the other. With `include` it covers all of them.
    """
    value_range = None
    if options.transform == "minmax":
        ranges = [block.utility_range(options) for block in blocks]
        value_range = (min(low for low, _ in ranges), max(high for _, high in ranges))
    return [block.kernel(options, value_range=value_range, **block.excluded(options)) for block in blocks]


def check_same_measure(caches: Sequence[Stored]) -> None:
    """Caches compare only when the same model measured them in the same way.

    Raises:
        InputError: the first field that differs.
    """
    first = caches[0]
    for cache in caches[1:]:
        for name in ("model.sha256", "weights.type", "template.text", "metric", "settings"):
            here, there = (field(c.manifest, name) for c in (first, cache))
            if here != there:
                raise InputError(
                    f"{first.path} and {cache.path} were not measured alike: {name} differs; score one of them again"
                )
        if adapters_of(first.manifest) != adapters_of(cache.manifest):
            raise InputError(
                f"{first.path} and {cache.path} were not measured alike: the model's LoRA adapters differ; score one "
                "of them again"
            )


def default_objective(
    pool: bool, target: bool, existing: bool, *, anchors: bool = False, share: float = 1.0, records: int = 0
) -> str:
    """The objective of a stage, for what is given, the share of the pool that is wanted, and how many records that is.

    A pool alone is covered: by each target's best helper (`fl`) where few records are wanted, by its three best
    (`topm`) from `DEEP_FROM` of the pool on. With 30 % of three pools `topm` was better after training than `fl` on
    each of them, with 10 % it was not. Where `MANY` are wanted, every target has three good helpers soon and the others
    come by what little they add to these: 300 of 1,000 records were worse by record than random ones then, and by
    `saturated`, which gives each target its share of all that helps it, they were not (all in samples/EVIDENCE.md).
    With anchors it is always `topm`: an anchor stands for several records, which its second and third best helpers
    serve best.
    """
    if target and existing:
        return "flcmi"
    if existing:
        return "flcg"
    if target:
        return "flmi" if pool else "flvmi"
    if anchors:
        return "topm"
    if share < DEEP_FROM:
        return "fl"
    return "saturated" if records >= MANY and share <= HALF else "topm"


def chosen_role(given: Collection[str]) -> str:
    """Of which cache the examples are chosen from, "pool" or else "target".

    Raises:
        InputError: neither is given.
    """
    if not given:
        raise InputError("give a cache to select from: delift select train.delift -k 30%")
    if "pool" in given or "target" in given:
        return "pool" if "pool" in given else "target"
    raise InputError("--existing alone has nothing to select from; give the pool's cache too")


def objective_over(
    pool: Cache | AnyBlock | None,
    target: Cache | AnyBlock | None,
    existing: Cache | AnyBlock | None,
    name: str,
    options: KernelOptions,
    *,
    eta: float | None = None,
    nu: float = 1.0,
    alpha: float = ALPHA,
    p: float = 2.0,
    beta: float = 1.0,
    depth: int = 3,
    count: Count = "records",
) -> tuple[Objective, AnyBlock]:
    """The objective `name` over the caches or their blocks, and the block whose examples are chosen from.

    Args:
        pool: pool × pool, or pool × its anchors, which then count for those they stand for; None for an objective
            that needs only pool × target set.
        target: pool × target set, or target set × pool for `fl1mi` and `flcmi`.
        eta, nu, alpha, p, beta, depth: see `objectives.make_objective`.
        existing: existing data × pool (× target set where that is what the objective covers).
        count: what of a target counts alike, itself ("records"), as in a mean of the records' losses, or the tokens of
            its response ("tokens"), as in a loss over tokens; "both": it counts for the square root of its tokens,
            the geometric mean of the two. Weights are 1 on average.

    Raises:
        InputError: a cache is incomplete, was measured otherwise, or holds other records than the objective
            needs; with the command that makes the right one.
    """
    given = {"pool": pool, "target": target, "existing": existing}
    blocks = {
        role: Block(block) if isinstance(block, Cache) else block for role, block in given.items() if block is not None
    }
    caches = {role: block.cache for role, block in blocks.items()}
    check_fit(caches, name)
    chosen, swept = blocks[chosen_role(blocks)], blocks[_swept_role(caches, name)]
    weight = weights_of(swept.cache) if swept is blocks.get("pool") else None
    if count != "records":
        counted = swept.cache.response_tokens.astype(np.float64) ** _POWER_OF_TOKENS[count]
        weight = counted / counted.mean() * (1.0 if weight is None else weight)
    made = dict(zip(blocks, kernels(list(blocks.values()), options), strict=True))
    objective = make_objective(
        name,
        made.get("pool"),
        target=made.get("target"),
        existing=made.get("existing"),
        eta=eta,
        nu=nu,
        alpha=alpha,
        p=p,
        beta=beta,
        depth=depth,
        weight=weight,
    )
    return objective, chosen


def check_fit(caches: Mapping[str, Stored], name: str) -> None:
    """Do these caches, by role, belong together, and does the objective `name` take them?

    Raises:
        InputError: see `objective_over`; said before anything of their pairs is read.
    """
    chosen_role(caches)
    check_same_measure(list(caches.values()))
    pool, target, existing = (caches.get(role) for role in ("pool", "target", "existing"))
    if pool is not None and not of_itself(pool):
        raise InputError(f"{pool.path} is not a pool scored against itself; give it with --target or --existing")
    for role, cache, right in (
        ("target", target, "{source} --targets TARGET_SET"),
        ("existing", existing, "--examples EXISTING --targets {source}"),
    ):
        if cache is not None and of_itself(cache):
            right = right.format(source=cache.manifest["examples"]["source"])
            itself = "itself" if cache.square else "its anchors"
            raise InputError(
                f"--{role} {cache.path} is a pool scored against {itself}; give one made with: delift score {right}"
            )
    check_blocks(name, pool=pool is not None, target=target is not None, existing=existing is not None)
    if pool is not None and target is not None:
        _check_target(pool, target, name)
    swept = caches[_swept_role(caches, name)]
    if existing is not None and _key(existing, "targets") != _key(swept, "targets"):
        raise InputError(
            f"{existing.path} does not have the records to cover as its targets; make it with: "
            f"delift score --examples EXISTING --targets {swept.manifest['targets']['source']}"
        )


def of_itself(cache: Stored) -> bool:
    """Is it a pool's own, against itself or against anchors that stand for it?"""
    return cache.square or weights_of(cache) is not None


def _swept_role(caches: Mapping[str, Stored], name: str) -> str:
    """Whose targets an objective covers."""
    return "target" if "pool" not in caches or (name in SWEEP_TARGET and "target" in caches) else "pool"


def _key(cache: Stored, side: str) -> str:
    return str(cache.manifest[side]["sha256"])


def _check_target(pool: Stored, target: Stored, name: str) -> None:
    """The pool must be the rows of the target block or, for the capped objectives, its columns."""
    source = pool.manifest["examples"]["source"]
    if name in CAPPED:
        if _key(target, "targets") != _key(pool, "targets"):
            raise InputError(
                f"{target.path} does not have the pool as its targets, which objective {name} needs; "
                f"make it with: delift score --examples TARGET_SET --targets {source}"
            )
    elif _key(target, "examples") != _key(pool, "examples"):
        raise InputError(
            f"{target.path} does not have the pool as its examples; "
            f"make it with: delift score {source} --targets TARGET_SET"
        )
