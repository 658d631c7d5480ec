"""Small chat templates of our own, one for each trait of the templates of real models, and conversations for them."""

from __future__ import annotations

import json

from delift_cli.data.record import Call, Message, Record

_TURN = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
_CUE = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
_EACH = "{% for m in messages %}"

TRAITS = {
    "plain turns": _EACH + _TURN + "{% endfor %}" + _CUE,
    "takes turns": _EACH
    + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}"
    + _TURN
    + "{% endfor %}"
    + _CUE,
    "drops system": _EACH + "{% if m.role != 'system' %}" + _TURN + "{% endif %}{% endfor %}" + _CUE,
    "refuses system": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + _EACH
    + _TURN
    + "{% endfor %}"
    + _CUE,
    "system only where it says something": _EACH
    + "{% if m.role != 'system' or m.content %}"
    + _TURN
    + "{% endif %}{% endfor %}"
    + _CUE,
    "system in front of the last user": "{% set told = '' %}{% set turns = messages %}"
    "{% if messages[0].role == 'system' %}{% set told = messages[0].content + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% endif %}{% for m in turns %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'user' and turns[loop.index0 + 1:] | selectattr('role', 'equalto', 'user') | list | length == 0 %}"
    "{{ told }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}" + _CUE,
    "switches thinking": "{% set quiet = messages[0].role == 'system' and '/no_think' in messages[0].content %}"
    + _EACH
    + "{{ '<|im_start|>' + m.role + '\\n' + m.content.replace('/no_think', '').rstrip() + '<|im_end|>\\n' }}"
    + "{% endfor %}"
    + _CUE
    + "{% if add_generation_prompt and quiet %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
    "thought in a field": _EACH
    + "{{ '<|im_start|>' + m.role + '\\n' }}"
    + "{% if m.reasoning_content %}{{ '<think>\\n' + m.reasoning_content.strip() + '\\n</think>\\n\\n' }}{% endif %}"
    + "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    + _CUE,
    "thought of the last turn alone": "{% set ns = namespace(asked=0) %}"
    + _EACH
    + "{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
    + _EACH
    + "{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}{% set said = m.content %}"
    + "{% set thought = m.reasoning_content or '' %}{% if '</think>' in said %}"
    + "{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    + "{% set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    + "{% if loop.index0 > ns.asked %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}{{ said }}"
    + "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    + _CUE
    + "{% if add_generation_prompt and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
    "channels": _EACH
    + "{% if m.role == 'assistant' %}{% if m.thinking and loop.last %}"
    + "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    + "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    + "{{ '<|return|>' if loop.last else '<|end|>' }}"
    + "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
    "opens a thought": _EACH
    + "{% if m.role == 'assistant' %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|im_end|>' }}"
    + "{% else %}{{ '<|User|>' + m.content }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}",
    "closes a thought in either case": _EACH
    + "{% if m.role == 'assistant' %}{{ '<|Assistant|></think>' + m.content + '<|im_end|>' }}"
    + "{% else %}{{ '<|User|>' + m.content }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|Assistant|><think></think>' }}{% endif %}",
    "empty channel": _EACH
    + "{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
    + "{{ m.content | trim + '<|im_end|>\\n' }}"
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\\n<|channel|>thought\\n<|close|>' }}{% endif %}",
    "ends with the next turn": _EACH
    + "{% if m.role == 'user' %}{{ '<|user|>\\n' + m.content }}"
    + "{% elif m.role == 'assistant' %}{{ '<|assistant|>\\n' + m.content }}"
    + "{% else %}{{ '<|system|>\\n' + m.content }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "no end": _EACH
    + "{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    "calls as json": "{% if tools %}{{ '<|im_start|>system\\nTools:\\n' }}"
    "{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}"
    + _EACH
    + "{% if m.role == 'tool' %}{{ '<|im_start|>user\\n<tool_response>\\n' }}"
    + "{{ m.content + '\\n</tool_response><|im_end|>\\n' }}"
    + "{% else %}{{ '<|im_start|>' + m.role + '\\n' + (m.content or '') }}{% for call in m.tool_calls or [] %}"
    + "{{ '<tool_call>\\n' + {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}"
    + "{{ '\\n</tool_call>' }}"
    + "{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    + _CUE,
    "tools in the first question": "{% set turns = messages %}{{ '<|im_start|>system\\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set turns = messages[1:] %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% for m in turns %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if loop.first and tools %}{{ 'Tools:\\n' }}{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}"
    "{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}" + _CUE,
    "tools with the last question": "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}"
    + _EACH
    + "{% if m.role == 'user' %}{% if tools and m == asked[-1] %}{{ 'Tools:\\n' }}"
    + "{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}{% endif %}"
    + "{{ '<|user|>' + m.content + '<|close|>' }}"
    + "{% elif m.tool_calls %}{{ '<|observation|>[' }}{% for call in m.tool_calls %}{{ call.function | tojson }}"
    + "{% endfor %}{{ ']<|im_end|>' }}{% elif m.role == 'assistant' %}{{ m.content + '<|im_end|>' }}"
    + "{% else %}{{ '(' + m.role + ': ' + m.content + ')' }}{% endif %}{% endfor %}",
    "calls without an end": _EACH
    + "{% if m.role == 'user' %}{{ '<|User|>' + m.content }}{% elif m.role == 'tool' %}{{ '(' + m.content + ')' }}"
    + "{% elif m.tool_calls %}{% for call in m.tool_calls %}{{ '<|Assistant|><|observation|>' + call.function.name }}"
    + "{{ '\\n```json\\n' + call.function.arguments + '\\n```<|close|>' }}{% endfor %}"
    + "{% elif m.role == 'assistant' %}{{ '<|Assistant|>' + m.content + '<|im_end|>' }}{% else %}{{ m.content }}"
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}",
    "one call a turn": "{% set last = namespace(name='') %}"
    + _EACH
    + "{% if m.tool_calls %}{% set last.name = m.tool_calls[0].function.name %}"
    + "{{ '<|start|>assistant to=' + last.name + '<|channel|>commentary<|message|>' }}"
    + "{{ m.tool_calls[0].function.arguments | tojson + '<|call|>' }}"
    + "{% elif m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    + "{{ '<|return|>' if loop.last else '<|end|>' }}"
    + "{% elif m.role == 'tool' %}{% if not last.name %}{{ raise_exception('no call') }}{% endif %}"
    + "{{ '<|start|>' + last.name + ' to=assistant<|message|>' + m.content + '<|end|>' }}"
    + "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
    "arguments as text": _EACH
    + "{% if m.tool_calls %}{{ '<|im_start|>assistant\\n' }}{% for call in m.tool_calls %}"
    + "{{ '[' + call.function.name + ' ' + call.function.arguments + ']' }}{% endfor %}{{ '<|im_end|>\\n' }}"
    + "{% else %}"
    + _TURN
    + "{% endif %}{% endfor %}"
    + _CUE,
    "arguments one by one": _EACH
    + "{% if m.tool_calls %}{{ '<|im_start|>assistant\\n' + m.content }}{% for call in m.tool_calls %}"
    + "{{ '<tool_call>' + call.function.name }}{% for key, value in call.function.arguments.items() %}"
    + "{{ '\\n' + key + '=' + (value if value is string else value | tojson) }}"
    + "{% endfor %}{{ '</tool_call>' }}{% endfor %}"
    + "{{ '<|im_end|>\\n' }}{% else %}"
    + _TURN
    + "{% endif %}{% endfor %}"
    + _CUE,
    "a call ends with the answer": _EACH
    + "{% if m.role == 'assistant' %}{{ '<|assistant|>\\n' + m.content }}{% for call in m.tool_calls or [] %}"
    + "{{ '<tool_call>' + call.function.name }}{% for key, value in call.function.arguments.items() %}"
    + "{{ '\\n' + key + '=' + (value if value is string else value | tojson) + ';' }}"
    + "{% endfor %}{{ '</tool_call>' }}{% endfor %}"
    + "{% elif m.role == 'tool' %}{{ '<|observation|>\\n(' + m.content + ')' }}"
    + "{% else %}{{ '<|' + m.role + '|>\\n' + m.content }}{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "contents in parts": _EACH
    + "{{ '<|im_start|>' + m.role + ('\\n' if m.content[0].type == 'image' else ': ') }}"
    + "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% elif part.type == 'image' %}<image>"
    + "{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant:' }}{% endif %}",
    "marks what is generated": _EACH
    + "{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    + "{% generation %}{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}"
    + "{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    + _CUE,
}

# "calls as json" with what TRL's templates mark: what the assistant says, with the end of its turn.
MARKED = (
    TRAITS["calls as json"]
    .replace(
        "{{ '<|im_start|>' + m.role + '\\n' + (m.content or '') }}{% for call",
        "{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content or '' }}{% for call",
    )
    .replace(
        "{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}",
        "{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endif %}{% endfor %}",
    )
)

# As Hermes' templates for tools: the list is read without asking whether there is one.
UNASKED = (
    "{{ '<|im_start|>system\\nTools:\\n' }}{% for tool in tools %}{{ tool.function | tojson + '\\n' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}" + TRAITS["calls as json"].partition("{% endif %}")[2]
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"The {name} at a place",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    }
    for name in ("tide", "wind")
]


def call(name: str, number: int = 1, **arguments: object) -> Call:
    return Call(name, json.dumps(arguments, ensure_ascii=False), f"call0000{number}")


def user(text: str) -> Message:
    return Message("user", text)


def said(text: str = "", **more: object) -> Message:
    return Message("assistant", text, scored=True, **more)  # type: ignore[arg-type]


def answer(text: str, name: str = "tide", number: int = 1) -> Message:
    return Message("tool", text, name=name, call_id=f"call0000{number}")


def record(*turns: Message, tools: bool = False) -> Record:
    return Record("r1", turns, b"", 7, json.dumps(TOOLS) if tools else "")


KIND = Message("system", "You are kind.")
CONVERSATIONS = {
    "a pair": record(user("What is it?"), said("A word.")),
    "with a system message": record(KIND, user("What is it?"), said("A word.")),
    "several turns": record(user("Who?"), said("She."), user("When?"), said("Last week.")),
    "unscored turns": record(
        user("Who?"),
        Message("assistant", "He."),
        user("No."),
        said("She."),
        user("Ok"),
        Message("assistant", "Yes."),
        user("When?"),
        said("Now."),
    ),
    "lines and marks": record(user("Read:\n\n- one\n\t- two"), said('{"a": [1, null]}\n\nyes')),
    "unicode": record(user("Où est l'été? 日本語"), said("È là: ñandú 🦙")),
    "a call": record(user("Tide?"), said(calls=(call("tide", place="Brest"),)), answer("4.1 m"), said("4.1 m.")),
    "a call with text": record(
        user("Tide?"), said("Let me look.", calls=(call("tide", place="Cork"),)), answer("3 m"), said("3 m.")
    ),
    "two calls": record(
        user("Both?"),
        said(calls=(call("tide", place="Oslo"), call("wind", 2, place="Oslo"))),
        answer("0.3 m"),
        answer("5 m/s", "wind", 2),
        said("Calm."),
    ),
    "calls again": record(
        KIND,
        user("Tide?"),
        said(calls=(call("tide", place="Brest"),)),
        answer("4 m"),
        said("4 m."),
        user("Wind?"),
        said(calls=(call("wind", 2, place="Brest", days=[1, 2]),)),
        answer("9 m/s", "wind", 2),
        said("Windy."),
        tools=True,
    ),
    "tools that are not called": record(KIND, user("Hello"), said("Good day."), tools=True),
    "tools and no system message": record(user("Hello"), said("Good day."), tools=True),
    "a call at the end": record(user("Tide?"), said(calls=(call("tide", place="Brest"),)), tools=True),
    "a call of no arguments": record(user("Now?"), said(calls=(call("wind"),)), answer("5"), said("5 m/s"), tools=True),
    "a long one": record(*(turn for n in range(12) for turn in (user(f"number {n}?"), said(f"It is {n}.")))),
    "quotes in a call": record(
        user("Say"), said(calls=(call("tide", place='the "Quai"\n\\ é'),)), answer('{"m": "4"}'), said("4"), tools=True
    ),
    "an answer in json": record(
        user("Tide?"),
        said(calls=(call("tide", place="Brest"),)),
        answer('{"height": 4.1, "unit": "m"}'),
        said("4.1 m."),
        tools=True,
    ),
    "user goes on": record(
        KIND, user("One."), said("Yes?"), user("Two."), said("Fine."), user("Three."), said("Done.")
    ),
    "digits": record(user("12 + 30"), said("42"), user("* 2"), said("84")),
    "a code block": record(
        user("Sum?"), said("```python\ndef f(a, b):\n    return a + b\n```"), user("Thanks"), said("Sure.")
    ),
}
