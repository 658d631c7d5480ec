"""A chat written down as one text, "Human: … Assistant: …", to its turns."""

from __future__ import annotations

import re

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def opens_transcript(text: str) -> bool:
    """May a text be a transcript?"""
    return text.startswith(("\n\nHuman:", "Human:"))


def transcript(text: str) -> list[dict[str, str]]:
    """The turns of a transcript as in Anthropic's preference data; none where it does not begin with "Human:"."""
    parts = _SPEAKER.split(text)
    if len(parts) < 5 or parts[0].strip() or parts[1] != "Human":
        return []
    return [{"role": who.lower(), "content": said} for who, said in zip(parts[1::2], parts[2::2], strict=True)]
