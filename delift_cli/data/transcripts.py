"""A chat written down as one text, "Human: … Assistant: …", to its turns."""

from __future__ import annotations

import re

_MARKS = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|(?:user|assistant)\|>|\[INST\]"
    r"|### ?(?:Human|Instruction|Assistant|Response):"
)
_LAST_MARKS = (
    *("### Response:", "### Assistant:", "[/INST]", "<|assistant|>", "<|im_start|>assistant", "<start_of_turn>model"),
    *("<|end_header_id|>", "\nAssistant:", "\nASSISTANT:"),
)
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


def has_marks(text: str) -> bool:
    """Is a text a chat as some template prints it?"""
    return _MARKS.search(text) is not None


def ends_in_marks(text: str) -> bool:
    """Does a prompt end as a template does before an answer?"""
    return text.rstrip().endswith(_LAST_MARKS)
