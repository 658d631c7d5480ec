"""Ctrl-C while llama.cpp loads or converts ends the process as Ctrl-C, whatever llama.cpp is logging meanwhile."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WORK = """
import sys
from pathlib import Path
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Model, Settings, quantize

path = Path(sys.argv[1])
print("ready", flush=True)
while True:  # llama.cpp logs hundreds of lines in each round
    with Model(ModelFile(path), Settings(threads=1, batch=16), cells=32):
        quantize(path, path.with_suffix(".converted"), "f16", threads=1)
"""


def test_ctrl_c_is_never_lost(tiny_model: Callable[..., Path]) -> None:
    path, wait = tiny_model(seed=11), random.Random(0)
    children = []
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", WORK, str(path)], stdout=-1, stderr=-1, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        children.append(child)
    for child in children:
        time.sleep(wait.uniform(0.0, 0.2))
        child.send_signal(signal.SIGINT)
    for child in children:
        said = child.communicate(timeout=30)[1]
        assert "ignored" not in said, said
        assert child.returncode == -signal.SIGINT or said.rstrip().endswith("KeyboardInterrupt"), said
