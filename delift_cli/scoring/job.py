"""One scoring run, step by step: records to tokens, how to run the model, what it will take, into the cache."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..cache.dense import CacheWriter, open_for_scoring
from ..cache.manifest import read_manifest
from ..cache.sparse import SparseWriter, open_sparse_for_scoring
from ..cache.stored import Stored
from ..data.record import RecordSet
from ..errors import InputError, RunError, check_choice
from ..model.adapter import described, found_again
from ..model.apart import open_checked
from ..model.converted import BITS, converted
from ..model.gguf import ModelFile
from ..model.llama import MAX_SEQUENCES, Model, Settings, open_models
from ..model.places import locate
from ..prompt.encoding import (
    EncodedExamples,
    EncodedTargets,
    encode_examples,
    encode_targets,
    too_long,
    without,
    without_refused,
)
from ..prompt.template import AS_TRAINED, TEMPLATE_DATE, ChatTemplate
from ..prompt.trie import build_trie
from .measures import NotFiniteError
from .pairs import Probe, TargetTokens, cells_needed, common_start, lay_out_of, longest_pair
from .row_scorer import LayOut
from .tuning import tune
from .way import checked, first_way

METRIC = {
    "distance": "||1 - p||_2 / sqrt(L) over the L scored tokens: of each scored turn all and its end of turn",
    "logprob": "mean ln p over the same tokens",
}
BYTES_PER_PAIR = 8  # two float32 matrices
LAID_OUT = 16  # system messages for which a forecast lays all targets out


@dataclass(frozen=True)
class Inputs:
    """Records of one block with their tokens; `targets` is None when the pool is scored against itself."""

    examples: RecordSet
    targets: RecordSet | None
    encoded_examples: EncodedExamples
    encoded_targets: EncodedTargets

    @property
    def shape(self) -> tuple[int, int]:
        """(examples, targets)."""
        return len(self.encoded_examples.prefixes), len(self.encoded_targets.targets)

    @property
    def sets(self) -> tuple[RecordSet, ...]:
        """The sets of records that were read: one or two."""
        return (self.examples,) if self.targets is None else (self.examples, self.targets)

    def pair_name(self, example: int | None, target: int) -> str:
        """A pair by the ids of its records; examples that are several records in a row have numbers only."""
        shown = (self.targets or self.examples).records[target]
        name = f"record {shown.id} (line {shown.line})"
        if example is None:
            return name
        records = self.examples.records
        single = len(records) == len(self.encoded_examples.prefixes)
        return f"{name} behind " + (f"{records[example].id}" if single else f"row of examples {example + 1}")

    @cached_property
    def target_tokens(self) -> TargetTokens:
        """The targets joined and sorted for scoring, which takes seconds for a large set: once is enough."""
        return TargetTokens(self.encoded_targets)


def prepare(
    examples: RecordSet,
    targets: RecordSet | None,
    template: ChatTemplate,
    *,
    context: int,
    truncate: bool,
    skip_invalid: bool,
    response_tokens: int | None = None,
) -> Inputs:
    """Tokens for both roles; of a target's scored tokens the first `response_tokens` count (default: all of them).

    With `truncate` each record gets half the context, so that what a record becomes never depends on the others.

    Raises:
        InputError: pairs exceed the context; the records are named.
    """
    example_limit, target_limit = (context // 2, context - context // 2) if truncate else (None, None)
    most = None if truncate else context
    if skip_invalid:
        examples = without_refused(examples, lambda record: template.example(record, limit=example_limit, most=most))
        if targets is None:
            examples = without_refused(examples, lambda record: template.target(record, limit=target_limit, most=most))
        else:
            targets = without_refused(targets, lambda record: template.target(record, limit=target_limit, most=most))
    while True:
        as_examples = encode_examples(examples, template, limit=example_limit, most=most)
        as_targets = encode_targets(
            targets or examples, template, limit=target_limit, most=most, response_tokens=response_tokens
        )
        long = too_long(examples, targets or examples, as_examples.prefixes, as_targets.lengths(), context)
        if not any(long):
            return Inputs(examples, targets, as_examples, as_targets)
        every = [*long.examples, *long.targets]
        if not skip_invalid:
            names = ", ".join(f"{record.id} (line {record.line}, {record.reason})" for record in every[:5])
            more = f" and {len(every) - 5} more" if len(every) > 5 else ""
            raise InputError(
                f"pairs with these records exceed the context of {context:,} tokens: {names}{more}; "
                "use --truncate, a larger --ctx, or --skip-invalid to leave them out"
            )
        if targets is None:
            examples = without(examples, every)
        else:
            examples, targets = without(examples, long.examples), without(targets, long.targets)


@dataclass(frozen=True)
class Engine:
    """How the model is run: which file, which weights in it, which settings."""

    file: ModelFile
    weights: str
    deviation: dict[str, float] | None
    settings: Settings


class Measured(Protocol):
    """A cache, or what is known of one: `Stored`, `repair.Subject`."""

    @property
    def path(self) -> Path: ...
    @property
    def manifest(self) -> dict[str, Any]: ...


OpenModel = Callable[[Stored], tuple[Engine, ChatTemplate]]  # such as `engine_as_measured` with its last arguments


def choose_engine(
    file: ModelFile,
    sha256: str,
    weights: str,
    settings: Settings,
    *,
    batch: int | None,
    inputs: Inputs,
    cache: Path | None,
    say: Callable[[str], None],
) -> Engine:
    """Weights and settings for this run.

    What the user set stays as it is. An existing cache goes on with the weights, the attention and the batches that
    it was begun with; for a new one `auto` asks the tuning of this model on this machine. A few pairs are checked
    against evaluating each alone before anything is scored.

    Raises:
        InputError: this model does not give pairs that are evaluated together the numbers that each gets alone.
    """
    check_choice("weights", weights, ("auto", "as-is", *BITS))
    deviation, pairs = None, (inputs.encoded_examples, inputs.target_tokens)
    begun = read_manifest(cache) if cache is not None and (cache / "manifest.json").exists() else None
    if begun is not None and begun["model"]["sha256"] != sha256:
        begun = None  # another model's; opening it will say so
    if begun is not None:
        batch = batch or begun["run"]["batch"]  # the same batches give the same bytes
        if settings.flash_attention == "auto":
            settings = replace(settings, flash_attention=begun["settings"]["flash_attention"])
        if weights in ("auto", begun["weights"]["type"]):
            weights, deviation = begun["weights"]["type"], begun["weights"]["deviation"]
    settings = replace(
        settings,
        batch=batch or settings.batch,
        states=_way(begun, file),
        long_factors=_takes_long_factors(begun, file, inputs, say),
    )
    if weights == "auto":
        if file.keeps_states or settings.adapters:  # what ends the process would end it when tuning too
            settings = checked(file, sha256, settings, *pairs, fixed=begun is not None, say=say)
        tuning = tune(file, sha256, settings, *pairs, say=say)
        weights, deviation = tuning.weights, tuning.deviation
        settings = replace(settings, batch=batch or tuning.batch)
    run_file = converted(file, sha256, weights, threads=settings.resolved_threads(), say=say)
    settings = checked(run_file, sha256, settings, *pairs, fixed=begun is not None, say=say)
    return Engine(run_file, weights, deviation, settings)


def _way(begun: dict[str, Any] | None, file: ModelFile) -> int | None:
    """A cache goes on in the way that it was begun in, for the sake of the same bytes."""
    if begun is None:
        return first_way(file)
    states = begun["run"].get("states")
    return states if states is None or 0 < states < MAX_SEQUENCES else first_way(file)


def _takes_long_factors(
    begun: dict[str, Any] | None, file: ModelFile, inputs: Inputs, say: Callable[[str], None]
) -> bool:
    """Of a model with two sets of rotary factors all pairs take the second where one is longer than the first is for.

    A cache that was begun with it goes on with it.
    """
    if file.short_context is None:
        return False
    longest = longest_pair(inputs.encoded_examples.prefixes, inputs.target_tokens)
    if longest <= file.short_context and not _has_long_factors(begun):
        return False
    said = f"pairs of up to {longest:,} tokens: all are measured with the model's rotary factors"
    say(f"{said} for contexts of more than {file.short_context:,}")
    return True


def _has_long_factors(manifest: dict[str, Any] | None) -> bool:
    return manifest is not None and "rotary_factors" in manifest["settings"]


def engine_as_measured(cache: Measured, model: str | None, settings: Settings) -> tuple[Engine, ChatTemplate]:
    """The model that a cache was measured with, run as it was then, and the template of its records.

    Args:
        model: what `-m` says (see `model.locate`).
        settings: GPU layers and threads; the rest is as in the manifest.

    Raises:
        InputError: it is another model.
    """
    file, manifest = open_checked(locate(model)), cache.manifest
    sha256, wanted = file.identity()["sha256"], manifest["model"]
    if sha256 != wanted["sha256"]:
        raise InputError(
            f"{cache.path} was scored with {wanted['name']} (SHA-256 {wanted['sha256'][:12]}…), and {file.path} is "
            f"another model ({sha256[:12]}…); give the same GGUF file with -m"
        )
    settings = replace(
        settings,
        batch=manifest["run"]["batch"],
        kv_type=manifest["settings"]["kv_type"],
        flash_attention=manifest["settings"]["flash_attention"],
        adapters=found_again(wanted),
        states=_way(manifest, file),
        long_factors=_has_long_factors(manifest),
    )
    weights = manifest["weights"]["type"]
    run_file = converted(file, sha256, weights, threads=settings.resolved_threads())
    used = manifest["template"]
    template = ChatTemplate(
        used["text"],
        file.vocabulary,
        used["name"],
        used.get("arguments") or {},
        as_trained=used.get("scored from") == AS_TRAINED,
    )
    return Engine(run_file, weights, manifest["weights"]["deviation"], settings), template


def describe(
    file: ModelFile,
    identity: dict[str, Any],
    template: ChatTemplate,
    engine: Engine,
    fields: dict[str, Any],
    *,
    truncate_to: int | None,
    response_tokens: int | None = None,
) -> dict[str, Any]:
    """The part of a cache's manifest that its numbers depend on."""
    first = {} if response_tokens is None else {"max_response_tokens": response_tokens}
    long = {"rotary_factors": "long"} if engine.settings.long_factors else {}
    return {
        "model": {**identity, **described(engine.settings.adapters)},
        "weights": {"type": engine.weights, "deviation": engine.deviation},
        "run": {"batch": engine.settings.batch, "states": engine.settings.states},
        "template": {
            **template.describe(),
            "date": TEMPLATE_DATE.date().isoformat(),
            "add_bos": file.vocabulary.add_bos,
        },
        "metric": METRIC,
        "settings": {
            "truncate": truncate_to,
            "kv_type": engine.settings.kv_type,
            "flash_attention": engine.settings.flash_attention,
            **first,
            **long,
        },
        "fields": fields,
    }


def open_cache(path: Path, description: dict[str, Any], inputs: Inputs) -> CacheWriter:
    """The run's cache of all pairs, new or to be gone on with; see `cache.open_for_scoring`."""
    return open_for_scoring(path, description, inputs.examples, inputs.targets, **token_counts(inputs))


def open_sparse_cache(path: Path, description: dict[str, Any], inputs: Inputs) -> SparseWriter:
    """The same for some of the pairs; see `cache.sparse.open_sparse_for_scoring`."""
    return open_sparse_for_scoring(path, description, inputs.examples, inputs.targets, **token_counts(inputs))


def token_counts(inputs: Inputs) -> dict[str, list[int]]:
    """What a cache keeps of the lengths: tokens of each example, scored tokens of each target."""
    return {
        "example_tokens": [len(prefix) for prefix in inputs.encoded_examples.prefixes],
        "response_tokens": [int(target.scored.sum()) for target in inputs.encoded_targets.targets],
    }


@contextmanager
def at_work(engine: Engine, inputs: Inputs, targets: TargetTokens) -> Iterator[list[Model]]:
    """The loaded models that score together; an error about a pair names its records."""
    cells = cells_needed(inputs.encoded_examples.prefixes, targets, engine.settings.batch)
    with ExitStack() as stack:
        try:
            yield [stack.enter_context(model) for model in open_models(engine.file, engine.settings, cells=cells)]
        except NotFiniteError as error:
            raise RunError(NotFiniteError.of(inputs.pair_name(error.example, error.target))) from None


@dataclass(frozen=True)
class Forecast:
    """What a run will take: see `forecast`."""

    pairs: int
    tokens: int
    plain_tokens: int
    tokens_per_second: float
    seconds: float
    disk_bytes: int
    memory_bytes: int


def forecast(engine: Engine, inputs: Inputs) -> Forecast:
    """Tokens counted from how targets are laid out, see `expected_tokens`, speed from a few timed batches."""
    n, m = inputs.shape
    tokens, plain = expected_tokens(inputs, lay_out_of(engine.settings))
    rate, memory = measured_rate(engine, inputs)
    return Forecast(n * m, tokens, plain, rate, tokens / rate, n * m * BYTES_PER_PAIR, memory)


def measured_rate(engine: Engine, inputs: Inputs) -> tuple[float, int]:
    """Tokens per second of a few timed batches, and the bytes of memory that the model takes meanwhile."""
    targets = inputs.target_tokens
    cells = cells_needed(inputs.encoded_examples.prefixes, targets, engine.settings.batch)
    with Model(engine.file, engine.settings, cells=cells) as model:
        rate, _ = Probe(model, inputs.encoded_examples, targets).time()
        return rate, model.memory_bytes()


def expected_tokens(inputs: Inputs, lay_out: LayOut = build_trie) -> tuple[int, int]:
    """Tokens that scoring all pairs evaluates, and those that evaluating each pair alone would.

    How targets are laid out depends on the system message (or the tools) of the example in front. Of more than
    `LAID_OUT` different ones as many are laid out, and stand for all.
    """
    prefixes, systems = inputs.encoded_examples.prefixes, inputs.encoded_examples.systems
    targets = inputs.target_tokens
    lengths = np.array([len(prefix) for prefix in prefixes], np.int64)
    head = len(common_start(prefixes))
    uses = Counter(systems)
    some = uses.most_common()[:: math.ceil(len(uses) / LAID_OUT)]
    behind = sum(count * len(targets.behind(system, targets.all, lay_out)[0].tokens) for system, count in some)
    behind = round(behind * len(systems) / sum(count for _, count in some))
    shared = head + int(lengths.sum()) - head * len(prefixes) + behind
    return shared, int(lengths.sum() * targets.count + len(prefixes) * (targets.lengths - 1).sum())
