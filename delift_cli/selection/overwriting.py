"""What an output may not take the place of: what is read to make it, what is inside a cache, another output."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from ..cache.manifest import cache_around
from ..cache.stored import Stored
from ..data import hub
from ..data.folders import kind_of
from ..data.writing import packed
from ..errors import InputError

STDOUT = Path("/dev/stdout")  # as an output: the file that the shell sends it to, if it is one


def refuse_to_destroy(
    outputs: Mapping[str, Path | None], read: Iterable[Path], *, force: bool = False, insist: str = ""
) -> None:
    """InputError where an output would destroy something.

    Args:
        outputs: by the option that names them. read: files, or folders of them, that they are made from.
        force: an output may take the place of what is read. insist: how the user says so.
    """
    given = {name: path for name, path in outputs.items() if path is not None}
    for name, path in given.items():
        if path == Path("-"):
            raise InputError(f"{name} -: give a file, stdout is not for it")
        if (cache := cache_around(path)) is not None:
            where = "is a cache" if Path(os.path.realpath(path)) == cache else f"lies in the cache {cache}"
            raise InputError(f"{name} {path} {where}, whose files are delift's own; give another place")
    for (name, path), (other, beside) in combinations(given.items(), 2):
        if _same(path, beside):
            raise InputError(f"{other} and {name} are one file, {path}: each would take the other's place")
    if force:
        return
    sources = list(read)
    for name, path in given.items():
        if path.is_file() and any(_holds(source, path) for source in sources):
            raise InputError(
                f"{name} {path} is where the records came from, or is read for this: it would be replaced; "
                f"give another file{insist}"
            )


def check_places(outputs: Mapping[str, Path | None]) -> None:
    """InputError where an output, by the option that names it, can be no file, or not one compressed as its name says:
    before the work, not after it."""
    for name, path in outputs.items():
        if path is None or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)):
            continue  # a device or a pipe is written to as it is
        if os.path.isdir(path):
            raise InputError(f"{name} {path} is a folder; name a file in it")
        folder = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(folder):
            raise InputError(f"{name} {path}: there is no folder {folder}; make it, or give another place")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{name} {path}: nothing can be written in {folder}; give another place")
        packed(b"", path)


def refuse_to_push(destination: str, caches: Iterable[Stored], *, force: bool, insist: str) -> None:
    """InputError where a data set of the hub is none, or, unless `force`, one that the records of caches came from."""
    repo = hub.parse_push(destination).repo
    if force:
        return
    names = {name for cache in caches for name in _source_names(cache) if name.startswith("hf:") and ", " not in name}
    for name in sorted(names):
        if hub.same_repo(repo, hub.parse(name).repo):
            raise InputError(f"--push {destination} is where the records came from ({name}); push elsewhere{insist}")


def files_read(caches: Iterable[Stored], *others: str | Path | None) -> list[Path]:
    """What a verb reads: the files that the records of caches came from, and others by their names.

    A cache has the names as scoring was given them, see `source_folders`.
    """
    return [*(file for cache in caches for file in _sources(cache)), *(Path(name) for name in others if name)]


def source_folders(cache: Stored) -> list[Path]:
    """Where the names of a cache's sources are looked for: from this folder and from those above the cache."""
    return [Path(), *Path(os.path.realpath(cache.path)).parents]


def _source_names(cache: Stored) -> set[str]:
    """The sources of a cache's records, as scoring was given them; several also as they are joined."""
    sides = ("examples",) if cache.square else ("examples", "targets")
    named = [str(cache.manifest[side]["source"]) for side in sides]
    return {*named, *(part for several in named for part in several.split(", "))}


def _sources(cache: Stored) -> Iterator[Path]:
    for name in _source_names(cache):
        for folder in source_folders(cache):
            yield folder / name


def _holds(source: Path, path: Path) -> bool:
    """Is the source this file, or a folder with this file of records in it?"""
    with contextlib.suppress(OSError, ValueError):
        if source.is_dir():
            return kind_of(path.name) != "" and os.path.samefile(source, os.path.dirname(os.path.realpath(path)))
        return os.path.samefile(source, path)
    return False


def _same(a: Path, b: Path) -> bool:
    """Do both name one file, there or to be? What is no file, /dev/null say, takes any number of outputs."""
    with contextlib.suppress(OSError):
        return os.path.samefile(a, b) and a.is_file()
    return os.path.realpath(a) == os.path.realpath(b)
