"""Compiled code is kept between runs, is never stale, and is never a reason to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CALL = "from delift_cli.one import outer; print(outer(2.0), sum(outer.stats.cache_hits.values()))"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package with the real `compiled.py` and what it needs: a function in one file calls that of another."""
    folder = tmp_path / "package" / "delift_cli"
    folder.mkdir(parents=True)
    (folder / "machine").mkdir()
    for name in ("compiled.py", "errors.py", "version.py", "machine/__init__.py", "machine/kept.py"):
        shutil.copy(ROOT / "delift_cli" / name, folder / name)
    (folder / "__init__.py").write_text("")
    (folder / "two.py").write_text("from .compiled import jit\n\n@jit()\ndef inner(x):\n    return x + 1\n")
    (folder / "one.py").write_text(
        "from .compiled import jit\nfrom .two import inner\n\n@jit()\ndef outer(x):\n    return inner(x)\n"
    )
    return folder


def run(package: Path, home: Path, code: str = CALL, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "DELIFT_CACHE")}
    environment = {**kept, "PYTHONPATH": str(package.parent), "HOME": str(home), "TMPDIR": str(home), **variables}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def kept(home: Path) -> list[Path]:
    return sorted(home.rglob("*.bin"))


def test_kept_and_compiled_again_when_another_file_changes(package: Path, tmp_path: Path) -> None:
    assert run(package, tmp_path) == "3.0 0"
    assert run(package, tmp_path) == "3.0 1"
    (package / "two.py").write_text((package / "two.py").read_text().replace("x + 1", "x * 50"))
    assert run(package, tmp_path) == "100.0 0"
    assert run(package, tmp_path) == "100.0 1"


def test_told_once_before_it_is_compiled(package: Path, tmp_path: Path) -> None:
    (package / "one.py").write_text(
        (package / "one.py").read_text() + "\n@jit()\ndef other(x):\n    return -inner(x)\n"
    )
    told = (
        "from delift_cli.compiled import telling\n"
        "from delift_cli.one import other, outer\n"
        "with telling(lambda: print('compiling')):\n"
        "    print(outer(2.0), other(2.0))\n"
        "print(outer(2))"  # other types, outside
    )
    assert run(package, tmp_path, code=told).splitlines() == ["compiling", "3.0 -3.0", "3"]
    assert run(package, tmp_path, code=told).splitlines() == ["3.0 -3.0", "3"]


@pytest.mark.parametrize("content", [b"", b"\0" * 500, None])
def test_damaged_code_is_compiled_again(package: Path, tmp_path: Path, content: bytes | None) -> None:
    run(package, tmp_path)
    for file in kept(tmp_path):
        file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    assert run(package, tmp_path) == "3.0 0"
    assert run(package, tmp_path) == "3.0 1"


def test_without_a_place_to_keep_it(package: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("not a directory")
    places = {"HOME": str(nowhere), "TMPDIR": str(nowhere), "NUMBA_CACHE_DIR": str(nowhere)}
    environment = {**os.environ, **places, "PYTHONPATH": str(package.parent)}
    code = f"import tempfile; tempfile.tempdir = {str(nowhere)!r}; {CALL}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3.0 0", "")


@pytest.mark.parametrize("fault", ["writable by others", "a link"])
def test_a_folder_that_is_not_ours_alone_is_not_used(package: Path, tmp_path: Path, fault: str) -> None:
    run(package, tmp_path)
    (folder,) = {file.parent for file in kept(tmp_path)}
    if fault == "a link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.chmod(0o777)
    assert run(package, tmp_path) == "3.0 0"  # kept in the next place, not taken from this one
    assert len({file.parent for file in kept(tmp_path)}) == 2


def test_two_processes_at_once(package: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    command, streams = [sys.executable, "-c", CALL], {"env": environment, "cwd": tmp_path, "stdout": subprocess.PIPE}
    runs = [subprocess.Popen(command, **streams) for _ in range(3)]
    assert {process.communicate()[0].decode().split()[0] for process in runs} == {"3.0"}
    assert not list((tmp_path / "kept").rglob(".*"))
