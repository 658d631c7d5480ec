"""`delift doctor`: a whole machine, and each thing that may lack, said in one line with its remedy."""

from __future__ import annotations

import ast
import importlib.metadata
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import delift, environment, model

from delift_cli import doctor
from delift_cli.model.installed import NAMES, TESTED


def check(name: str, checks: list[doctor.Check]) -> doctor.Check:
    return next(each for each in checks if each.name == name)


def test_a_machine_on_which_it_runs() -> None:
    result = delift("doctor", "-m", model(), "--no-speed", "--json")
    checks = {each["name"]: each for each in result.json["checks"]}
    assert checks["llama-cpp-python"]["found"] == importlib.metadata.version("llama-cpp-python")
    assert checks["model"]["ok"]
    assert str(model()) in checks["model"]["found"]
    assert checks["python"]["ok"]
    assert checks["memory"]["found"].endswith("free")
    assert result.code == (0 if result.json["ok"] else 1)


def test_the_speed_of_a_model() -> None:
    assert doctor._speed(str(model())).found.split()[1] == "tokens/s"


def test_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIFT_MODEL", "/nowhere/m.gguf")
    result = delift("doctor", "--no-speed")
    assert result.code == 1
    (line,) = [line for line in result.out.decode().splitlines() if line.startswith("NO")]
    assert " model " in line
    assert "/nowhere/m.gguf" in line


def test_no_compiler_matters_where_something_is_to_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _name: None)
    needed, not_needed = doctor._compiler(needed=True), doctor._compiler(needed=False)
    assert needed.ok is False
    assert "build-essential" in (needed.remedy or "") or sys.platform != "linux"
    assert (not_needed.ok, not_needed.remedy) == (None, None)


@pytest.mark.parametrize("verb", ["doctor", "score"])
def test_where_the_installation_failed(verb: str) -> None:
    """Python alone, without any package, as after `pip install` without a compiler."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "delift_cli", verb],
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=str(Path(doctor.__file__).parents[1]), PATH="/nowhere"),
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, done
    assert "Traceback" not in said
    assert "not installed: jinja2, numba, numpy, orjson, rich, typer" in said
    assert "pip install '.[smollm2]'" in said
    if verb == "doctor":
        assert "NO          compiler  none" in said
        assert said.splitlines()[-1].startswith("--              next  ")
    else:
        assert said.count("\n") == 1


def test_no_model_is_the_next_thing_to_do() -> None:
    checks = [doctor.Check("python", True, "3"), doctor.Check("model", False, "no model given; give -m one")]
    assert doctor._next(checks).found == "no model given; give -m one"


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    checks = doctor.diagnose(speed=False)
    assert check("llama-cpp-python", checks).found == "not installed"
    assert "pip install llama-cpp-python" in check("next", checks).found
    assert all(each.name != "model" for each in checks)


BROKEN = {
    "libcudart.so.12: cannot open shared object file: No such file or directory": "built for a CUDA that is not here",
    "libcuda.so.1: cannot open shared object file: No such file or directory": "the NVIDIA driver is not here",
    "libvulkan.so.1: cannot open shared object file": "GPU library that is not here",
    "undefined symbol: ggml_xyz": "build it again",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_build_that_does_not_load(tmp_path: Path, reason: str) -> None:
    """In a process of its own that finds this llama_cpp before the real one."""
    (tmp_path / "llama_cpp").mkdir()
    said = f"Failed to load shared library 'libllama.so': {reason}"
    (tmp_path / "llama_cpp" / "__init__.py").write_text(f"raise RuntimeError({said!r})")
    path = f"{tmp_path}:{Path(doctor.__file__).parents[1]}"
    for verb, code in ((["doctor", "--no-speed"], 1), (["score", __file__, "-m", str(model())], 1)):
        done = subprocess.run(
            [sys.executable, "-m", "delift_cli", *verb],
            capture_output=True,
            text=True,
            env=environment(PYTHONPATH=path, DELIFT_DEBUG=""),
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        assert reason in done.stdout + done.stderr
    if "doctor" in verb:
        assert BROKEN[reason] in done.stdout
        assert done.stdout.count("cannot be loaded") == 1


@pytest.mark.parametrize(
    ("code", "error", "remedy"),
    [
        (-signal.SIGILL, "SIGILL", "built for another processor"),
        (1, "llama-cpp-python 0.2.0 lacks llama_decode", f">={TESTED[0]}"),
    ],
)
def test_remedies(code: int, error: str, remedy: str) -> None:
    assert remedy in doctor.remedy_for(code, error)
    for reason, said in BROKEN.items():
        assert said in doctor.remedy_for(1, reason)


def test_names_that_delift_uses_are_the_ones_that_are_checked() -> None:
    used = set()
    for file in (Path(doctor.__file__).parent / "model").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "llama_cpp":
                used.add(node.attr)
    assert used - {"__version__"} == set(NAMES)
    assert TESTED == doctor.TESTED
    assert TESTED[0] in (Path(doctor.__file__).parents[1] / "pyproject.toml").read_text()
