"""Text from records made fit to be looked at: what would act on a screen in place of appearing on it is spelt out."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

# Control characters but tab and line feed, bidirectional overrides, what has no width, tags, halves of characters.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_ACTING_OR_LINES = re.compile(_ACTING.pattern[:-1] + "\t\n]")


def visible(text: str, *, lines: bool = False) -> str:
    """The text with every character that moves the cursor, turns the writing or hides written out: ``\\x1b``,
    ``\\u202e``. With `lines` its line ends become line feeds, and these and tabs stay."""
    if lines:
        return _ACTING.sub(_spelt, text.replace("\r\n", "\n"))
    return _ACTING_OR_LINES.sub(_spelt, text)


def one_line(text: str, length: int) -> str:
    """The text on one line, of at most `length` characters."""
    text = visible(" ".join(text.split()))
    return text if len(text) <= length else text[: length - 1] + "…"


def in_a_shell(path: Path) -> str:
    """A path as a command takes it, whatever its name."""
    name = f"./{path}" if str(path).startswith("-") else str(path)
    if name == visible(name):
        return shlex.quote(name)
    spelt = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(name))
    return f"$'{''.join(spelt)}'"


def _spelt(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
