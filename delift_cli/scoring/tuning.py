"""Which weights and settings run a model fastest on this machine, found by a few timed batches of real pairs.

The answer is remembered for each model and machine. Only conversions that keep the numbers are considered:
`bf16`, `f16` and `f32` hold what the quantized weights say, `q8_0` is close; each must also agree with the
original file on the timed pairs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ..errors import DeliftError
from ..model.converted import BITS, cache_directory, converted, kept_copy
from ..model.gguf import ModelFile
from ..model.llama import VERSION, Model, Settings, gpus
from ..prompt.encoding import EncodedExamples
from .measures import Measures
from .pairs import Probe, TargetTokens, cells_needed

CANDIDATES = ("bf16", "f16", "f32", "q8_0")
BATCHES = (256, 512, 1024)
TOLERANCE = 0.01  # mean |difference of distances| from the original file, on the timed pairs
MARGIN = 1.03  # a setting must be this much faster than the default to replace it
MEMORY_SHARE = 0.6  # of the machine's memory that a converted model may take


@dataclass(frozen=True)
class Tuning:
    """What was found.

    Attributes:
        weights: `as-is` or a type of `CANDIDATES`.
        deviation: mean and largest |difference of distances| and mean |difference of log-probabilities| between
            these weights and the original file's on the timed pairs.
        batch, flash_attention, threads: see `model.Settings`.
        rates: tokens/s of everything that was tried, by name.
        rejected: candidates that were left out, and why.
    """

    weights: str
    deviation: dict[str, float]
    batch: int
    flash_attention: str
    threads: int
    rates: dict[str, float]
    rejected: dict[str, str]


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
    book = cache_directory() / "tuning.json"
    key = f"{sha256}|{machine()}|{settings.kv_type}|{settings.resolved_gpu_layers()}"
    entries = _read(book)
    if key in entries:
        return Tuning(**entries[key])
    tuning = _measure(file, sha256, settings, examples, targets, say)
    entries[key] = asdict(tuning)
    draft = book.with_suffix(f".{os.getpid()}")
    with suppress(OSError):  # what cannot be remembered is measured again
        book.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(orjson.dumps(entries, option=orjson.OPT_INDENT_2))
        draft.replace(book)
    return tuning


def machine() -> str:
    """This machine and this build of llama.cpp, as far as speed depends on them."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return f"{processor} x{os.cpu_count()} {gpus()} llama-cpp-python {VERSION}"


def _measure(
    file: ModelFile,
    sha256: str,
    settings: Settings,
    examples: EncodedExamples,
    targets: TargetTokens,
    say: Callable[[str], None],
) -> Tuning:
    cells = cells_needed(examples.prefixes, targets, max(BATCHES))
    rates: dict[str, float] = {}
    rejected: dict[str, str] = {}

    def timed(name: str, candidate: ModelFile, chosen: Settings) -> tuple[float, Measures]:
        with Model(candidate, chosen, cells=cells) as model:
            rate, measured = Probe(model, examples, targets).time()
        rates[name] = round(rate, 1)
        say(f"{name}: {rate:,.0f} tokens/s")
        return rate, measured

    best, original = timed("as-is", file, settings)
    weights, fastest, deviation = "as-is", file, {"mean_distance": 0.0, "max_distance": 0.0, "mean_logprob": 0.0}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    own = (file.quantization() or "").lower()
    for candidate in CANDIDATES:
        if candidate == own:
            continue
        if file.parameters() * BITS[candidate] / 8 > MEMORY_SHARE * memory:
            rejected[candidate] = "does not fit the memory"
            continue
        try:
            copy = converted(file, sha256, candidate, threads=settings.resolved_threads())
            rate, measured = timed(candidate, copy, settings)
        except DeliftError as error:
            rejected[candidate] = str(error)
            continue
        apart = _deviation(measured, original)
        if apart["mean_distance"] > TOLERANCE:
            rejected[candidate] = f"distances differ by {apart['mean_distance']:.4f} on average"
        elif rate > best * (MARGIN if weights == "as-is" else 1.0):
            best, weights, fastest, deviation = rate, candidate, copy, apart
    chosen = settings
    for name, other in _alternatives(settings):
        try:
            rate, _ = timed(name, fastest, other(chosen))
        except DeliftError as error:
            rejected[name] = str(error)
            continue
        if rate > best * MARGIN:
            best, chosen = rate, other(chosen)
    for candidate in CANDIDATES:  # only the winner is worth its room on disk
        if candidate != weights:
            kept_copy(file, sha256, candidate).unlink(missing_ok=True)
    return Tuning(
        weights,
        deviation,
        chosen.batch,
        chosen.flash_attention,
        chosen.resolved_threads(),
        rates,
        rejected,
    )


def _alternatives(settings: Settings) -> list[tuple[str, Callable[[Settings], Settings]]]:
    """Other settings worth a try, each applied to the best so far."""

    def with_batch(batch: int) -> Callable[[Settings], Settings]:
        return lambda chosen: replace(chosen, batch=batch)

    tried: list[tuple[str, Callable[[Settings], Settings]]] = [
        (f"batch {batch}", with_batch(batch)) for batch in BATCHES if batch != settings.batch
    ]
    tried.append(("flash attention off", lambda chosen: replace(chosen, flash_attention="off")))
    half = settings.resolved_threads() // 2
    if half:
        tried.append((f"{half} threads", lambda chosen: replace(chosen, threads=half)))
    return tried


def _deviation(measured: Measures, original: Measures) -> dict[str, float]:
    distance = np.abs(measured.distance.astype(np.float64) - original.distance)
    logprob = np.abs(measured.logprob.astype(np.float64) - original.logprob)
    return {
        "mean_distance": float(distance.mean()),
        "max_distance": float(distance.max()),
        "mean_logprob": float(logprob.mean()),
    }


def _read(book: Path) -> dict[str, Any]:
    try:
        entries = orjson.loads(book.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return entries if isinstance(entries, dict) else {}
