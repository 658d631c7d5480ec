"""Which weights run a model fastest on this machine: a table's first guess, tested on real pairs within seconds.

The answer is remembered for each model and machine, so that all caches of a model agree. Only conversions that keep
the numbers are considered: `bf16`, `f16` and `f32` hold what the quantized weights say, `q8_0` is close; each must also
agree with the original file on the timed pairs. A type that the table does not expect to win is never converted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ..errors import DeliftError
from ..machine.kept import locked, read_book, remember
from ..machine.memory import all_memory
from ..model import processor
from ..model.converted import BITS, converted, kept_copy, remove
from ..model.gguf import ModelFile
from ..model.llama import VERSION, Model, Settings, gpus
from ..prompt.encoding import EncodedExamples
from .measures import Measures
from .pairs import Probe, TargetTokens, cells_needed
from .weights import ranked

BOOK = "tuning"
CANDIDATES = ("bf16", "f16", "f32", "q8_0")
GPU_BATCHES = (1024, 2048)  # tried on a GPU alone: no processor gains from more than 512
TOLERANCE = 0.01  # mean |difference of distances| from the original file, on the timed pairs
WORTH = 1.15  # expected gain for which a copy is made at all
MARGIN = 1.03  # a setting must be this much faster to replace the one before
MEMORY_SHARE = 0.6  # of the memory for this process that a converted model may take
SECONDS = 30.0  # for everything, and
SHARE = 0.01  # of what the run takes as it is, if that is more,
MOST_SECONDS = 120.0  # up to this
CONVERTED_PER_SECOND = 1.5e8  # weights, at least: what a conversion is expected to take


@dataclass(frozen=True)
class Tuning:
    """What was found.

    Attributes:
        weights: `as-is` or a type of `CANDIDATES`.
        deviation: mean and largest |difference of distances| and mean |difference of log-probabilities| between
            these weights and the original file's on the timed pairs.
        batch: see `model.Settings`.
        rates: tokens/s of everything that was tried, by name.
        rejected: candidates that were left out, and why.
        promised: what else the table names, that there was no time to try, with its expected gain.
        seconds: what finding it took.
    """

    weights: str
    deviation: dict[str, float]
    batch: int
    rates: dict[str, float]
    rejected: dict[str, str]
    promised: dict[str, float]
    seconds: float

    def line(self) -> str:
        """What was chosen and why, for people."""
        as_is, here = self.rates.get("as-is"), self.rates.get(self.weights)
        name = "as they are" if self.weights == "as-is" else self.weights
        if self.promised:
            other, gain = next(iter(self.promised.items()))
            return (
                f"weights {name}: no time to try others (busy machine or large model); --weights {other} is likely "
                f"{gain:.1f} times as fast here"
            )
        if self.weights == "as-is" or not as_is or not here:
            return f"weights {name}: no other type is likely to be faster here"
        return f"weights {name}: {here:,.0f} tokens/s, {as_is:,.0f} as they are (found in {self.seconds:.0f} s)"


def tune(
    file: ModelFile,
    sha256: str,
    settings: Settings,
    examples: EncodedExamples,
    targets: TargetTokens,
    *,
    say: Callable[[str], None],
) -> Tuning:
    """The remembered tuning of this model on this machine, or a new one, measured on the given pairs."""
    key = _key(sha256, settings)
    found = _remembered(key)
    if found is None:
        with locked(BOOK, waiting=lambda: say("waiting for another delift that measures this machine")):
            found = _remembered(key)  # by the one that was waited for
            if found is None:
                found = _Search(file, sha256, settings, examples, targets, say).run()
                remember(BOOK, key, asdict(found))
                say(found.line())
                return found
    if found.promised:
        say(found.line())
    return found


def known_rate(sha256: str, settings: Settings, weights: str) -> float:
    """Tokens/s that these weights of a model were seen to reach on this machine; 0 where none were timed."""
    found = _remembered(_key(sha256, settings))
    return found.rates.get(weights, 0.0) if found else 0.0


def _key(sha256: str, settings: Settings) -> str:
    return f"{sha256}|{machine()}|{settings.kv_type}|{settings.resolved_gpu_layers()}"


def machine() -> str:
    """This machine and this build of llama.cpp, as far as speed depends on them."""
    known = " ".join(sorted(processor.features()))
    return f"{processor.name()} x{os.cpu_count()} {gpus()} {known} llama-cpp-python {VERSION}"


class _Search:
    """One search: what was measured so far, and what time is left."""

    def __init__(
        self,
        file: ModelFile,
        sha256: str,
        settings: Settings,
        examples: EncodedExamples,
        targets: TargetTokens,
        say: Callable[[str], None],
    ) -> None:
        self._file, self._sha256, self._settings = file, sha256, settings
        self._examples, self._targets, self._say = examples, targets, say
        self._started, self._limit = time.monotonic(), SECONDS
        self._rates: dict[str, float] = {}
        self._rejected: dict[str, str] = {}
        self._promised: dict[str, float] = {}

    def run(self) -> Tuning:
        candidates = self._worth_trying()
        weights, best, fastest = "as-is", 0.0, self._file
        deviation = {"mean_distance": 0.0, "max_distance": 0.0, "mean_logprob": 0.0}
        original: Measures | None = None
        for name, gain in candidates:
            if best and self._rates["as-is"] * gain < best:
                break  # at its best it would not beat what was found: the order is clear
            if original is None:
                best, original = self._timed("as-is", self._file, self._settings)
                self._allow_share(best)
            if self._converting() > self._left():
                self._promised[name] = round(gain, 2)
                continue
            try:
                copy = converted(
                    self._file,
                    self._sha256,
                    name,
                    threads=self._settings.resolved_threads(),
                    seconds=max(1.0, self._left()),
                    say=self._say,
                )
                rate, measured = self._timed(name, copy, self._settings)
            except DeliftError as error:
                self._rejected[name] = str(error)
                continue
            apart = _deviation(measured, original)
            if apart["mean_distance"] > TOLERANCE:
                self._rejected[name] = f"distances differ by {apart['mean_distance']:.4f} on average"
            elif rate > best * (MARGIN if weights == "as-is" else 1.0):
                best, weights, fastest, deviation = rate, name, copy, apart
        batch = self._batch(fastest, best)
        for name, _ in candidates:  # only the winner is worth its room on disk
            if name != weights:
                with suppress(OSError):
                    remove(kept_copy(self._file, self._sha256, name))
        if weights != "as-is":
            self._promised.clear()
        seconds = round(time.monotonic() - self._started, 1)
        return Tuning(weights, deviation, batch, self._rates, self._rejected, self._promised, seconds)

    def _worth_trying(self) -> list[tuple[str, float]]:
        """Candidates that the table expects to gain enough and that fit the memory, the best first."""
        memory = all_memory()
        found = []
        for name, gain in ranked(processor.features(), self._file.quantization(), CANDIDATES):
            if self._file.parameters() * BITS[name] / 8 > MEMORY_SHARE * memory:
                self._rejected[name] = "does not fit the memory"
            elif gain >= WORTH:
                found.append((name, gain))
        return found

    def _batch(self, file: ModelFile, best: float) -> int:
        """On a GPU, the fastest of some batch sizes, as far as time goes."""
        settings = self._settings
        if not gpus() or settings.resolved_gpu_layers() == 0:
            return settings.batch
        if not best:
            best, _ = self._timed("as-is", file, settings)
        for size in GPU_BATCHES:
            if self._left() < 2.0:
                break
            try:
                rate, _ = self._timed(f"batch {size}", file, replace(settings, batch=size))
            except DeliftError as error:
                self._rejected[f"batch {size}"] = str(error)
                break
            if rate <= best * MARGIN:
                break
            best, settings = rate, replace(settings, batch=size)
        return settings.batch

    def _timed(self, name: str, file: ModelFile, settings: Settings) -> tuple[float, Measures]:
        cells = cells_needed(self._examples.prefixes, self._targets, settings.batch)
        with Model(file, settings, cells=cells) as model:
            rate, measured = Probe(model, self._examples, self._targets).time()
        self._rates[name] = round(rate, 1)
        self._say(f"{name}: {rate:,.0f} tokens/s")
        return rate, measured

    def _allow_share(self, rate: float) -> None:
        """A long run may spend a share of its time on the search."""
        tokens = float(len(self._examples.prefixes)) * float(self._targets.lengths.sum())
        self._limit = min(max(SECONDS, SHARE * tokens / rate), MOST_SECONDS)

    def _converting(self) -> float:
        return self._file.parameters() / CONVERTED_PER_SECOND

    def _left(self) -> float:
        return self._limit - (time.monotonic() - self._started)


def _deviation(measured: Measures, original: Measures) -> dict[str, float]:
    distance = np.abs(measured.distance.astype(np.float64) - original.distance)
    logprob = np.abs(measured.logprob.astype(np.float64) - original.logprob)
    return {
        "mean_distance": float(distance.mean()),
        "max_distance": float(distance.max()),
        "mean_logprob": float(logprob.mean()),
    }


def _remembered(key: str) -> Tuning | None:
    """An entry of the book, if it is one of this version and whole; what is not is measured again."""
    entry = read_book(BOOK).get(key)
    if not isinstance(entry, dict) or set(entry) != {field.name for field in fields(Tuning)}:
        return None
    tuning = Tuning(**entry)
    sound = (
        tuning.weights in ("as-is", *CANDIDATES)
        and isinstance(tuning.batch, int)
        and not isinstance(tuning.batch, bool)
        and 1 <= tuning.batch <= 2**16
        and _numbers(tuning.deviation)
        and {"mean_distance", "max_distance", "mean_logprob"} == set(tuning.deviation)
        and _numbers(tuning.rates)
        and _numbers(tuning.promised)
        and isinstance(tuning.rejected, dict)
        and isinstance(tuning.seconds, int | float)
    )
    return tuning if sound else None


def _numbers(entries: Any) -> bool:
    return isinstance(entries, dict) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in entries.values()
    )
