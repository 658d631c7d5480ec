"""What a source names, as files: a file, a folder of shards, a folder that `datasets` saved, a data set of the hub."""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from ..errors import InputError
from ..progress import Say, silent
from . import hub

ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
_PACKED = (".gz", ".zst")
_SPLIT = re.compile(r"(?<![a-z])(?:train|test|validation|valid|val|dev|eval)(?![a-z])")
_NOT_DATA = {"dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json", "config.json"}


def files_of(source: str, say: Say = silent) -> list[tuple[Path, str]]:
    """The files of a source, in the order of their names, each with what messages call it.

    Args:
        say: as of `hub.dataset_files`.

    Raises:
        InputError: a folder holds no records, several splits, or something else; see also `hub.dataset_files`.
    """
    if source.startswith("hf:"):
        return [(path, f"{source}/{path.name}") for path in hub.dataset_files(source, say)]
    path = Path(source)
    if not path.is_dir():
        return [(path, source)]
    return [(file, str(file)) for file in _files_in(path)]


def _files_in(folder: Path) -> list[Path]:
    if (folder / "manifest.json").exists() and (folder / "examples.jsonl").exists():
        raise InputError(f"{folder} is a cache of delift; its records are in {folder / 'examples.jsonl'}")
    if (folder / "dataset_dict.json").exists():
        splits = sorted(part.name for part in folder.iterdir() if (part / "state.json").exists())
        raise InputError(
            f"{folder} was saved by datasets with the splits {', '.join(splits)}; name one, as in {folder / splits[0]}"
            if splits
            else f"{folder} was saved by datasets, but none of its splits is there"
        )
    if (folder / "state.json").exists():
        try:
            state = orjson.loads((folder / "state.json").read_bytes())
            return [folder / str(file["filename"]) for file in state["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} is damaged: state.json does not name its files ({error})") from None
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and is_data(file.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
    if not files:
        raise InputError(f"{folder} is a folder without any file of records in it ({', '.join(ENDINGS)}, also packed)")
    kinds = {kind_of(file.name) for file in files}
    if len(kinds) > 1:
        raise InputError(
            f"{folder} holds files of several kinds ({', '.join(sorted(kinds))}); name those that are meant"
        )
    _refuse_several_splits(folder, files)
    return files


def _refuse_several_splits(folder: Path, files: list[Path]) -> None:
    """InputError where the names of some say that they are for training and those of others for a test, say."""
    names = {hub.split_of(file.name) for file in files}
    found = {name: match[0] for name in names if (match := _SPLIT.search(name.lower()))}
    if len({*found.values()}) > 1:
        one = folder / min(found, key=lambda name: (found[name] != "train", name))
        raise InputError(
            f"{folder} holds several splits ({', '.join(sorted(found))}); name the files of one, as in {one}*"
        )


def is_data(name: str) -> bool:
    """Is a file one of records, by its name?"""
    return name not in _NOT_DATA and not name.startswith(".") and kind_of(name) != ""


def kind_of(name: str) -> str:
    """The ending of a file of records, without that of a compression; empty for other files."""
    name = name.lower()
    for ending in _PACKED:
        name = name.removesuffix(ending)
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")
