"""Data sets of the Hugging Face hub, or of its cache on this machine, as files.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` have the meaning that huggingface_hub gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import InputError, RunError
from ..progress import Say, silent

ASK_SECONDS = 20.0  # for the names of a data set's files
LISTED_AT_ONCE = 50_000  # names; of more the hub leaves some out, unless they are asked for in pages
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
        say: takes a line where the hub could not be asked and the files are those of its cache.

    Raises:
        InputError: huggingface_hub is not installed, there is no such data set or split, it has no file that can be
            read, several configurations have the split, or the hub does not answer and its cache lacks files.
    """
    asked = parse(source)
    hub = library(source)
    names, unanswered = _names(hub, asked, source)
    from .folders import is_data, kind_of

    data = [name for name in names if is_data(PurePosixPath(name).name)]
    if not data:
        raise InputError(f"{source}: the data set has no file of records that delift reads; it has {_listed(names)}")
    if asked.config:
        data = [
            name for name in data if asked.config in PurePosixPath(name).parts[:-1] or name.startswith(asked.config)
        ]
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
    folders = {str(PurePosixPath(name).parent) for name in chosen}
    kinds = {kind_of(name) for name in chosen}
    if len(kinds) > 1 and ".parquet" in kinds:
        chosen = [name for name in chosen if kind_of(name) == ".parquet"]
    elif len(folders) > 1:
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
    return [_download(hub, asked, name, source) for name in chosen]


def same_repo(one: str, other: str) -> bool:
    """May two names mean one data set? Without an owner a name may be anybody's."""
    one, other = one.casefold(), other.casefold()
    if "/" in one and "/" in other:
        return one == other
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def push(files: dict[str, bytes], destination: str, message: str, own: bytes | None = None) -> str:
    """Put files into a data set of the hub, which is made if there is none; its address.

    Args:
        own: what the README.md of a data set has in it whose files may be replaced; None: any may.

    Raises:
        InputError: the name is none, huggingface_hub is not installed, or files would be replaced that are another's.
        RunError: the hub refuses or does not answer.
    """
    asked = parse(destination)
    hub = library(destination)
    if asked.split or asked.revision:
        raise InputError(f"--push {destination}: give hf:owner/name, without a split or revision")
    api = hub.HfApi()
    try:
        if own is not None and (replaced := _not_own(hub, asked, files, own)):
            raise InputError(
                f"--push {destination}: {_listed(replaced)} there would be replaced, not all of it put there by "
                "delift; push elsewhere, or insist with --force"
            )
        api.create_repo(asked.repo, repo_type="dataset", exist_ok=True)
        operations = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
        commit = api.create_commit(asked.repo, operations, commit_message=message, repo_type="dataset")
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
        readme = hub.hf_hub_download(asked.repo, "README.md", repo_type="dataset", revision=about.sha)
        if own in Path(readme).read_bytes():
            return []
    return sorted(there.intersection(files))


def split_of(name: str) -> str:
    """The split that a file belongs to: "train" of data/train-00000-of-00002.parquet or train/0.jsonl."""
    path = PurePosixPath(name)
    stem = _SPLIT.sub("", path.name.split(".")[0])
    folders = [part for part in path.parts[:-1] if part in ("train", "test", "validation", "dev")]
    return folders[-1] if folders and stem not in ("train", "test", "validation", "dev") else stem or "train"


def library(source: str) -> Any:
    """huggingface_hub; InputError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(f'{source}: for data sets of the hub: pip install "delift-cli[data]"') from None
    return huggingface_hub


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


def _names(hub: Any, asked: Dataset, source: str) -> tuple[list[str], str]:
    """The names of the files of a data set; those that the cache has, and why, where the hub does not answer."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        try:
            # list_repo_files would go on asking for half a minute where nobody answers
            about = hub.HfApi().dataset_info(asked.repo, revision=asked.revision, timeout=ASK_SECONDS)
            names = [file.rfilename for file in about.siblings or []]
            if len(names) < LISTED_AT_ONCE:
                return names, ""
            return list(hub.HfApi().list_repo_files(asked.repo, repo_type="dataset", revision=asked.revision)), ""
        except Exception as error:
            refused = _refusal(hub, error, asked, source)
            if refused is not None:
                raise refused from None
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    else:
        cause = "HF_HUB_OFFLINE is set"
    try:
        folder = Path(
            hub.snapshot_download(asked.repo, repo_type="dataset", revision=asked.revision, local_files_only=True)
        )
    except Exception:
        raise InputError(f"{source}: the hub cannot be asked ({cause}) and the data set is not in its cache") from None
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()), cause


def _download(hub: Any, asked: Dataset, name: str, source: str) -> Path:
    try:
        return Path(hub.hf_hub_download(asked.repo, name, repo_type="dataset", revision=asked.revision))
    except Exception as error:
        refused = _refusal(hub, error, asked, source)
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise refused or InputError(f"{source}: {name} cannot be downloaded: {cause}") from None


def _refusal(hub: Any, error: Exception, asked: Dataset, source: str) -> InputError | None:
    """What the hub said no to, in words; None where it did not answer."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return InputError(
            f"{source}: access has to be granted first: ask for it on the data set's page, then set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{source}: there is no revision {asked.revision!r}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(f"{source}: the hub has no such data set, or it is private (set HF_TOKEN)")
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "no files"
