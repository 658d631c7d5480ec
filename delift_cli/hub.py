"""The Hugging Face hub: it is asked with an end to the waiting, and what it says no to is put into words.

`HF_ENDPOINT`, `HF_TOKEN` (or the token that `hf auth login` keeps), `HF_HOME` and `HF_HUB_OFFLINE` have the meaning
that huggingface_hub gives them; it resumes downloads and shows their progress.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError

ASK_SECONDS = 20.0  # for the names of a repository's files
LISTED_AT_ONCE = 50_000  # names; of more the hub leaves some out, unless they are asked for in pages
MODEL, DATASET = "model", "dataset"  # kinds of repositories, as the hub calls them
_WORDS = {MODEL: "model", DATASET: "data set"}
_EXTRAS = {MODEL: "hub", DATASET: "data"}


class UnansweredError(InputError):
    """The hub cannot be asked; `cause` says why."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class Repository(NamedTuple):
    """A repository of the hub; `label` is what the user named, and stands in front of what is said of it."""

    label: str
    kind: str
    name: str
    revision: str | None

    def file_names(self) -> list[str]:
        """The names of all its files.

        Raises:
            UnansweredError: the hub does not answer, must not be asked, or huggingface_hub is not installed.
            InputError: the hub says no.
        """
        api = library(self.label, self.kind).HfApi()
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            raise self._unanswered("HF_HUB_OFFLINE is set")
        try:
            # list_repo_files would go on asking for half a minute where nobody answers
            about = api.repo_info(self.name, repo_type=self.kind, revision=self.revision, timeout=ASK_SECONDS)
            names = [file.rfilename for file in about.siblings or []]
            if len(names) < LISTED_AT_ONCE:
                return names
            return list(api.list_repo_files(self.name, repo_type=self.kind, revision=self.revision))
        except Exception as error:
            raise self._refusal(error) or self._unanswered(_cause(error)) from None

    def download(self, name: str) -> Path:
        """One of its files, out of the hub's cache if it is there; InputError where it cannot be downloaded."""
        hub = library(self.label, self.kind)
        try:
            return Path(hub.hf_hub_download(self.name, name, repo_type=self.kind, revision=self.revision))
        except Exception as error:
            failed = InputError(f"{self.label}: {name} cannot be downloaded: {_cause(error)}")
            raise self._refusal(error) or failed from None

    def _unanswered(self, cause: str) -> UnansweredError:
        said = f"the hub cannot be asked ({cause}) and the {_WORDS[self.kind]} is not in its cache"
        return UnansweredError(f"{self.label}: {said}", cause)

    def _refusal(self, error: Exception) -> InputError | None:
        """What the hub said no to; None where it did not."""
        from huggingface_hub import errors

        word = _WORDS[self.kind]
        if isinstance(error, errors.GatedRepoError):
            said = (
                f"access has to be granted first: ask for it on the {word}'s page, then set HF_TOKEN or hf auth login"
            )
        elif isinstance(error, errors.RevisionNotFoundError):
            said = f"there is no revision {self.revision!r}"
        elif isinstance(error, errors.RepositoryNotFoundError):
            said = f"the hub has no such {word}, or it is private (set HF_TOKEN, or hf auth login)"
        else:
            return None
        return InputError(f"{self.label}: {said}")


def library(label: str, kind: str) -> Any:
    """huggingface_hub; UnansweredError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        needed = f'{label}: for {_WORDS[kind]}s of the hub: pip install "delift-cli[{_EXTRAS[kind]}]"'
        raise UnansweredError(needed, "huggingface_hub is not installed") from None
    return huggingface_hub


def _cause(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
