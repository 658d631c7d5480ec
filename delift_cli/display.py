"""Results that show themselves: as aligned lines in a terminal, as a small table in a notebook.

Texts of data, models and file names are shown, never obeyed: what a terminal or a reader would act on is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from .visible import visible

Lines = list[tuple[str, str]]  # name and text


def aligned(lines: Sequence[tuple[str, str]]) -> str:
    """Rows of name and text, the names set to the right."""
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{visible(name):>{width}}  {visible(text)}" for name, text in lines)


def html_table(lines: Sequence[tuple[str, str]]) -> str:
    """The same as an HTML table; texts are escaped."""
    rows = "".join(
        f"<tr><th>{html.escape(visible(name))}</th><td>{html.escape(visible(text))}</td></tr>" for name, text in lines
    )
    return f'<table style="text-align: left">{rows}</table>'


class Facts:
    """A result that says itself in `lines()`."""

    def lines(self) -> Lines:
        """Rows of name and text, for people."""
        raise TypeError(f"{type(self).__name__} does not say what it is")

    def __repr__(self) -> str:
        return f"{type(self).__name__}\n{aligned(self.lines())}"

    def _repr_html_(self) -> str:
        return html_table(self.lines())
