"""delift: choose the training data that makes a language model better.

`score` measures a pool with a model into a cache, `select_records` chooses from it; `select` is the selector over plain
arrays. Each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DeliftError, InputError, RunError
from .version import __version__

if TYPE_CHECKING:
    from .budget.opening import forecast, score
    from .cache.sparse import open_cache
    from .evaluation.evaluate import evaluate
    from .report.run import report_page
    from .selection.blocks import KernelOptions
    from .selection.reasons import explain_record
    from .selection.run import select_records
    from .selection.shown import show_record
    from .selection.subset import Subset
    from .submodular import Selection, dense_kernel, select, utility_kernel


__all__ = [
    "DeliftError",
    "InputError",
    "KernelOptions",
    "RunError",
    "Selection",
    "Subset",
    "__version__",
    "dense_kernel",
    "evaluate",
    "explain_record",
    "forecast",
    "open_cache",
    "report_page",
    "score",
    "select",
    "select_records",
    "show_record",
    "utility_kernel",
]
_FROM = {
    "KernelOptions": ".selection.blocks",
    "Selection": ".submodular",
    "Subset": ".selection.subset",
    "dense_kernel": ".submodular",
    "evaluate": ".evaluation.evaluate",
    "explain_record": ".selection.reasons",
    "forecast": ".budget.opening",
    "open_cache": ".cache.sparse",
    "report_page": ".report.run",
    "score": ".budget.opening",
    "select": ".submodular",
    "select_records": ".selection.run",
    "show_record": ".selection.shown",
    "utility_kernel": ".submodular",
}


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(import_module(_FROM[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
