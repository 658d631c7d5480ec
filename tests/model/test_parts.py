"""Names of the files of a split model."""

from __future__ import annotations

from pathlib import Path

import pytest

from delift_cli.errors import InputError
from delift_cli.model.parts import Part, part_of, parts_of
from delift_cli.model.places.on_disk import is_model_name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("m-00001-of-00003.gguf", Part("m", 1, 3)),
        ("big/m-Q8_0-00003-of-00003.gguf", Part("big/m-Q8_0", 3, 3)),
        ("a\nb-00001-of-00002.gguf", Part("a\nb", 1, 2)),
        ("m.gguf", None),
        ("m-1-of-3.gguf", None),
        ("m-00004-of-00003.gguf", None),
        ("m-00000-of-00000.gguf", None),
        ("m-00001-of-00000.gguf", None),
        ("m-٠٠٠٠١-of-٠٠٠٠٢.gguf", None),
        ("m-00001-OF-00002.gguf", None),  # as llama.cpp has it
        ("m-00001-of-00002.GGUF", None),
    ],
)
def test_the_name_of_a_part(name: str, part: Part | None) -> None:
    assert part_of(name) == part
    assert part is None or name in part.all_names()
    assert part is None or len(part.all_names()) == part.total
    assert is_model_name(name) == (part is None or part.number == 1)


def test_many_parts_that_are_not_there_are_counted(tmp_path: Path) -> None:
    first = tmp_path / "m-00001-of-90000.gguf"
    first.touch()
    with pytest.raises(InputError, match=r"m-00007-of-90000\.gguf and 89993 more are missing beside it$"):
        parts_of(first)
