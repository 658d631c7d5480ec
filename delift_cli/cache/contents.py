"""What `delift inspect` says of a cache: how far it is scored, with what, and its most and least useful examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..amount import counted
from ..display import Facts, Lines
from .dense import Cache
from .figures import Utilities, utilities, utility_in_words
from .sparse import SparseCache

HEADINGS = ("id", "mean utility", "prompt", "response")


@dataclass(frozen=True, repr=False)
class Contents(Facts):
    """A cache in figures; `top` of its examples are shown from either end of the order by mean utility."""

    cache: Cache | SparseCache
    utility: Utilities
    most_useful: list[dict[str, Any]]
    least_useful: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """The figures as data."""
        n, m = self.cache.shape
        return {
            "cache": str(self.cache.path),
            "examples": n,
            "targets": m,
            "square": self.cache.square,
            **self._extent(),
            "complete": self.cache.complete,
            "mean_utility": self.utility.mean,
            "harmful_share": self.utility.harmful,
            "manifest": self.cache.manifest,
            "most_useful": self.most_useful,
            "least_useful": self.least_useful,
        }

    def lines(self) -> Lines:
        """The same for people, without the examples."""
        cache, manifest = self.cache, self.cache.manifest
        block = "the pool against itself" if cache.square else f"targets from {manifest['targets']['source']}"
        pairs = "measured pairs" if isinstance(cache, SparseCache) else "pairs"
        return [
            ("cache", f"{cache.path}, format {manifest['version']}"),
            ("block", f"{counted(cache.shape[0], 'example')} from {manifest['examples']['source']}, {block}"),
            ("state", self._state()),
            *how_measured(manifest),
            ("utility", utility_in_words(self.utility.mean, self.utility.harmful, pairs)),
        ]

    def tables(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        """A title and rows of cells under `HEADINGS` for either end of the order."""
        return [
            (title, [(row["id"], f"{row['mean_utility']:+.4f}", row["prompt"], row["response"]) for row in rows])
            for title, rows in (("most useful", self.most_useful), ("least useful", self.least_useful))
        ]

    def _extent(self) -> dict[str, int]:
        """How far it is scored."""
        cache = self.cache
        if isinstance(cache, SparseCache):
            return {"rounds": len(cache.rounds), "pairs_planned": cache.planned, "pairs_measured": cache.pairs_done}
        return {"rows_done": cache.rows_done}

    def _state(self) -> str:
        cache, (n, m) = self.cache, self.cache.shape
        if not isinstance(cache, SparseCache):
            return "complete" if cache.complete else f"{cache.rows_done:,} of {n:,} rows scored"
        open_ = cache.planned - cache.pairs_done
        rest = f", {open_:,} more planned" if open_ else ""
        share = f"{cache.pairs_done:,} of {n * m:,} pairs measured ({cache.pairs_done / (n * m):.2%})"
        return f"{share} in {counted(len(cache.rounds), 'round')}{rest}; all figures are of these alone"


def how_measured(manifest: Mapping[str, Any]) -> Lines:
    """With which model, in which way, for people."""
    model = manifest["model"]
    named = " ".join(filter(None, (model["name"], model.get("quantization"))))
    return [
        ("model", f"{named}, SHA-256 {model['sha256'][:16]}…"),
        ("weights", manifest["weights"]["type"]),
        ("template", manifest["template"]["name"]),
        ("settings", settings_in_words(manifest["settings"])),
    ]


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """Settings of a run for people: those that are not set are none."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if value is not None)


def contents(cache: Cache | SparseCache, top: int = 5) -> Contents:
    """What a cache holds, checked against its checksums.

    Raises:
        InputError: it is damaged.
    """
    cache.check_rows()
    found = utilities(cache)
    records = cache.examples().records
    scored = np.flatnonzero(~np.isnan(found.examples))
    ranked = scored[np.argsort(-found.examples[scored], kind="stable")].tolist()

    def row(example: int) -> dict[str, Any]:
        record = records[example]
        return {
            "id": record.id,
            "line": record.line,
            "mean_utility": float(found.examples[example]),
            "prompt": record.asked,
            "response": record.response,
        }

    most, least = ranked[:top], ranked[::-1][:top]
    return Contents(cache, found, [row(example) for example in most], [row(example) for example in least])
