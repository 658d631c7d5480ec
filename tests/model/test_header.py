"""GGUF headers by our own rules: what llama.cpp would end the process over never reaches it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_models as g
import numpy as np
import pytest

from delift_cli.errors import InputError
from delift_cli.model import apart
from delift_cli.model.apart import check_loads, open_checked
from delift_cli.model.gguf import ModelFile
from delift_cli.model.header import check_model, read_header

FATAL: dict[str, tuple[str, Any]] = {
    "no layers": ("llama.block_count", 0),
    "2^31 layers": ("llama.block_count", 2**31),
    "layers in words": ("llama.block_count", "two"),
    "no epsilon": ("llama.attention.layer_norm_rms_epsilon", float("nan")),
    "2^31 experts": ("llama.expert_count", 2**31),
    "experts without use": ("llama.expert_count", 4),
    "more experts than there are": ("llama.expert_used_count", 4),
    "experts for each layer": ("llama.expert_count", [2, 2]),
    "an unknown scaling": ("llama.rope.scaling.type", "sideways"),
    "an endless rope": ("llama.rope.freq_base", float("inf")),
    "context in words": ("llama.context_length", "2048"),
    "half a token of context": ("llama.context_length", 2048.5),
    "a truth for context": ("llama.context_length", True),
    "no context": ("llama.context_length", 0),
    "no heads' width": ("llama.attention.key_length", 0),
    "no vocabulary": ("tokenizer.ggml.model", "no_vocab"),
    "a number for a template": ("tokenizer.chat_template", 3),
    "a text for a token": ("tokenizer.ggml.eos_token_id", "</s>"),
    "no name for the architecture": ("general.architecture", ""),
    "an alignment of nothing": ("general.alignment", 0),
}


@pytest.mark.parametrize("kind", FATAL)
def test_what_no_model_says_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    key, value = FATAL[kind]
    path = g.write_model(tmp_path / "bad.gguf", metadata={key: value})
    with pytest.raises(InputError, match=r"bad\.gguf") as caught:
        ModelFile(path)
    assert "\n" not in str(caught.value)
    if "vocabulary" not in kind and "name" not in kind and "experts" not in kind:
        assert key in str(caught.value)


def test_the_header_agrees_with_llama_cpp(tiny_model: Callable[..., Path]) -> None:
    file = ModelFile(tiny_model("spm", n_ctx_train=1234, dtype="f16"))
    assert file.header.of_architecture("context_length") == file.context == 1234
    assert file.header.metadata["tokenizer.ggml.tokens"].length == file.vocabulary.size
    assert file.header.metadata["tokenizer.chat_template"] == file.template
    assert file.header.tensors["token_embd.weight"] == (64, file.vocabulary.size)


def test_cut_and_changed_headers_end_in_one_line(tmp_path: Path) -> None:
    """Our reader alone, without llama.cpp: no exception but its own, whatever the bytes."""
    whole = g.write_model(tmp_path / "whole.gguf").read_bytes()
    path, rng, refused = tmp_path / "changed.gguf", np.random.default_rng(0), 0
    cases = [whole[:size] for size in (0, 1, 4, 5, 8, 12, 23, 24, 25, 100, 5000)]
    for _ in range(150):
        data = bytearray(whole[:60000])
        for at in rng.integers(4, 400 if rng.random() < 0.7 else len(data), 3):
            data[at] = rng.choice([0, 1, 8, 9, 127, 128, 255])
        cases.append(bytes(data))
    for data in cases:
        path.write_bytes(data)
        said = _refusal(path)
        if said is not None:
            assert str(path) in said
            assert "\n" not in said
            refused += 1
    assert refused > 60


def _refusal(path: Path) -> str | None:
    try:
        check_model(path, read_header(path))
    except InputError as error:
        return str(error)
    return None


class TestApart:
    """llama.cpp is asked in a process of its own before a stranger's file is loaded in this one."""

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DELIFT_CACHE", str(tmp_path / "kept"))

    def test_a_good_file_is_looked_at_once(
        self, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tiny_model()
        check_loads(path, "a" * 64)
        monkeypatch.setattr(apart, "_run", lambda *_: pytest.fail("looked at twice"))
        check_loads(path, "a" * 64)

    def test_what_ends_the_process_is_refused(
        self, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ending = tiny_model()
        monkeypatch.setattr(
            apart.subprocess,
            "run",
            lambda command, **options: REAL_RUN(
                [sys.executable, "-c", "import os; os.write(2, b'GGML_ASSERT(x) failed'); os.abort()"], **options
            ),
        )
        with pytest.raises(InputError, match=r"llama\.cpp ends over it \(SIGABRT: GGML_ASSERT\(x\) failed\)"):
            check_loads(ending, "b" * 64)

    def test_what_llama_cpp_refuses_is_refused_in_its_words(self, tmp_path: Path) -> None:
        path = g.write_model(tmp_path / "short.gguf")
        os.truncate(path, path.stat().st_size - 1000)
        with pytest.raises(InputError, match=r"short\.gguf.*not within the file bounds"):
            check_loads(path, "c" * 64)

    def test_another_part_than_the_first_is_said_to_be_one(self, tmp_path: Path) -> None:
        first = g.write_model(tmp_path / "m.gguf", split=2)
        with pytest.raises(InputError, match=f"part 2 of 2; give its first part, {first.name}"):
            open_checked(first.with_name("m-00002-of-00002.gguf"))


REAL_RUN = subprocess.run
