"""What is done with a model in a process of its own: conversion, which can be stopped, and a first look at a stranger's
file, which llama.cpp may answer by ending the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import llama_cpp

from ..errors import DeliftError, InputError, RunError
from ..machine.children import end_with_parent, ending, run_child, said_lines
from ..machine.kept import read_book, remember
from .gguf import ModelFile, digest_of
from .header import check_model, read_header
from .llama import VERSION, quantize
from .log import LOG
from .parts import parts_of

BOOK = "loads"  # digests of files that llama.cpp was seen to survive
LOOK_SECONDS = 300.0
_REFUSED = 3  # exit code of a child that says why on stderr


def convert_apart(source: Path, destination: Path, weights: str, *, threads: int, seconds: float | None = None) -> None:
    """`llama.quantize` in a process of its own, that ends with Ctrl-C or after `seconds`.

    Raises:
        RunError: llama.cpp failed, or time was up.
    """
    try:
        code, said = _run("convert", seconds, source, destination, weights, threads)
    except subprocess.TimeoutExpired:
        raise RunError(f"conversion to {weights} was stopped after {seconds:.0f} s") from None
    if code == _REFUSED:
        raise RunError(said)
    if code != 0:
        raise RunError(f"llama.cpp could not convert {source} to {weights}: {_ending(code, said)}")


def open_checked(path: Path) -> ModelFile:
    """The model in a file, maybe a stranger's: by our own rules, then seen to load elsewhere, then opened here.

    Raises:
        InputError: it is no model that can be used, with what is wrong.
    """
    parts_of(path)  # another part than the first has a header that says nothing
    check_model(path, read_header(path))
    digest = digest_of(path)
    check_loads(path, digest[0])
    return ModelFile(path, digest=digest)


def check_loads(path: Path, sha256: str) -> None:
    """See in a process of its own whether llama.cpp survives this file; once for each file and version.

    The header passed our own rules before; this is for what they do not know. Weights are read only where it must be.

    Raises:
        InputError: llama.cpp refuses the file, or ended the process over it, with its last words.
    """
    key = f"{sha256}|{VERSION}"
    if read_book(BOOK).get(key) is True:
        return
    try:
        code, said = _run("look", LOOK_SECONDS, path, "sizes")
        if code != 0:  # some models cannot be sized without being read
            code, said = _run("look", LOOK_SECONDS, path, "whole")
    except subprocess.TimeoutExpired:
        raise InputError(f"model {path}: llama.cpp does not come back from loading it; it is damaged") from None
    if code == _REFUSED:
        raise InputError(said)
    if code != 0:
        raise InputError(f"model {path} cannot be used: llama.cpp ends over it ({_ending(code, said)})")
    remember(BOOK, key, True)


def _run(verb: str, seconds: float | None, *arguments: object) -> tuple[int, str]:
    """Exit code and last line on stderr of one of `_VERBS` in a child."""
    done = run_child("-m", __name__, verb, *arguments, seconds=seconds)
    return done.returncode, (said_lines(done.stderr) or [""])[-1]


def _ending(code: int, said: str) -> str:
    return f"{ending(code)}: {said}" if said else ending(code)


def _look(path: str, how: str) -> None:
    file = ModelFile(Path(path))
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    if how == "sizes" and hasattr(parameters, "no_alloc"):  # llama.cpp sizes everything and reads nothing
        parameters.no_alloc, parameters.load_mode = True, 0
    model = llama_cpp.llama_model_load_from_file(os.fsencode(file.path), parameters)
    if not model:
        raise InputError(f"model {path} cannot be loaded: {LOG.cause()}")
    context = llama_cpp.llama_context_default_params()
    context.n_ctx = context.n_batch = context.n_ubatch = 256
    if not llama_cpp.llama_init_from_model(model, context):
        raise InputError(f"model {path} cannot be run: {LOG.cause()}")


def _convert(source: str, destination: str, weights: str, threads: str) -> None:
    quantize(Path(source), Path(destination), weights, threads=int(threads))


_VERBS: dict[str, Callable[..., None]] = {"look": _look, "convert": _convert}


def _main() -> None:
    end_with_parent()
    try:
        verb, *arguments = sys.argv[1:]
        _VERBS[verb](*arguments)
    except DeliftError as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        os._exit(_REFUSED)
    os._exit(0)


if __name__ == "__main__":
    _main()
