"""What a cluster costs and gives: beside a plain run, two workers beside one, and 64 workers that only sleep.

    python -m tests.bench.cluster                      everything, about five minutes on two quiet cores
    python -m tests.bench.cluster overhead two sleep   some parts
    python -m tests.bench.cluster --json > out.json

Parts:
    overhead    pairs/s of one worker process by the side of this process alone: the tiny model, units of 50 ms and more
    two         pairs/s of two single-threaded workers by the side of one: SmolLM2; `most` is the same for the prompt
                processing of two processes that have nothing to do with each other
    sleep       64 workers, threads of another process, that sleep 100 ms a unit, rows written to a cache: the share of
                their time that they are at work as they measure it, and `busy` if no sleep were longer than 100 ms

Rates are taken from when the workers are let in to the last row. Starting a worker takes seconds, and is named. What is
compared is measured in turn, several times, and a ratio is of medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster, Worker

from delift_cli.data.record import RecordSet
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Settings
from delift_cli.model.places import locate
from delift_cli.progress import silent
from delift_cli.prompt.builtin import load_template
from delift_cli.prompt.encoding import EncodedExamples, EncodedTargets
from delift_cli.scoring import job
from delift_cli.scoring.cluster import ClusterScoring, at_work_on, connect
from delift_cli.scoring.cluster.content import content_of
from delift_cli.scoring.cluster.crew import Check, Crew
from delift_cli.scoring.cluster.scoring import unit_tokens
from delift_cli.scoring.cluster.worker import Job
from delift_cli.scoring.measures import Measures
from delift_cli.scoring.pairs import Measuring, Scoring, Unit, Work
from delift_cli.scoring.throughput import raw_rate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what the tests are made with
import tiny_runs

PARTS = ("overhead", "two", "sleep")
SLEEPERS, SLEEP_SECONDS = 64, 0.1
TURNS = 3  # how often each of two ways is measured


def inputs_of(file: ModelFile, examples: RecordSet, targets: RecordSet | None) -> job.Inputs:
    template = load_template(None, file.template, file.vocabulary)
    context = 1 << 20
    return job.prepare(examples, targets, template, context=context, truncate=False, skip_invalid=False)


def rate(measuring: Measuring, units: list[Unit], shape: tuple[int, int]) -> tuple[float, float]:
    """Pairs/s over all units, and seconds a unit."""
    taken: list[int] = []
    started = time.perf_counter()
    for _ in measuring.units(units, lambda unit, measured: taken.append(len(measured.distance))):
        pass
    elapsed = time.perf_counter() - started
    assert taken == [shape[1]] * len(units)
    return sum(taken) / elapsed, elapsed / len(units)


@contextmanager
def cluster(workers: int, file: ModelFile, inputs: job.Inputs, settings: Settings) -> Iterator[tuple[Any, float]]:
    """A cluster of so many processes, and how long it took until all were let in."""
    started = time.perf_counter()
    sha256 = file.identity()["sha256"]
    engine = job.Engine(file, "as-is", None, settings)
    tokens = inputs.target_tokens
    with (
        connect(f"local:{workers}", threads=settings.threads) as connection,
        at_work_on(
            connection.client,
            file,
            sha256,
            engine,
            inputs,
            tokens,
            threads=settings.threads,
            took_part=lambda machine, off: None,
            say=silent,
        ) as scoring,
    ):
        scoring.wait_for(workers)
        yield scoring, time.perf_counter() - started


def compared(one: Measuring, other: Measuring, units: list[Unit], shape: tuple[int, int]) -> dict[str, float]:
    """Pairs/s of two ways of measuring the same units, in turn, and how much the other one has of the first."""
    found: dict[str, list[tuple[float, float]]] = {"one": [], "other": []}
    for _ in range(TURNS):
        for name, measuring in (("one", one), ("other", other)):
            found[name].append(rate(measuring, units, shape))
    first, second = (np.median(found[name], axis=0).tolist() for name in ("one", "other"))
    return {
        "unit_seconds": first[1],
        "one_pairs_per_second": first[0],
        "other_pairs_per_second": second[0],
        "ratio": second[0] / first[0],
    }


def overhead(records: int = 60, targets: int = 1000) -> dict[str, Any]:
    """This process alone against one worker."""
    file = ModelFile(tiny_runs.model())
    examples, others = (tiny_runs.records(tiny_runs.pairs(*range(count))) for count in (records, targets))
    inputs = inputs_of(file, examples, others)
    settings = Settings(threads=1)
    units = [Unit(example, inputs.target_tokens.all) for example in range(records)]
    engine = job.Engine(file, "as-is", None, settings)
    with (
        job.at_work(engine, inputs, inputs.target_tokens) as models,
        cluster(1, file, inputs, settings) as (scoring, start),
    ):
        alone = Scoring(models, inputs.encoded_examples, inputs.target_tokens)
        for measuring in (alone, scoring):
            rate(measuring, units[:2], inputs.shape)
        return {**compared(alone, scoring, units, inputs.shape), "start_seconds": start}


def two(records: int = 32, targets: int = 4) -> dict[str, Any]:
    """One single-threaded worker against two, of which the first is idle meanwhile."""
    file = ModelFile(locate("smollm2"))
    examples, others = (tiny_runs.records(tiny_runs.pairs(*range(count))) for count in (records, targets))
    inputs = inputs_of(file, examples, others)
    settings = Settings(threads=1)
    units = [Unit(example, inputs.target_tokens.all) for example in range(records)]
    with cluster(1, file, inputs, settings) as (one, _), cluster(2, file, inputs, settings) as (both, _):
        return {**compared(one, both, units, inputs.shape), "most": strangers(file, settings)}


def strangers(file: ModelFile, settings: Settings) -> float:
    """The raw rate of two processes that know nothing of each other by that of one: what the machine lets two gain."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        found = []
        for _ in range(TURNS):
            alone = processes.submit(raw_rate, file, settings).result()
            both = [processes.submit(raw_rate, file, settings) for _ in range(2)]
            found.append(sum(each.result() for each in both) / alone)
    return float(np.median(found))


class Sleeper:
    """What a worker measures with, where measuring is sleeping."""

    def __init__(self) -> None:
        self.work = Work()

    def units(self, units: list[Unit], write: Callable[[Unit, Measures], None]) -> Iterator[Work]:
        for unit in units:
            time.sleep(SLEEP_SECONDS)
            write(unit, said(unit))
            yield self.work


def said(unit: Unit) -> Measures:
    return Measures(np.full(len(unit.targets), 0.5, np.float32), np.full(len(unit.targets), -1.0, np.float32))


@contextmanager
def sleepers(
    _file: ModelFile, _settings: Settings, _examples: EncodedExamples, _targets: EncodedTargets
) -> Iterator[list[Sleeper]]:
    yield [Sleeper()]


@contextmanager
def workers_of(scheduler: str) -> Iterator[None]:
    """Another process with all the sleepers."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.cluster", "--sleep-for", scheduler])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def sleep_for(scheduler: str) -> None:
    """Sleep at the command of this scheduler."""
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": None, "dashboard": False}
    await asyncio.gather(*(Worker(scheduler, name=str(at), **options) for at in range(SLEEPERS)))
    await asyncio.Event().wait()


def sleep(units_each: int = 400, targets: int = 50) -> dict[str, Any]:
    file = ModelFile(tiny_runs.model())
    count = SLEEPERS * units_each
    examples, few = tiny_runs.pairs(*range(count)), tiny_runs.pairs(*range(targets))
    inputs = inputs_of(file, tiny_runs.records(tiny_runs.pairs(0)), tiny_runs.records(few))
    shown = EncodedExamples(inputs.encoded_examples.prefixes * count, [None] * count)
    tokens = inputs.target_tokens
    units = [Unit(example, tokens.all) for example in range(count)]
    content = content_of(file.path, file.identity()["sha256"])
    with tempfile.TemporaryDirectory() as folder:
        cache = tiny_runs.open_cache(Path(folder) / "sleep.delift", examples, few)
        scheduler = LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None)
        with (
            scheduler,
            workers_of(scheduler.scheduler_address),
            Client(scheduler, set_as_default=False) as client,
            Crew(
                client,
                {content: file.parts},
                lambda records: Job(content, (), "as-is", Settings(), records, sleepers),  # type: ignore[arg-type]
                (shown, inputs.encoded_targets),
                Check(units[:1], [said(units[0])], 1e-3),
                cost=partial(unit_tokens, shown, tokens),
                say=silent,
            ) as crew,
        ):
            scoring = ClusterScoring(
                crew, shown, tokens, took_part=lambda machine, off: None, together=cache.together, say=silent
            )
            scoring.wait_for(SLEEPERS)
            before, started, used = scoring._busy, time.perf_counter(), time.process_time()
            for _ in scoring.units(units, lambda unit, measured: cache.write_row(unit.example, *measured)):
                pass
            elapsed, used = time.perf_counter() - started, time.process_time() - used
        cache.__exit__(None)
    return {
        "workers": SLEEPERS,
        "units": count,
        "seconds": elapsed,
        "busy": count * SLEEP_SECONDS / (SLEEPERS * elapsed),
        "at_work": (scoring._busy - before) / (SLEEPERS * elapsed),
        "processor_share": used / elapsed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sleep-for", metavar="SCHEDULER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sleep_for:
        asyncio.run(sleep_for(options.sleep_for))
        return
    results = {}
    for part in options.parts or PARTS:
        results[part] = {"overhead": overhead, "two": two, "sleep": sleep}[part]()
        if not options.json:
            print(part, *(f"{name} {value:,.3f}" for name, value in results[part].items()), sep="  ", flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
