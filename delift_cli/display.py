"""Results that show themselves: as aligned lines in a terminal, as a small table in a notebook.

Texts of data, models and file names are shown, never obeyed: what a terminal or a reader would act on is escaped.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

Lines = list[tuple[str, str]]  # name and text


# what moves a cursor, sets a title, or turns the direction of what follows: control, format, surrogate and unassigned
# characters and line separators; joiners (U+200C, U+200D) and the soft hyphen belong to words and emoji and stay
_ACTS = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
_HARMLESS = "\u200c\u200d\u00ad"
_ORDINARY = re.compile(r"[ -~]*")


def visible(text: str, *, lines: bool = False) -> str:
    """`text` with everything that a terminal would act on written as an escape, such as \\x1b or \\u202e.

    lines: line breaks and tabs are the text's own and stay.
    """
    if _ORDINARY.fullmatch(text):
        return text
    return "".join(_shown(character, lines) for character in text)


def _shown(character: str, lines: bool) -> str:
    if character in _HARMLESS or (lines and character in "\n\t") or unicodedata.category(character) not in _ACTS:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
