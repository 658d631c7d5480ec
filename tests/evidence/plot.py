"""The picture of the evidence, `samples/evidence.svg`: the default among random subsets, a row a pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tests.evidence.stats import Interval

TITLES = {"by_record": "every record counts alike", "by_token": "every token counts alike"}
BETTER, WORSE, LIKE, DRAWN, ZERO = "#1a7f5a", "#b3362b", "#333333", "#b9c2cc", "#888888"


class Way(NamedTuple):
    """In one measure, as shares of the gap between random subsets (0) and training on everything (1)."""

    drawn: npt.NDArray[np.float64]  # [random subsets]
    chosen: Interval  # its low and high are those of the difference: high is the lower share


class Compared(NamedTuple):
    """A row of the picture."""

    title: str
    by_record: Way
    by_token: Way


def draw(compared: Sequence[Compared], path: Path) -> None:
    """A panel for each measure; of each row a dot a random subset, and the choice with its interval."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "delift"
    from matplotlib import pyplot
    from matplotlib.ticker import PercentFormatter

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 0.4 * len(compared) + 1), sharey=True)
    rng = np.random.default_rng(0)
    for axis, measure in zip(axes, TITLES, strict=True):
        for height, row in enumerate(compared):
            drawn, (share, most, least) = getattr(row, measure)
            axis.plot(drawn, height + rng.uniform(-0.22, 0.22, len(drawn)), ".", color=DRAWN, markersize=3, zorder=1)
            color = BETTER if least > 0 else WORSE if most < 0 else LIKE
            axis.plot((least, most), (height, height), color=color, linewidth=2, zorder=2)
            axis.plot(share, height, "o", color=color, markersize=6, zorder=3)
        axis.axvline(0, color=ZERO, linewidth=0.8, zorder=0)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_title(TITLES[measure], fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(compared)), [row.title for row in compared])
    axes[0].set_ylim(len(compared) - 0.5, -0.5)
    figure.supxlabel("0 %: random subsets on average, 100 %: training on everything", fontsize=8, y=0.02)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
