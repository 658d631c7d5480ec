"""One `delift report` from end to end: caches in, a page out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..selection.blocks import AnyBlock, KernelOptions, as_block
from ..selection.methods import AnyCache, opened_cache
from .comparison import compare
from .html import drawing_library, render
from .pool import Pool, Wanted
from .sections import document


def report_page(
    cache: AnyCache,
    other: AnyCache | None = None,
    *,
    subset: Sequence[str | Path] = (),
    target: AnyCache | None = None,
    k: str | int = "30%",
    group: str | None = None,
    options: KernelOptions | None = None,
    seed: int = 0,
) -> bytes:
    """What the scores say about the data, as one HTML file.

    Args:
        cache: a pool's, a path or opened. other: a second cache of the same records, to compare them.
        subset: files of selected records or of ids; none: what greedy takes, `k` of the pool.
        target: the pool's cache by a target set.
        group: the field that records are grouped by; None: one is looked for.
        options: how measurements become similarities. seed: of everything random.

    Raises:
        InputError: caches or subsets that do not belong together, or the drawing library is not installed.
    """
    drawing_library()  # said before the work, not after it
    options = options or KernelOptions(seed=seed)
    wanted = Wanted([Path(file) for file in subset], str(k), group, options, seed)
    block = _opened(cache)
    if other is not None:
        if target is not None:
            raise InputError("--target is of no use to a comparison of two caches; leave it out")
        return render(compare(block, _opened(other), wanted))
    aims = None if target is None else _opened(target)
    return render(document(Pool(block, aims, wanted)))


def _opened(cache: AnyCache) -> AnyBlock:
    """A cache's block, whose records are taken apart once: a report reads them a dozen times."""
    block = as_block(opened_cache(cache))
    block.examples = [record.held() for record in block.examples]
    if not block.cache.square:
        block.targets = [record.held() for record in block.targets]
    return block
