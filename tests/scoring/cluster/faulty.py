"""The real scoring of a worker with one thing wrong with it, by the worker's name; workers import this."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from distributed import get_worker

from delift_cli.errors import RunError
from delift_cli.scoring.cluster.worker import open_scorings
from delift_cli.scoring.measures import Measures
from delift_cli.scoring.pairs import Scoring, Unit

CHECKED = 4  # units that a worker measures to be let in: twice two
SLOW_SECONDS = 8.0  # of a unit on a slow worker


class Faulty:
    """`Scoring`, of which `fault(unit, count, measured)` sees every result behind the check pairs and may change it."""

    def __init__(self, scoring: Scoring, fault: Callable[[Unit, int, Measures], Measures], after: int) -> None:
        self._scoring = scoring
        self._fault = fault
        self._after = after
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scoring, name)

    def units(self, units: Any, write: Callable[[Unit, Measures], None]) -> Iterator[Any]:
        def spoiled(unit: Unit, measured: Measures) -> None:
            self._count += 1
            write(unit, self._fault(unit, self._count, measured) if self._count > self._after else measured)

        return self._scoring.units(units, spoiled)


@contextmanager
def opening(*arguments: Any, faults: dict[str, str], checked: int = CHECKED) -> Iterator[list[Any]]:
    """`open_scorings` with the fault of this worker: `FAULTS`, by the worker's name or `*`."""
    name = faults.get(str(get_worker().name), faults.get("*"))
    with open_scorings(*arguments) as scorings:
        yield scorings if name is None else [Faulty(scoring, FAULTS[name], checked) for scoring in scorings]


def _delayed(seconds: float) -> Callable[[Unit, int, Measures], Measures]:
    def wait(unit: Unit, count: int, measured: Measures) -> Measures:
        time.sleep(seconds)
        return measured

    return wait


def _nan(unit: Unit, count: int, measured: Measures) -> Measures:
    return Measures(np.full_like(measured.distance, np.nan), measured.logprob)


def _other(unit: Unit, count: int, measured: Measures) -> Measures:
    return Measures(measured.distance + np.float32(0.05), measured.logprob)


def _refuse(unit: Unit, count: int, measured: Measures) -> Measures:
    if unit.example == 7:
        raise RunError("the model gave a probability that is not a number")
    return measured


def _die(unit: Unit, count: int, measured: Measures) -> Measures:
    os.kill(os.getpid(), signal.SIGKILL)
    return measured


FAULTS = {
    "brief": _delayed(0.02),
    "quarter": _delayed(0.25),
    "slow": _delayed(SLOW_SECONDS),
    "nan": _nan,
    "other numbers": _other,
    "one unit": _refuse,
    "dies": _die,
}
