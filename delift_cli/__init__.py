"""delift: choose the training data that makes a language model better."""

from __future__ import annotations

__version__ = "0.1.0"
