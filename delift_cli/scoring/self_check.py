"""Does a way of running targets behind a prefix say what evaluating each pair alone says? A few pairs tell.

llama.cpp supports more than a hundred architectures, and what each allows differs: to begin a sequence with part of
another, to copy its whole state, to evaluate several sequences in one batch. Nothing here goes by their names. What an
architecture does not allow may end the process, so that it can be tried in a child process.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from ..errors import DeliftError
from ..machine.children import end_with_parent, ending, run_child, said_lines
from ..model.adapter import Adapter
from ..model.gguf import ModelFile
from ..model.llama import Model, Settings
from ..model.logprob import token_logprobs
from ..prompt.encoding import EncodedExamples
from ..prompt.template import Tokens
from ..prompt.trie import Sequences
from .measures import Measures, measures_of
from .pairs import TargetTokens, row_scorer
from .whole_states import LayOutRows

PAIRS = 4  # that are tried
LONG = 384  # tokens of a pair beyond which a shorter one is tried, where there is one
# nats a token: ways that are nearer than that agree, by the type of the weights, for llama.cpp rounds what it
# multiplies by as it does the weights, to eight bits with those that are not named: SmolLM2's short responses differ by
# up to 0.1 as Q4_1 and 0.09 as BF16 between two ways of laying out the same batch, their distances by up to 0.011
AGREE = {"F32": 0.01, "F16": 0.02, "BF16": 0.15}
ROUNDED = 0.2
DISTANCE = 0.03  # and their distances are nearer than that
EXACT_CACHE = ("f32", "f16", "bf16")
NOISE = 4.0  # they agree as well within so many times what two batch sizes differ by, each pair alone
CONTRADICTION = 0.5  # nats a token: two batch sizes that differ by more contradict each other
PIECES = 5  # what a pair alone is cut into, to see that
RULE = repr((AGREE, ROUNDED, DISTANCE, NOISE, CONTRADICTION, PIECES, PAIRS))  # what a finding was found by
PATIENCE = 900.0  # seconds that a child may take, loading included


@dataclass(frozen=True)
class Trial:
    """A few pairs: the sequences, in lexicographic order, stand behind the prefix."""

    prefix: Tokens
    sequences: Sequences

    @property
    def cells(self) -> int:
        """Tokens of the longest pair."""
        return len(self.prefix) + int(np.diff(self.sequences.bounds).max())


@dataclass(frozen=True)
class Finding:
    """What came of one way.

    Attributes:
        states: the way, as in `Settings`.
        apart: largest |difference of mean log-probabilities| between it and each pair alone, nats a token.
        noise: the same between two batch sizes, each pair alone.
        reason: why the way is of no use; None where it is.
        ended: did it end the process?
    """

    states: int | None
    apart: float | None = None
    noise: float | None = None
    reason: str | None = None
    ended: bool = False


def some_pairs(examples: EncodedExamples, targets: TargetTokens) -> Trial:
    """A short example with a few targets, from the shortest to the median in length."""
    at = int(np.argmin([len(prefix) for prefix in examples.prefixes]))
    by_length = np.argsort(targets.lengths, kind="stable")[: targets.count // 2 + PAIRS]
    short = by_length[targets.lengths[by_length] + len(examples.prefixes[at]) <= LONG]
    usable = short if len(short) else by_length[:1]
    chosen = np.sort(usable[np.unique(np.linspace(0, len(usable) - 1, PAIRS).astype(int))])
    sequences, _ = targets.behind(examples.systems[at], chosen, _as_they_are)
    return Trial(examples.prefixes[at], sequences)


def _as_they_are(sequences: Sequences, order: npt.NDArray[np.int64]) -> Sequences:
    return sequences.taken(order)


# ---------------------------------------------------------------------- in this process


def try_ways(file: ModelFile, settings: Settings, trial: Trial, ways: Sequence[int | None]) -> Iterator[Finding]:
    """One way after the other, until one is of use."""
    for states in ways:
        try:
            finding = _try_way(file, replace(settings, states=states), trial)
        except DeliftError as error:
            finding = Finding(states, reason=str(error))
        yield finding
        if finding.reason is None:
            return


def _try_way(file: ModelFile, settings: Settings, trial: Trial) -> Finding:
    count = len(trial.sequences.response)
    with Model(file, settings, cells=2 * trial.cells + settings.batch) as model:
        alone = _alone(model, trial, 1)
        noise, noise_of_distance = _apart(alone, _alone(model, trial, PIECES))
        scorer = row_scorer(model, threading.Event())
        scorer.keep_head(trial.prefix[: len(trial.prefix) // 2])
        lay_out = scorer.lay_out
        if isinstance(lay_out, LayOutRows):
            lay_out = replace(lay_out, filling=1.0)  # a few targets of unequal length in one batch, as many would be
        layout = lay_out(trial.sequences, np.arange(count))
        (apart, distance), reason = _apart(alone, scorer.row(trial.prefix, layout)), None
    floor = AGREE.get(file.quantization() or "", ROUNDED) if settings.kv_type in EXACT_CACHE else ROUNDED
    if noise > CONTRADICTION:
        reason = (
            f"the same pair alone, in one batch and in {PIECES}, gets log-probabilities {noise:.2g} nats a token apart"
        )
    elif apart > max(floor, NOISE * noise):
        reason = f"pairs behind one prefix get log-probabilities {apart:.2g} nats a token off those of each pair alone"
    elif distance > max(DISTANCE, NOISE * noise_of_distance):
        reason = f"pairs behind one prefix get distances {distance:.2g} off those of each pair alone"
    return Finding(settings.states, apart, noise, reason)


def _apart(one: Measures, other: Measures) -> tuple[float, float]:
    """Largest differences of log-probabilities and of distances."""
    return float(np.abs(one.logprob - other.logprob).max()), float(np.abs(one.distance - other.distance).max())


def _alone(model: Model, trial: Trial, pieces: int) -> Measures:
    """Each pair in a fresh sequence, in so many batches or more, with the logits of all tokens."""
    found = []
    sequences = trial.sequences
    for at, (start, stop) in enumerate(pairwise(sequences.bounds.tolist())):
        tokens = np.concatenate([trial.prefix, sequences.tokens[start:stop]])
        size = min(-(-len(tokens) // pieces), model.settings.batch)
        model.clear()
        parts = []
        for begin in range(0, len(tokens) - 1, size):
            part = tokens[begin : min(begin + size, len(tokens) - 1)]
            one = np.ones(len(part), np.int32)
            positions = np.arange(begin, begin + len(part), dtype=np.int32)
            logits = model.decode(part, positions, 0 * one, one, one.astype(np.bool_))
            following = tokens[begin + 1 : begin + 1 + len(part)]
            parts.append(token_logprobs(logits, np.arange(len(part)), following))
        given = np.concatenate(parts)[len(trial.prefix) + sequences.scored_places(at) - 1]
        found.append(measures_of(given, np.array([0, len(given)])))
    model.clear()
    return Measures(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


# ---------------------------------------------------------------------- in a child process


def try_in_child(file: ModelFile, settings: Settings, trial: Trial, ways: Sequence[int | None]) -> Iterator[Finding]:
    """The same, where a way that ends the process is one that is of no use."""
    left = list(ways)
    while left:
        findings = _run_child(file, settings, trial, left)
        yield from findings
        if findings[-1].reason is None:
            return
        left = left[len(findings) :]


def _run_child(file: ModelFile, settings: Settings, trial: Trial, ways: Sequence[int | None]) -> list[Finding]:
    asked = orjson.dumps({"path": str(file.path), "settings": asdict(settings), "ways": list(ways)})
    stream = io.BytesIO()
    np.savez(stream, asked=np.frombuffer(asked, np.uint8), prefix=trial.prefix, **trial.sequences._asdict())
    try:
        run = run_child("-c", f"from {__name__} import child; child()", seconds=PATIENCE, given=stream.getvalue())
        said, ended = run.stdout, f"llama.cpp ends the process ({_cause(run.returncode, run.stderr)})"
    except subprocess.TimeoutExpired as error:
        said, ended = error.stdout or b"", f"llama.cpp gave no answer in {PATIENCE:.0f} s"
    findings = [Finding(**orjson.loads(line)) for line in said.splitlines()]
    if not findings or (findings[-1].reason is not None and len(findings) < len(ways)):
        findings.append(Finding(ways[len(findings)], reason=ended, ended=True))
    return findings


def _cause(code: int, text: bytes) -> str:
    """What llama.cpp asserted, else the signal that ended it, else its last words."""
    said = said_lines(text)
    asserted = [line[line.index("GGML_ASSERT") :] for line in said if "GGML_ASSERT" in line]
    if not asserted and code < 0:
        return ending(code)
    return (asserted or said or [ending(code)])[-1][:200]


def child() -> None:
    """The child: a trial as .npz on stdin, a line of JSON for each way on stdout."""
    end_with_parent()
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as given:
        asked = orjson.loads(given["asked"].tobytes())
        trial = Trial(given["prefix"], Sequences(*(given[name] for name in Sequences._fields)))
    adapters = tuple(Adapter(**adapter) for adapter in asked["settings"].pop("adapters"))
    settings = Settings(**asked["settings"], adapters=adapters)
    for finding in try_ways(ModelFile(Path(asked["path"])), settings, trial, asked["ways"]):
        sys.stdout.buffer.write(orjson.dumps(asdict(finding)) + b"\n")
        sys.stdout.buffer.flush()
