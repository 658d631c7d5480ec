"""How records are to be read, as the user asked for it: one value that every reader takes and a cache keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError
from .roles import ROLES

Turns = Literal["all", "last"]


@dataclass(frozen=True)
class Reading:
    """What a record's fields and turns mean, where the data alone do not say it.

    Attributes:
        prompt_field: the field of the prompt, or of a whole chat; a record without it is recognised by its fields.
            A dot leads into a nested object, a number into a list ("answers.text.0").
        response_field: the same for the response.
        turns: score all assistant turns (that no mask excludes), or the last of them only.
        roles: names of roles beside those that are known, in lower case, each with its role.
        records: the key of the list of records in a file that holds one JSON object.
        strict: a record that can be read in two ways is an error.
        skip_invalid: a record that cannot be used is left out and counted, where it is an error otherwise.
    """

    prompt_field: str | None = None
    response_field: str | None = None
    turns: Turns = "all"
    roles: tuple[tuple[str, str], ...] = ()
    records: str | None = None
    strict: bool = False
    skip_invalid: bool = False

    def as_fields(self) -> dict[str, Any]:
        """What a cache keeps, to read its records again the same way.

        Caches from before there was a choice scored the last turn alone and say nothing of it; so does this.
        """
        fields: dict[str, Any] = {"prompt": self.prompt_field, "response": self.response_field}
        if self.turns != "last":
            fields["turns"] = self.turns
        if self.roles:
            fields["roles"] = dict(sorted(self.roles))
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Reading:
        """The reading that `as_fields` describes."""
        turns: Turns = "all" if fields.get("turns") == "all" else "last"
        roles = fields.get("roles") or {}
        return cls(fields.get("prompt"), fields.get("response"), turns, tuple(roles.items()))


def parse_roles(given: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`NAME=ROLE` as the user writes it, such as "ai=assistant".

    Raises:
        InputError: there is no "=", the role is none that delift knows, or a name has two.
    """
    pairs: dict[str, str] = {}
    for text in given:
        name, sign, role = (part.strip().lower() for part in text.rpartition("="))
        if not sign or not name or role not in ROLES:
            raise InputError(
                f"--role {text}: give a name of the data and what it is, as in --role ai=assistant; "
                "roles are system, user, assistant, tool and function_call"
            )
        if pairs.setdefault(name, ROLES[role]) != ROLES[role]:
            raise InputError(f"--role {text}: {name} is said to be {pairs[name]} already")
    return tuple(pairs.items())
