"""What the chat templates in a folder do, and what delift makes of them: a table of traits.

    python -m tests.bench.templates FOLDER [--only NAME]

For each *.jinja file: what it reads, and for each kind of record whether the text that the model sees is the one that
plain Jinja2 prints (=), adapted to the template (~), or refused (!). The vocabulary is a tiny one with the tags of the
template as its control tokens.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gguf_models import write_model

from delift_cli.data.record import Call, Message, Record
from delift_cli.errors import InputError
from delift_cli.model.gguf import ModelFile
from delift_cli.prompt.jinja import TEMPLATE_DATE
from delift_cli.prompt.template import ChatTemplate

_TAGS = re.compile(r"<[|｜][^<>\s'\"{}]{1,40}[|｜]>|<(?:start|end)_of_turn>|\[/?[A-Z_]{3,20}\]|</?s>|\[gMASK\]|<sop>")
_ENDS = re.compile(
    r"<\|(?:im_end|eot_id|end|endoftext|return|user|observation|eom_id|END_OF_TURN_TOKEN)\|>|<end_of_turn>"
)
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "tide",
                "description": "The height of the tide",
                "parameters": {
                    "type": "object",
                    "properties": {"place": {"type": "string", "description": "Where"}},
                    "required": ["place"],
                },
            },
        }
    ]
)
CALL = Call("tide", '{"place": "Brest"}', "call00001")


def say(content: str, **more: Any) -> Message:
    return Message("assistant", content, scored=True, **more)


USER, SYSTEM = Message("user", "How high is the tide?"), Message("system", "Be brief.")
CASES: dict[str, tuple[tuple[Message, ...], str]] = {
    "pair": ((USER, say("Very high.")), ""),
    "turns": ((USER, say("Very high."), Message("user", "And now?"), say("Low.")), ""),
    "system": ((SYSTEM, USER, say("Very high.")), ""),
    "blank": ((Message("system", ""), USER, say("Very high.")), ""),
    "no_think": ((Message("system", "Be brief. /no_think"), USER, say("Very high.")), ""),
    "thought": ((USER, say("Very high.", reasoning="It is spring.")), ""),
    "inline": ((USER, say("<think>\nIt is spring.\n</think>\n\nVery high.")), ""),
    "users": ((USER, Message("user", "Please."), say("Very high.")), ""),
    "first": ((say("Hello!"), USER, say("Very high.")), ""),
    "calls": (
        (USER, say("", calls=(CALL,)), Message("tool", "4.1 m", name="tide", call_id="call00001"), say("4.1 m.")),
        TOOLS,
    ),
}


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def plain_jinja(source: str, turns: tuple[Message, ...], tools: str, vocabulary: Any, chat: ChatTemplate) -> str | None:
    """What the template prints of the same messages, without delift."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = TEMPLATE_DATE.strftime
    environment.filters["tojson"] = lambda value, ensure_ascii=False, **kw: json.dumps(
        value, ensure_ascii=ensure_ascii, **kw
    )
    traits = chat.traits
    messages = []
    for turn in turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.reasoning:
            message[traits.thought or "reasoning_content"] = turn.reasoning
        if turn.calls:
            message["content"] = turn.content or traits.silence
            message["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {
                        "name": call.name,
                        "arguments": call.arguments if traits.arguments == "text" else json.loads(call.arguments),
                    },
                }
                for call in turn.calls
            ]
        if turn.role == "tool":
            message |= {"name": turn.name, "tool_call_id": turn.call_id}
        messages.append(message)
    try:
        return environment.from_string(source).render(
            messages=messages,
            tools=json.loads(tools) if tools else None,
            documents=None,
            add_generation_prompt=False,
            bos_token=vocabulary.text(vocabulary.bos),
            eos_token=vocabulary.text(vocabulary.eos),
        )
    except Exception:
        return None


def rows(folder: Path, only: str | None) -> Iterator[list[str]]:
    for path in sorted(folder.rglob("*.jinja")):
        if only and only not in path.name:
            continue
        source = path.read_text(encoding="utf-8")
        tags = [tag for tag in dict.fromkeys(_TAGS.findall(source)) if tag not in ("<|im_start|>", "<|im_end|>")]
        with tempfile.TemporaryDirectory() as directory:
            file = ModelFile(write_model(Path(directory) / "m.gguf", chat_template=None, vocab_extra=tags))
            yield [path.stem[:44], *_row(source, file, verbose=bool(only))]


def _row(source: str, file: ModelFile, *, verbose: bool) -> list[str]:
    begun = time.perf_counter()
    try:
        chat = ChatTemplate(source, file.vocabulary, as_trained=True)
        generating = ChatTemplate(source, file.vocabulary)
    except InputError as error:
        return [str(error)[:160]]
    traits = chat.traits
    row = [
        repr(chat.describe()["generation prompt"])[-26:],
        f"{traits.thought or '-'}{'+' if traits.splits else ''}"[:12],
        "".join(
            letter if has else "-"
            for letter, has in zip("TCA", (traits.tools, traits.calls, traits.answers), strict=True)
        ),
        traits.arguments[:4],
        "".join(role[0] for role in sorted(traits.strips)) or "-",
    ]
    for name, (turns, tools) in CASES.items():
        record = Record("r", turns, b"", 1, tools)
        expected = plain_jinja(source, turns, tools, file.vocabulary, chat)
        try:
            view = chat.view(record)
            chat.target(record), chat.example(record), generating.target(record)
        except InputError as error:
            row.append("!" if expected is None else "!!")
            if verbose:
                print(name, error)
            continue
        text = view.text
        same = expected is not None and expected.startswith(_without_end(text, expected, file))
        row.append("=" if same else "~")
        if verbose:
            print(f"--- {name}", *view.pieces, f"plain: {expected!r}", sep="\n")
            for piece in generating.view(record).pieces[-4:]:
                print("   generated", piece)
    if verbose:
        print(chat.notes())
    return [*row, f"{time.perf_counter() - begun:.1f}s"]


def _without_end(text: str, expected: str, file: ModelFile) -> str:
    """`text` without an end of sequence in front or behind that the template does not print."""
    vocabulary = file.vocabulary
    eos, bos = (vocabulary.text(token) for token in (vocabulary.eos, vocabulary.bos))
    if not expected.startswith(bos):
        text = text.removeprefix(bos)
    return text if expected.startswith(text) else text.removesuffix(eos)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only")
    args = parser.parse_args()
    head = ["template", "generation prompt", "thought", "TCA", "args", "strips", *CASES, "time"]
    print(" | ".join(head))
    for row in rows(args.folder, args.only):
        print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
