"""Caches from strangers: no link in one is followed, nothing in one is executed, and none ends in a traceback."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tiny_runs import DESCRIPTION, delift, make_cache, open_cache, pairs, records, tokens, tree

from delift_cli.cache import manifest as manifests
from delift_cli.cache import sidecar, sparse
from delift_cli.cache.dense import Cache
from delift_cli.cache.files import may_append
from delift_cli.cache.lock import network_file_system
from delift_cli.cache.npy import header, open_array
from delift_cli.cache.repair import repairable, repaired
from delift_cli.cache.sparse import SparseCache, open_sparse_for_scoring
from delift_cli.cache.stored_round import Asked, plan_digest
from delift_cli.cache.verification import examine
from delift_cli.errors import DeliftError, InputError, RunError
from delift_cli.selection import first_gains
from delift_cli.selection.first_gains import gains_file

PACKAGE = Path(manifests.__file__).parents[1]
POOL = pairs(*range(6))


def make_sparse(path: Path) -> Path:
    """Six records, every other pair scored in two rounds of made-up measurements."""
    with open_sparse(path) as cache:
        nothing = np.full(6, 0.5, np.float32)
        cache.write_base(0, nothing, -nothing)
        for number in (0, 1):
            indptr = np.arange(0, 13, 2)
            targets = np.tile([number, number + 2], 6).astype(np.int32)
            part = cache.begin_round(Asked("50%", 24, 2 - number, 0, 6, 6), indptr, targets, np.zeros(12, np.uint8))
            for example in range(6):
                some = np.array([0.25, 0.5], np.float32)
                cache.write_pairs(part, example, some, -some)
    return path


def open_sparse(path: Path, data: bytes = POOL) -> sparse.SparseWriter:
    pool = records(data)
    return open_sparse_for_scoring(
        path, DESCRIPTION, pool, None, example_tokens=tokens(pool), response_tokens=[t - 8 for t in tokens(pool)]
    )


MAKE: dict[str, Callable[[Path], Path]] = {"dense": lambda path: make_cache(path, POOL), "sparse": make_sparse}
OPEN: dict[str, Callable[[Path], Any]] = {"dense": lambda path: open_cache(path, POOL), "sparse": open_sparse}


@pytest.fixture(params=MAKE)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def names(path: Path) -> Iterator[Path]:
    """Files and folders of a cache, and what may be written beside them, by names relative to it."""
    yield from (there.relative_to(path) for there in sorted(path.rglob("*")) if there.parent.name != "round-2")
    for name in (
        "manifest.json.new",
        ".manifest.json.draft",
        "generation-2",
        ".round-3",
        "gains",
        "baselines",
        "lock",
        "llama.cpp.log",
    ):
        yield Path(name)
    yield Path("distance.npy.grown")


def read_and_write(path: Path, kind: str) -> None:
    """All that is ever done with a cache; errors in one line are as good as success."""
    with in_one_line():
        opened = sparse.open_cache(path)
        opened.check_rows()
        assert len(opened.examples().records) == 6
        file = sidecar.kept_file(opened, "examples", "what is kept")
        sidecar.read_kept(file, (6,), np.float32)
        sidecar.keep(file, opened.base_distance)
    with in_one_line():
        examine(path)
    with in_one_line():
        repairable(path, examine(path))
        with repaired(path):
            pass
    for data in (POOL, pairs(0, 1, 7, 2, 3, 4)):
        with in_one_line(), (open_cache if kind == "dense" else open_sparse)(path, data) as cache:
            if may_append(path / "llama.cpp.log"):
                (path / "llama.cpp.log").write_text("log")
            cache.write_base(0, *(np.full(6, 0.5, np.float32) for _ in range(2)))


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """It works, or is refused in one line."""
    try:
        yield
    except DeliftError as error:
        if "\n" in str(error):
            raise


# ---- links


def test_a_reader_writes_nothing_and_follows_no_draft(tmp_path: Path) -> None:
    """A stranger's cache asked, of old, for its manifest to be written through a link of his."""
    path, precious = make_cache(tmp_path / "c", POOL), tmp_path / ".bashrc"
    precious.write_text("precious")
    there = orjson.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_bytes(orjson.dumps({**there, "version": 1, "pending": ["nothing"]}))
    (path / "manifest.json.new").symlink_to(precious)
    before = tree(path)
    delift("inspect", path)
    assert precious.read_text() == "precious"
    assert tree(path) == before
    with pytest.raises(DeliftError), open_cache(path, pairs(9)):
        pass
    assert precious.read_text() == "precious"


def test_no_link_in_a_cache_is_followed(tmp_path: Path, kind: str) -> None:
    """Each name in turn leads out of the cache, to a file and to a folder: what is there stays as it is."""
    clean, outside = MAKE[kind](tmp_path / "clean"), tmp_path / "outside"
    tried = 0
    for name in {str(name): name for name in names(clean)}.values():
        for target in ("file", "folder", "nowhere"):
            shutil.rmtree(outside, ignore_errors=True)
            path = shutil.copytree(clean, tmp_path / "c")
            place = path / name
            if place.is_dir():
                shutil.copytree(place, outside / "folder")
                shutil.rmtree(place)
            elif place.exists():
                outside.mkdir()
                shutil.copy(place, outside / "file")
                place.unlink()
            (outside / "folder").mkdir(parents=True, exist_ok=True)
            (outside / "folder" / "precious").write_text("precious")
            (outside / "file").touch()
            place.symlink_to(outside / target)
            before = tree(outside)
            read_and_write(path, kind)
            assert tree(outside) == before, name
            tried += 1
            shutil.rmtree(path)
    assert tried > 50


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    path, precious = make_cache(tmp_path / "c", POOL), tmp_path / "precious"
    precious.write_text("precious")
    (path / "lock").unlink()
    (path / "lock").symlink_to(precious)
    with pytest.raises(RunError, match=r"lock: it is a link"):
        open_cache(path, POOL)
    assert precious.read_text() == "precious"


def test_a_file_with_a_second_name_is_not_written_to(tmp_path: Path) -> None:
    path, copy = make_cache(tmp_path / "c", POOL), tmp_path / "copy.npy"
    os.link(path / "distance.npy", copy)
    before = copy.read_bytes()
    with pytest.raises(InputError, match=r"distance\.npy cannot be written: it has a second name"):
        open_cache(path, POOL)
    Cache(path).check_rows()  # reading it is no harm
    with open_cache(path, pairs(*range(7))) as cache:  # a larger one has files of its own
        cache.write_row(0, *(np.full(1, 0.5, np.float32) for _ in range(2)))
    assert copy.read_bytes() == before


def test_pipes_are_not_waited_for(tmp_path: Path, kind: str) -> None:
    clean = MAKE[kind](tmp_path / "clean")
    for name in ("manifest.json", "examples.jsonl", "base_distance.npy", "lock"):
        path = shutil.copytree(clean, tmp_path / "c")
        (path / name).unlink()
        os.mkfifo(path / name)
        assert delift("inspect", path).code == (0 if name == "lock" else 2)
        with pytest.raises(DeliftError, match="not a plain file"):
            OPEN[kind](path)
        shutil.rmtree(path)


def test_the_cache_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "train.delift"
    link.symlink_to(tmp_path / "disk" / "train")
    make_cache(link, POOL)  # there is nothing yet where it leads
    assert link.is_symlink()
    make_cache(link, pairs(*range(9)))
    assert Cache(tmp_path / "disk" / "train").shape == (9, 9)
    assert sorted(os.listdir(tmp_path)) == ["disk", "train.delift"]


# ---- arrays


HEADERS = {
    "a type that there is not": b"{'descr': '<f1', 'fortran_order': False, 'shape': (6, 6), }",
    "a number without an order of bytes": b"{'descr': '|f8', 'fortran_order': False, 'shape': (6, 6), }",
    "a tuple without end": b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 6",
    "no shape": b"{'descr': '<f4', 'fortran_order': False}",
    "a huge shape": b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 6), }",
    "a negative shape": b"{'descr': '|V0', 'fortran_order': False, 'shape': (-1,), }",
    "no bytes": b"{'descr': '|V0', 'fortran_order': False, 'shape': (6, 6), }",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (6, 6), }",
    "fortran": b"{'descr': '<f4', 'fortran_order': True, 'shape': (6, 6), }",
    "a name": b"{'descr': exit, 'fortran_order': False, 'shape': (6, 6), }",
    "many brackets": b"(" * 60000,
    "a long number": b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 6000 + b",), }",
    "another byte order": b"{'descr': '>f4', 'fortran_order': False, 'shape': (6, 6), }",
    "more behind it": b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 6), }    x",
    "NUL": b"\0" * 118,
    "a comment": b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 6), }#",
    "a type that is a list": b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6, 6), }",
    "text": "{'descr': '<f4', 'é': 1}".encode("latin-1"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_compared_and_never_evaluated(tmp_path: Path, name: str) -> None:
    file = tmp_path / "distance.npy"
    for version in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"PK\x03\x04aaaa"):
        text = HEADERS[name] + b" " * (117 - len(HEADERS[name])) + b"\n"
        file.write_bytes(version + len(text).to_bytes(2, "little") + text + bytes(144))
        with pytest.raises(InputError, match=r"damaged: distance\.npy (holds|does not begin)") as refused:
            open_array(file, (6, 6), np.float32)
        assert len(str(refused.value)) < len(str(tmp_path)) + 200


def test_every_cut_of_an_array_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    whole = header((3,), np.dtype(np.float32)) + bytes(12)
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match="damaged"):
            open_array(file, (3,), np.float32)
    file.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="141 bytes, not 140"):
        open_array(file, (3,), np.float32)
    file.write_bytes(whole)
    assert open_array(file, (3,), np.float32).tolist() == [0, 0, 0]


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["BOMB"],)


def test_no_pickle_is_ever_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of a cache in turn is a pickle, bare and in an .npy file, that makes a folder when it is read."""
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    npy = io.BytesIO()
    np.save(npy, np.array([Bomb()], object), allow_pickle=True)
    clean = MAKE[kind](tmp_path / "clean")
    read_and_write(clean, kind)  # which keeps something
    for name in [there.relative_to(clean) for there in sorted(clean.rglob("*")) if there.is_file()]:
        for bomb in (pickle.dumps(Bomb()), npy.getvalue()):
            path = shutil.copytree(clean, tmp_path / "c")
            (path / name).write_bytes(bomb)
            read_and_write(path, kind)
            shutil.rmtree(path)
    assert not (tmp_path / "exploded").exists()


# Numba keeps what it compiled as a pickle in the user's own folder; dask sends pickles between its own processes
OWN_PICKLES = ("compiled.py", "scoring/cluster/crew.py", "scoring/cluster/worker.py")


def test_no_pickle_in_the_source() -> None:
    """Nothing that reads a file of data, of a cache or of a model unpickles."""
    modules = r"import (pickle|joblib|marshal|shelve|dill)\b|\b(pickle|joblib|marshal|dill)\."
    forbidden = re.compile(rf"{modules}|allow_pickle\s*=\s*True|np\.load\((?!.*allow_pickle=False)")
    for file in sorted(PACKAGE.rglob("*.py")):
        if str(file.relative_to(PACKAGE)) in OWN_PICKLES:
            continue
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            assert not forbidden.search(line), f"{file}:{number}"


# ---- manifests and plans: with right checksums, for whoever writes one can make these too

WRONG: tuple[Any, ...] = (None, True, -1, 0, 2**40, 1.5, "", "../../x", "x" * 300, [], [1], {}, {"a": 1}, "\x1b[31m")


def every_place(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for name in value:
            yield (*way, name)
            yield from every_place(value[name], (*way, name))


def changed(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    if not way:
        return new
    inner = {name: changed(there, way[1:], new) if name == way[0] else there for name, there in value.items()}
    return {name: there for name, there in inner.items() if there is not ...}


def test_fields_of_a_manifest_that_are_wrong_or_lacking(tmp_path: Path, kind: str) -> None:
    path = MAKE[kind](tmp_path / "c")
    clean = (path / "manifest.json").read_bytes()
    there = orjson.loads(clean)
    there["fields"] |= {"turns": "last", "roles": {}}
    there["run"]["states"] = None
    for way in every_place({name: value for name, value in there.items() if name != "checksum"}):
        for wrong in (..., *WRONG):
            manifests.write_manifest(path, changed(there, way, wrong))
            with in_one_line():
                opened = sparse.open_cache(path)
                opened.check_rows()
                opened.examples()
                OPEN[kind](path).__exit__(None)
            (path / "manifest.json").write_bytes(clean)
    OPEN[kind](path).__exit__(None)


def test_fields_of_a_plan_that_are_wrong_or_lacking(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "c")
    file = path / "round-1" / "plan.json"
    clean = orjson.loads(file.read_bytes())
    del clean["checksum"]
    refused = 0
    for way in every_place(clean):
        for wrong in (..., *WRONG, [2**63], ["a"], 2**70 * 1.0):
            plan = changed(clean, way, wrong)
            file.write_bytes(orjson.dumps(plan | {"checksum": plan_digest(plan)}))
            refused += 1
            with in_one_line():
                cache = SparseCache(path)
                cache.check_rows()
                _ = cache.known
                refused -= 1
    assert refused > 100
    for bad in (b"", b"[]", b"null", b"{", b"\xff", b"[" * 5000, b'{"goal": ' + b"9" * 5000 + b"}"):
        file.write_bytes(bad)
        with pytest.raises(InputError, match=r"round-1 is damaged: plan\.json"):
            SparseCache(path)


# ---- while another process writes


def test_what_is_kept_is_named_by_the_state_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are scored between reading a cache and keeping what came of it: that is of the earlier state."""
    path = make_sparse(tmp_path / "c")
    rows = np.load(path / "round-2" / "rows.npy", mmap_mode="r+")
    rows[3] = 0  # not scored yet
    rows.flush()
    with open_sparse(path) as writer:
        reader = SparseCache(path)
        name, pairs_read = gains_file(reader, [reader], objective="fl"), reader.pairs()
        some = np.array([0.75, 0.5], np.float32)
        writer.write_pairs(writer.rounds[1], 3, some, -some)
        assert gains_file(reader, [reader], objective="fl") == name
        for before, now in zip(pairs_read, reader.pairs(), strict=True):
            np.testing.assert_array_equal(before, now)
        assert len(pairs_read.example) == 22
        later = SparseCache(path)
        assert gains_file(later, [later], objective="fl") != name
        monkeypatch.setattr(first_gains, "sources_digest", lambda: "other code")
        assert gains_file(reader, [reader], objective="fl") != name
        assert len(later.pairs().example) == 24


def test_room_for_all_rounds_is_taken_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_sparse(tmp_path / "c")
    with open_sparse(path) as writer:
        writer.reserve(1000)
        assert (path / ".room.draft").stat().st_size == 13_000
        nothing = np.zeros(2, np.int32), np.zeros(2, np.uint8)
        writer.begin_round(Asked("50%", 24, 1, 0, 6, 6), np.array([0, 2, 2, 2, 2, 2, 2]), *nothing)
        assert (path / ".room.draft").stat().st_size == 998 * 13
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(RunError, match=r"no space left for .*: 65\.0 MB are needed and [\d,.]+ MB are free"):
            writer.reserve(5_000_000)
    assert not (path / ".room.draft").exists()


def test_network_file_systems_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert network_file_system(tmp_path) is None
    mounts = f"/dev/vda / ext4 rw 0 0\nhost:/data {tmp_path} nfs4 rw 0 0\nnone {tmp_path}/local tmpfs rw 0 0\n"
    mounts += "host:/data /my\\040share nfs4 rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    assert network_file_system(tmp_path / "c") == "nfs4"
    assert network_file_system(tmp_path / "local" / "c") is None
    assert network_file_system(Path("/elsewhere")) is None
    assert network_file_system(Path("/my share/c")) == "nfs4"
