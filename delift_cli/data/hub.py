"""Data sets of the Hugging Face hub, or of its cache on this machine, as files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import InputError, RunError
from ..hub import ASK_SECONDS, DATASET, Repository, UnansweredError, library
from ..progress import Say, silent

_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[\w.-]+/)?(?P<split>[\w.-]+))?"
)
_PART = re.compile(r"(?P<head>.*)-(?P<number>\d+)-of-(?P<count>\d{1,5})(?:-[0-9a-f]+)?(?P<end>\..*)")
_SPLIT = re.compile(r"[-_.\d]+(?:of[-_.\d]+)?(?:-[0-9a-f]+)?$")


class Dataset(NamedTuple):
    """What `hf:owner/name[@revision][:[config/]split]` names."""

    repo: str
    revision: str | None
    config: str | None
    split: str | None


def parse(source: str) -> Dataset:
    """The parts of a name; InputError where it is none."""
    match = _NAME.fullmatch(source)
    if match is None:
        raise InputError(f"{source}: give a data set of the hub as hf:owner/name, or hf:owner/name:split")
    config = match["config"]
    return Dataset(match["repo"], match["revision"], config and config[:-1], match["split"])


def dataset_files(source: str, say: Say = silent) -> list[Path]:
    """The files of one split of a data set, downloaded where they are not in the cache.

    Without a split, "train" is taken if there is one, or the only one. A split's files are those whose name, or whose
    folder's, begins with it.

    Args:
        say: takes a line where files are left, and where the hub could not be asked and they are those of its cache.

    Raises:
        InputError: huggingface_hub is not installed, there is no such data set or split, it has no file that can be
            read, several configurations have the split, or the hub does not answer and its cache lacks files.
    """
    asked = parse(source)
    repository = Repository(source, DATASET, asked.repo, asked.revision)
    names, unanswered = _names(asked, repository)
    from .folders import is_data, kind_of

    data = [name for name in names if is_data(PurePosixPath(name).name)]
    if not data:
        raise InputError(f"{source}: the data set has no file of records that delift reads; it has {_listed(names)}")
    if asked.config:
        within = [name for name in data if asked.config in PurePosixPath(name).parts[:-1]]
        data = within or [name for name in data if name.startswith(asked.config)]
        if not data:
            raise InputError(f"{source}: there is no configuration {asked.config!r}; the files are {_listed(names)}")
    by_split: dict[str, list[str]] = {}
    for name in data:
        by_split.setdefault(split_of(name), []).append(name)
    split = asked.split or ("train" if "train" in by_split else None)
    if split is None and len(by_split) > 1:
        raise InputError(
            f"{source}: say which split: {', '.join(sorted(by_split))}, as in hf:{asked.repo}:{min(by_split)}"
        )
    chosen = sorted(data if split is None else by_split.get(split, []))
    if not chosen:
        raise InputError(f"{source}: there is no split {split!r}; there are {', '.join(sorted(by_split))}")
    tables = [name for name in chosen if kind_of(name) == ".parquet"]
    if tables and (others := [name for name in chosen if kind_of(name) != ".parquet"]):
        chosen = tables
        say(f"{_listed(others)} {'is' if len(others) == 1 else 'are'} left, for the Parquet files have the split")
    folders = {str(PurePosixPath(name).parent) for name in chosen}
    if len(folders) > 1:
        raise InputError(
            f"{source}: several configurations have the split: {', '.join(sorted(folders))}; say which, as in "
            f"hf:{asked.repo}:{PurePosixPath(min(folders)).name}/{split or 'train'}"
        )
    if unanswered:
        if lacking := _lacking(chosen):
            raise InputError(
                f"{source}: the hub cannot be asked ({unanswered}) and its cache lacks {_listed(lacking)} of the split"
            )
        say(f"the hub cannot be asked ({unanswered}): the files are those that its cache has, {_listed(chosen)}")
    return [repository.download(name) for name in chosen]


def same_repo(one: str, other: str) -> bool:
    """May two names mean one data set? Without an owner a name may be anybody's."""
    one, other = one.casefold(), other.casefold()
    if "/" in one and "/" in other:
        return one == other
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def parse_push(destination: str) -> Dataset:
    """Where a data set is to be put; InputError where it is no such name, or huggingface_hub is not installed."""
    asked = parse(destination)
    library(destination, DATASET)
    if asked.split or asked.revision:
        raise InputError(f"--push {destination}: give hf:owner/name, without a split or revision")
    return asked


def push(files: dict[str, bytes], destination: str, message: str, own: bytes | None = None) -> str:
    """Put files into a data set of the hub, which is made if there is none; its address.

    Args:
        own: what the README.md of a data set has in it whose files may be replaced; None: any may.

    Raises:
        InputError: see `parse_push`, or files would be replaced that are another's.
        RunError: the hub refuses or does not answer.
    """
    asked, hub = parse_push(destination), library(destination, DATASET)
    api = hub.HfApi()
    try:
        if own is not None and (replaced := _not_own(hub, asked, files, own)):
            raise InputError(
                f"--push {destination}: {_listed(replaced)} there would be replaced, not all of it put there by "
                "delift; push elsewhere, or insist with --force"
            )
        api.create_repo(asked.repo, repo_type=DATASET, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
        commit = api.create_commit(asked.repo, operations, commit_message=message, repo_type=DATASET)
    except InputError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{destination}: the hub did not take the subset (is HF_TOKEN set?): {cause}") from None
    return str(commit.commit_url)


def _not_own(hub: Any, asked: Dataset, files: Iterable[str], own: bytes) -> list[str]:
    """Those of the names that a data set has already, unless `own` is in its README.md."""
    try:
        about = hub.HfApi().dataset_info(asked.repo, timeout=ASK_SECONDS)
    except hub.errors.RepositoryNotFoundError:
        return []
    there = {file.rfilename for file in about.siblings or []}
    if "README.md" in there:
        readme = hub.hf_hub_download(asked.repo, "README.md", repo_type=DATASET, revision=about.sha)
        if own in Path(readme).read_bytes():
            return []
    return sorted(there.intersection(files))


def split_of(name: str) -> str:
    """The split that a file belongs to: "train" of data/train-00000-of-00002.parquet or train/0.jsonl."""
    path = PurePosixPath(name)
    stem = _SPLIT.sub("", path.name.split(".")[0])
    folders = [part for part in path.parts[:-1] if part in ("train", "test", "validation", "dev")]
    return folders[-1] if folders and stem not in ("train", "test", "validation", "dev") else stem or "train"


def _lacking(names: list[str]) -> list[str]:
    """The parts that are not among files of which each says that it is one of so many."""
    parts: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        if match := _PART.fullmatch(name):
            parts.setdefault((match["head"], match["count"], match["end"]), set()).add(int(match["number"]))
    lacking = []
    for (head, count, end), there in parts.items():
        first = int(0 not in there and int(count) in there)  # some count from 1
        numbers = set(range(first, first + int(count))) - there
        lacking += [f"{head}-{number:0{len(count)}}-of-{count}{end}" for number in sorted(numbers)]
    return lacking


def _names(asked: Dataset, repository: Repository) -> tuple[list[str], str]:
    """The names of the files of a data set; those that the cache has, and why, where the hub does not answer."""
    try:
        return repository.file_names(), ""
    except UnansweredError as error:
        try:
            hub = library(repository.label, DATASET)
            folder = Path(
                hub.snapshot_download(asked.repo, repo_type=DATASET, revision=asked.revision, local_files_only=True)
            )
        except Exception:
            raise error from None
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()), error.cause


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "no files"
