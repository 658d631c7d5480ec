"""A cache is made, and made anew when its records change: in one step that a reader either sees or does not.

All files of the changed cache are written into a folder of their own, `generation-N`, while the old ones stay as they
are. Then the manifest, replaced in one step, names that folder: from there on it is what the cache is. Only then do
the files take the places of the old ones, each as a second name, and a last manifest says so. A reader never needs to
know of any of this, and who is killed at any point leaves a cache that the next writer tidies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.record import Record, RecordSet
from ..errors import DamagedError, InputError, RunError
from .files import Content, disk, is_folder, link, sync_directory, write_files
from .lock import take_lock
from .manifest import HERE, VERSION, ids, lines, read_manifest, record_files, write_manifest
from .sidecar import BASELINES, GAINS, carry_over
from .stored import Stored, compare, other_cache

Contents = Mapping[str, Content | Path]  # of new files, by name; a path: that file gets this second name
UNLOCKED_SECONDS = 60.0  # after which a draft without a lock is no longer being begun
_GENERATION = re.compile(r"generation-[1-9]\d*")
_ARRAYS = "distance|logprob|base_distance|base_logprob|base_crc|example_tokens|response_tokens|rows|known"
_FILE = rf"({_ARRAYS})\.npy|(examples|targets)\.(jsonl|ids\.json)"
_OWN = re.compile(rf"{_FILE}|round-[1-9]\d*")  # what a generation consists of: nothing else is ever removed
_DRAFT = re.compile(rf"({_FILE})\.grown|manifest\.json\.new|\.(.*\.(draft|settling)|round-[1-9]\d*)")


class Reuse(NamedTuple):
    """Which record of the cache each record given now is: int64 [example] and [target], -1 where it is new."""

    examples: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]

    def extends(self, shape: tuple[int, int]) -> bool:
        """Does every record of the cache keep its place?"""
        return all(
            np.array_equal(old[:count], np.arange(count)) and (old[count:] == -1).all()
            for old, count in zip(self, shape, strict=True)
        )


@contextlib.contextmanager
def claim(path: Path, manifest: dict[str, Any], contents: Callable[[], Contents]) -> Iterator[io.BufferedRandom]:
    """The lock of the cache at `path`, which is made of `contents` if there is none; an error gives the lock back."""
    lock = None
    place = Path(os.path.realpath(path))  # the cache's own path may be a link, also one to nowhere yet
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        lock = _create(path, place, manifest, contents())
    elif not place.is_dir():
        raise InputError(f"{path} is a file; give a directory for the cache with -o")
    read_manifest(path)  # a directory that is not a cache does not even get a lock file
    lock = lock or take_lock(path)
    try:
        with disk(path):
            _drop_drafts(place)
            tidy(path, read_manifest(path))
        yield lock
    except BaseException:
        lock.close()
        raise


def _create(path: Path, place: Path, manifest: dict[str, Any], contents: Contents) -> io.BufferedRandom | None:
    """Make the whole directory under another name first, so that there is never half a cache at `path`.

    The lock is taken in it before it gets its name. None where another process made one meanwhile.
    """
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    lock = None
    try:
        with disk(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            _drop_drafts(place)
            os.mkdir(draft)
            lock = take_lock(draft)
            write_files(draft, contents, path)
            write_manifest(draft, manifest)
            try:
                os.rename(draft, place)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                lock.close()
                shutil.rmtree(draft)
                return None
            sync_directory(place.parent)
            return lock
    except BaseException as error:
        if lock is not None:
            lock.close()
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, RunError) and str(draft) in str(error):
            raise RunError(str(error).replace(f" ({draft})", "").replace(str(draft), str(path))) from None
        raise


def _drop_drafts(place: Path) -> None:
    """Remove what processes left that died while they made this cache; who lives holds the lock of its draft."""
    for draft in place.parent.glob(f".{_literal(place.name)}.*"):
        if draft.suffix[1:].isdecimal() and is_folder(draft):
            with contextlib.suppress(OSError, RunError):
                if (draft / "lock").exists():
                    take_lock(draft).close()
                    shutil.rmtree(draft)
                elif _dead(int(draft.suffix[1:])) or time.time() - draft.stat().st_mtime > UNLOCKED_SECONDS:
                    shutil.rmtree(draft)


def _dead(pid: int) -> bool:
    """Is there no such process on this machine?"""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _literal(name: str) -> str:
    """A file name as a pattern that matches it alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def record_contents(examples: RecordSet, targets: RecordSet | None) -> dict[str, Content]:
    """The files that hold the records."""
    return {name: Content.of(data) for name, data in record_files(examples, targets).items()}


# ---- records that changed


def reuse(
    present: Stored,
    manifest: dict[str, Any],
    examples: RecordSet,
    targets: RecordSet | None,
    arrays: Mapping[str, npt.NDArray[Any]],
) -> Reuse | None:
    """What of the cache applies to the records given now; None where it is as it would be made of them.

    Records are recognised by what is shown and scored (turns and tools) and by their token counts, wherever they
    stand. Copies are told apart by their order.

    Args:
        manifest, arrays: of the cache as it would be made now, with example_tokens and response_tokens.

    Raises:
        InputError: settings differ, or less than half of the cache's records are there.
    """
    compare(present, manifest)
    sets = {"examples": examples, **({} if targets is None else {"targets": targets})}
    now = {role: lines(records) for role, records in sets.items()}
    same = {role: present.record_bytes(role) == now[role] for role in sets}
    ids_same = all(present.id_bytes(role) == ids(records) for role, records in sets.items())
    there: dict[str, npt.NDArray[np.int64]] = {}
    for role, records in sets.items():
        if same[role]:
            there[role] = np.arange(len(records.records))
        elif now[role].startswith(present.record_bytes(role)):  # added to at the end
            old = present.manifest[role]["count"]
            there[role] = np.where(np.arange(len(records.records)) < old, np.arange(len(records.records)), -1)
        else:
            old_records = (present.examples() if role == "examples" else present.targets()).records
            there[role] = recognise(old_records, records.records)
    found = Reuse(
        _with_counts(there["examples"], present.example_tokens, arrays["example_tokens"]),
        _with_counts(there.get("targets", there["examples"]), present.response_tokens, arrays["response_tokens"]),
    )
    if targets is None:  # what is another text as an example is one in front of its own response too
        same_text = (found.examples >= 0) & (found.targets >= 0)
        found = Reuse(*(np.where(same_text, old, -1) for old in found))
    shape = present.shape
    if present.version == VERSION and ids_same and all(same.values()) and found.extends(shape):
        return None
    for role, old, count in zip(("examples", "targets"), found, shape, strict=True):
        if 2 * int((old >= 0).sum()) < count:
            kept = f"{int((old >= 0).sum()):,} of its {count:,} {role} are"
            raise other_cache(present.path, f"{role} (only {kept} among the {len(old):,} given now)")
    return found


def recognise(there: Sequence[Record], now: Sequence[Record]) -> npt.NDArray[np.int64]:
    """int64 [now]: which of the records `there` each one is, by its turns and tools; -1 for none.

    Of copies the first is the first, and so on.
    """
    places: dict[bytes, list[int]] = {}
    for place in reversed(range(len(there))):
        places.setdefault(_content(there[place]), []).append(place)
    found = np.full(len(now), -1, np.int64)
    for place, record in enumerate(now):
        if same := places.get(_content(record)):
            found[place] = same.pop()
    return found


def _content(record: Record) -> bytes:
    """A digest of everything that is shown or scored of a record."""
    return hashlib.blake2b(repr((record.turns, record.tools)).encode(errors="surrogatepass"), digest_size=16).digest()


def _with_counts(
    there: npt.NDArray[np.int64], old: npt.NDArray[np.int32], new: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """The same without records that have another number of tokens now: what was measured was another text."""
    return np.where((there >= 0) & (old[there] == new), there, -1)


def said(path: Path, present: Stored, found: Reuse, kept: int, scored: int) -> str | None:
    """What still applies, in one line; None where records were only added at the end, or nothing was edited."""
    if found.extends(present.shape):
        return None
    parts = []
    for role, old, count in zip(("examples", "targets"), found, present.shape, strict=True):
        recognised = int((old >= 0).sum())
        what = "records" if present.square else role
        parts.append(f"{recognised:,} of {count:,} {what} recognised, {len(old) - recognised:,} new")
    told = "; ".join(dict.fromkeys(parts))
    return f"{path}: {told}; {kept:,} of the {scored:,} pairs that were scored are used again"


def scattered(values: npt.NDArray[Any], old: npt.NDArray[np.int64], empty: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`empty` with the values of recognised records in their new places."""
    known = old >= 0
    empty[known] = values[old[known]]
    return empty


def renew(present: Stored, manifest: dict[str, Any], contents: Contents, found: Reuse) -> None:
    """Put other files in the place of the cache's, see the head of this file; what is kept of records goes along."""
    path, here = present.path, present.manifest["files"]
    number = 1 if here == HERE else int(here.removeprefix("generation-"))
    folder = path / f"generation-{number + 1}"
    of_before = carry_over(present, manifest, found._asdict())
    with disk(path):
        try:
            os.mkdir(folder)
            write_files(folder, contents, path)
            sync_directory(path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        run = present.manifest["run"] | manifest["run"]  # which machines took part is still so
        manifest = {**manifest, "files": folder.name, "run": run}
        write_manifest(path, manifest)
        _settle(path, manifest)
        for kept in of_before:
            _remove(kept)


def tidy(path: Path, manifest: dict[str, Any]) -> None:
    """Do what a writer that was killed left to do. Only who holds the lock may."""
    if manifest["files"] != HERE:
        _settle(path, manifest)
        manifest = read_manifest(path)
    pending = {f"{name}.grown" for name in manifest.get("pending", ())}
    for folder in {path, path / manifest["files"]}:
        for debris in folder.iterdir():
            old = _GENERATION.fullmatch(debris.name) and debris.name != manifest["files"]
            if old or (_DRAFT.fullmatch(debris.name) and debris.name not in pending):
                _remove(debris)
    for kept in (path / GAINS, path / BASELINES):
        if is_folder(kept):
            for unfinished in kept.glob(".*.draft"):
                _remove(unfinished)


def _remove(path: Path) -> None:
    """A file, a link (not what it leads to) or a folder."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _settle(path: Path, manifest: dict[str, Any]) -> None:
    """Give the files of a generation the usual places too, and say so; then there is one name for each again.

    Where the file system knows no second names they stay where they are.
    """
    folder = path / manifest["files"]
    if not is_folder(folder):
        raise DamagedError(path, folder.name, "is missing")
    inner = [Path(name) for name in sorted(os.listdir(folder)) if _OWN.fullmatch(name)]
    files = [name for name in inner if not is_folder(folder / name)]
    rounds = [name for name in inner if is_folder(folder / name)]
    linked = True
    for name in files:
        draft = path / f".{name}.settling"
        _remove(draft)
        linked = linked and link(folder / name, draft)
        if linked:
            os.replace(draft, path / name)
            _remove(draft)  # replacing a name by another one of the same file does nothing
    for old in list(path.iterdir()):
        if _OWN.fullmatch(old.name) and not (linked and Path(old.name) in files):
            _remove(old)
    for name in rounds if linked else []:
        os.mkdir(path / name)
        for file in sorted(os.listdir(folder / name)):
            linked = linked and link(folder / name / file, path / name / file)
        sync_directory(path / name)
    sync_directory(path)
    if not linked:
        return
    write_manifest(path, {**manifest, "files": HERE})
    shutil.rmtree(folder)
    sync_directory(path)
