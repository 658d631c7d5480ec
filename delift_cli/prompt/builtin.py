"""Chat templates that come with delift, and which of all that there are a run uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model.places.beside import templates_of_config
from .go_template import is_go, jinja_of
from .template import ChatTemplate
from .tokens import Vocabulary

PLAIN = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{{- message.content + '\\n\\n' -}}
{%- else -%}{{- message.content + '\\n' -}}{%- endif -%}
{%- endfor -%}"""

CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

ALPACA = """\
{%- if messages[0].role == 'system' -%}{%- set told, turns = messages[0].content, messages[1:] -%}
{%- else -%}{%- set turns = messages -%}
{%- set told = 'Below is an instruction that describes a task. '
    + 'Write a response that appropriately completes the request.' -%}
{%- endif -%}
{{- told + '\\n\\n' if told -}}
{%- for message in turns -%}
{%- if message.role == 'user' -%}{{- '### Instruction:\\n' + message.content + '\\n\\n' -}}
{%- elif message.role == 'assistant' -%}
{{- '### Response:\\n' + message.content + eos_token + ('' if loop.last else '\\n\\n') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}"""

VICUNA = """\
{%- if messages[0].role == 'system' -%}{{- messages[0].content + '\\n\\n' -}}{%- set turns = messages[1:] -%}
{%- else -%}{%- set turns = messages -%}{%- endif -%}
{%- for message in turns -%}
{%- if message.role == 'user' -%}{{- 'USER: ' + message.content + '\\n' -}}
{%- elif message.role == 'assistant' -%}{{- 'ASSISTANT: ' + message.content + eos_token + '\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"""

ZEPHYR = """\
{%- for message in messages -%}
{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"""

LLAMA2 = """\
{%- if messages[0].role == 'system' -%}
{%- set told, turns = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n', messages[1:] -%}
{%- else -%}{%- set told, turns = '', messages -%}{%- endif -%}
{%- for message in turns -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('user and assistant must take turns') -}}{%- endif -%}
{%- if message.role == 'user' -%}
{{- bos_token + '[INST] ' + (told if loop.first else '') + message.content | trim + ' [/INST]' -}}
{%- else -%}{{- ' ' + message.content | trim + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}"""

MISTRAL = """\
{%- if messages[0].role == 'system' -%}{%- set told, turns = messages[0].content + '\\n\\n', messages[1:] -%}
{%- else -%}{%- set told, turns = '', messages -%}{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('user and assistant must take turns') -}}{%- endif -%}
{%- if message.role == 'user' -%}{{- '[INST] ' + (told if loop.first else '') + message.content + '[/INST]' -}}
{%- else -%}{{- ' ' + message.content + eos_token -}}{%- endif -%}
{%- endfor -%}"""

LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""

GEMMA = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}{{- raise_exception('there is no place for a system message') -}}{%- endif -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('user and assistant must take turns') -}}{%- endif -%}
{%- set role = 'model' if message.role == 'assistant' else message.role -%}
{{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""

BUILT_IN = {
    "plain": PLAIN,
    "alpaca": ALPACA,
    "chatml": CHATML,
    "gemma": GEMMA,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "vicuna": VICUNA,
    "zephyr": ZEPHYR,
}

_NEEDED = {  # what a vocabulary must have as tokens for a template to mean something
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
}

Own = str | Mapping[str, str] | None  # a model's own template, or several by name, the usual one as "default"


def load_template(
    choice: str | None,
    own: Own,
    vocabulary: Vocabulary,
    *,
    arguments: Mapping[str, Any] | None = None,
    as_trained: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> ChatTemplate:
    """The template that `--template` asks for.

    Args:
        choice: None (the model's own, else plain), the name of one of the model's own or of BUILT_IN, or the path of
            a Jinja2 file or of a tokenizer_config.json.
        own: the model's own chat template, or its templates by name.
        arguments, as_trained: see ChatTemplate.
        say: is told in one line that a model has no chat template, and what a trainer would use.

    Raises:
        InputError: no such file, or not a usable template.
    """

    def made(source: str, name: str) -> ChatTemplate:
        return ChatTemplate(source, vocabulary, name, dict(arguments or {}), as_trained)

    named = {"default": own} if isinstance(own, str) else dict(own or {})
    named = {name: source for name, source in named.items() if source}
    if choice is None and named:
        usual = "default" if "default" in named else next(iter(named))
        return made(_jinja_of(named[usual], say), "the model's chat template")
    if choice is not None and choice in named:
        return made(_jinja_of(named[choice], say), f"the model's chat template {choice}")
    if choice is None:
        say(_without_template(vocabulary))
    if choice is None or choice in BUILT_IN:
        return made(BUILT_IN[choice or "plain"], f"the {choice or 'plain'} template")
    path = Path(choice)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        known = ", ".join([*(name for name in named if name != "default"), *BUILT_IN])
        cause = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None)
        raise InputError(
            f"cannot read template {path}: {cause or error}; give a Jinja2 file or one of {known}"
        ) from None
    if path.suffix == ".json":
        text = _of_config(path, text)
    return made(_jinja_of(text, say), f"template {path}")


def parse_arguments(given: Sequence[str]) -> dict[str, Any]:
    """{"enable_thinking": False} of ["enable_thinking=false"]: values are JSON, or texts where they are not.

    Raises:
        InputError: one of them is not NAME=VALUE, or a name has two values.
    """
    parsed: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise InputError(f"--template-arg {text}: give NAME=VALUE, as in enable_thinking=false")
        if name.strip() in parsed:
            raise InputError(f"--template-arg {text}: {name.strip()} has a value already")
        try:
            parsed[name.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            parsed[name.strip()] = value
    return parsed


def _without_template(vocabulary: Vocabulary) -> str:
    """What is done with a model that has no chat template, and what its trainer would use."""
    has = {vocabulary.text(token) for token in range(vocabulary.size) if vocabulary.is_control(token)}
    fitting = next((name for name, needed in _NEEDED.items() if has.issuperset(needed)), None)
    usual = f"--template {fitting}, whose tokens its vocabulary has" if fitting else "--template alpaca or chatml"
    return (
        "the model has no chat template: prompts and responses stand in plain lines (--template plain); "
        f"a trainer usually takes {usual}"
    )


def _of_config(path: Path, text: str) -> str:
    try:
        found = templates_of_config(json.loads(text))
    except (ValueError, RecursionError):
        raise InputError(f"template {path} is not valid JSON") from None
    if not found:
        raise InputError(
            f"template {path} has no chat_template; give a Jinja2 file or a tokenizer_config.json with one"
        )
    return found.get("default") or next(iter(found.values()))


def _jinja_of(source: str, say: Callable[[str], None]) -> str:
    """A template of Ollama, which is Go's, in Jinja2; any other as it is.

    Raises:
        InputError: it is Go's, and cannot be translated.
    """
    if not is_go(source):
        return source
    try:
        translated = jinja_of(source)
    except InputError as error:
        alike = next((name for mark, name in _MARKS if mark in source), "alpaca")
        raise InputError(
            f"the model's template: {error}; give its Jinja2 template with --template FILE, or a built-in one that "
            f"has its tags: --template {alike}"
        ) from None
    say("the template is one of Ollama's, in Go's language: it is used translated to Jinja2 (delift preview shows it)")
    return translated


_MARKS = (  # of the built-in ones
    ("<|im_start|>", "chatml"),
    ("<|start_header_id|>", "llama3"),
    ("<start_of_turn>", "gemma"),
    ("<<SYS>>", "llama2"),
    ("[INST]", "mistral"),
    ("USER:", "vicuna"),
    ("<|user|>", "zephyr"),
)
