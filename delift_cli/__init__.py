"""delift: choose the training data that makes a language model better."""

from __future__ import annotations

from .submodular.kernel import dense_kernel, utility_kernel
from .submodular.select import Selection, select

__version__ = "0.1.0"
__all__ = ["Selection", "dense_kernel", "select", "utility_kernel"]
