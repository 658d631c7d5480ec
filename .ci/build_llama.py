"""Install llama-cpp-python as pyproject.toml wants it, compiled in less time than pip takes by itself.

    python .ci/build_llama.py            the newest version in the range
    python .ci/build_llama.py --oldest   the oldest

delift calls llama.cpp's library alone. What llama-cpp-python would compile besides is left out: tools for pictures and
sound, and what llama.cpp's own programs share. pip keeps what it compiles for every later environment, whatever it was
compiled with, so that this build is kept out of pip's cache; a whole build that is there already is used.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = "llama-cpp-python"
FLAGS = ("-DLLAVA_BUILD=OFF", "-DLLAMA_OPENSSL=OFF")  # a version that does not know one of them ignores it
LIBRARY_ALONE = "set(LLAMA_BUILD_COMMON OFF)\n"  # llama-cpp-python sets the option of this name to ON
COMPILERS = ("c++", "g++", "clang++")
STEP = re.compile(r"\[(\d+)/(\d+)\]")
TAIL = 40  # lines of a failed build's log that are shown


def main() -> int:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf'"({PACKAGE}>=([\d.]+)[^"]*)"', project)
    if found is None:
        raise SystemExit(f"pyproject.toml names no {PACKAGE}")
    wanted = f"{PACKAGE}=={found[2]}" if "--oldest" in sys.argv[1:] else found[1]
    pip = [sys.executable, "-m", "pip"]
    if "--oldest" not in sys.argv[1:]:
        kept = subprocess.run([*pip, "cache", "list", "llama_cpp_python"], capture_output=True, text=True, check=False)
        if "llama_cpp_python-" in kept.stdout:
            return subprocess.run([*pip, "install", "--quiet", wanted], check=False).returncode
    compiler = "CXX" in os.environ or any(map(shutil.which, COMPILERS))
    if not compiler and importlib.util.find_spec("llama_cpp") is None:
        raise SystemExit(f"no C++ compiler is here, and {PACKAGE} has to be compiled: apt install build-essential")
    with tempfile.TemporaryDirectory() as folder:
        hook = Path(folder) / "library_alone.cmake"
        hook.write_text(LIBRARY_ALONE)
        own = os.environ.get("CMAKE_ARGS", "")
        flags = " ".join((*FLAGS, f'"-DCMAKE_PROJECT_llama.cpp_INCLUDE={hook}"', own))
        environment = {"CMAKE_BUILD_PARALLEL_LEVEL": str(_processors()), **os.environ, "CMAKE_ARGS": flags}
        return _shown([*pip, "install", "--no-cache-dir", "--verbose", wanted], environment)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shown(command: list[str], environment: dict[str, str]) -> int:
    """Run pip, and show how far the compiler is; the end of what was said where it fails."""
    begun, log, last, whole = time.monotonic(), [], 0, 0
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as running:
        for line in running.stdout or ():
            log.append(line)
            found = STEP.search(line[:40])
            if found and (sys.stderr.isatty() or int(found[1]) * 10 // int(found[2]) > last):
                last, whole = int(found[1]) * 10 // int(found[2]), int(found[2])
                end = "\r" if sys.stderr.isatty() else "\n"
                seconds = time.monotonic() - begun
                print(f"compiling llama.cpp: {found[1]} of {whole} files, {seconds:.0f} s", end=end, file=sys.stderr)
    if whole and sys.stderr.isatty():
        print(file=sys.stderr)
    if running.returncode != 0:
        sys.stderr.writelines(log[-TAIL:])
    return running.returncode


if __name__ == "__main__":
    sys.exit(main())
