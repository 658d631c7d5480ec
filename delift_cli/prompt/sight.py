"""What a model sees of records, without loading more of it than its vocabulary and template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ..amount import counted
from ..data.record import Record
from ..errors import InputError
from ..model.apart import open_checked
from ..model.places import locate
from ..progress import Say, silent
from .builtin import parse_arguments
from .chosen import chat_template
from .template import ChatTemplate
from .view import Piece, View

LOOKED_AT = 500  # records, evenly over the set, whose tokens are counted


@dataclass(frozen=True)
class Sight:
    """A model's template and vocabulary, and the longest pair that it takes, in tokens."""

    chat: ChatTemplate
    context: int
    name: str

    def view(self, record: Record) -> View:
        """The text that the model sees of the record alone; InputError where the template refuses it."""
        return self.chat.view(record)

    def scored(self, record: Record) -> list[str]:
        """The texts that are scored, each up to the end of its turn."""
        pieces = self.view(record).pieces
        return ["".join(piece.text for piece in part) for scored, part in groupby(pieces, _is_scored) if scored]

    def lines(self, records: Sequence[Record]) -> list[tuple[str, str]]:
        """Tokens of the records and what does not fit, as rows of name and text; of many records some are looked at,
        which is said."""
        some = records[:: max(1, len(records) // LOOKED_AT)]
        tokens: list[int] = []
        scored = 0
        refused: Counter[str] = Counter()
        for record in some:
            try:
                view = self.view(record)
            except InputError as error:
                refused[str(error)] += 1
                continue
            tokens.append(view.tokens)
            scored += view.scored
        of = "" if len(some) == len(records) else f" (of {len(some):,} looked at)"
        lines = [("model", f"{self.name}, {self.context:,} tokens of context; {self.chat.name}")]
        if tokens:
            mean = sum(tokens) / len(tokens)
            share = scored / max(sum(tokens), 1)
            lines.append(("tokens", f"{mean:,.0f} in the mean, at most {max(tokens):,}; {share:.0%} are scored{of}"))
        alone = sum(count > self.context for count in tokens)
        pair = sum(count + max(tokens) > self.context for count in tokens)
        if alone:
            lines.append(("overflow", f"{counted(alone, 'record')} longer than the context{of}"))
        if pair > alone:
            lines.append(("overflow", f"{counted(pair, 'record')} do not fit behind the longest{of}; --truncate"))
        lines += [("refused", f"{counted(count, 'record')}: {reason}{of}") for reason, count in refused.most_common(4)]
        return lines + [("template", note) for note in self.chat.notes()]


def sight_of(
    model: str | None,
    template: str | None = None,
    template_arguments: Sequence[str] = (),
    *,
    as_trained: bool = False,
    say: Say = silent,
) -> Sight:
    """The sight of a model, found as `delift score` finds it.

    Args:
        model, template, template_arguments, as_trained: as of `delift_cli.score`.
        say: takes a line where a template is used that is not the model's own.

    Raises:
        InputError: there is no such model or template, or it cannot be used.
    """
    arguments = parse_arguments(template_arguments)
    file = open_checked(locate(model, say))
    chat = chat_template(file, template, arguments=arguments, as_trained=as_trained, say=say)
    return Sight(chat, file.context, file.path.name)


def _is_scored(piece: Piece) -> bool:
    return piece.is_scored
