# ruff: noqa: E501  (a nasty file a line)
"""Inputs that nobody means well with: what fuzzers start from, and a corpus of nasty files."""

from __future__ import annotations

import gzip
import json
from typing import Any

from hypothesis import strategies as st

FIELDS = (
    *("prompt", "response", "completion", "question", "answer", "instruction", "input", "output", "context", "text"),
    *("messages", "conversations", "conversation", "role", "from", "content", "value", "system", "history", "tools"),
    *("tool_calls", "function_call", "function", "name", "arguments", "weight", "loss", "train", "reasoning_content"),
    *("chosen", "rejected", "id", "uid", "ID", "choices", "solution", "query", "contents", "parts", "data", "type"),
)
ROLES = ("user", "assistant", "system", "tool", "human", "gpt", "model", "function", "Chatbot", "wizard", "")

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from([*ROLES, "ok", " ", "\x00", "\u202e", "\x1b[2J", "<|im_end|>", "{{ 1 }}", "a" * 300]),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), inner, max_size=5)
    ),
    max_leaves=12,
)
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES) | scalars, "content": scalars | values},
        optional={
            "weight": values,
            "tool_calls": values,
            "reasoning_content": values,
            "name": scalars,
            "tool_call_id": scalars,
        },
    ),
    max_size=5,
)
records = st.one_of(
    values,
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=6),
    st.fixed_dictionaries({"messages": turns | values}, optional={"tools": values, "id": scalars, "system": values}),
    st.fixed_dictionaries({"prompt": scalars, "response": scalars}, optional={"id": values, "context": values}),
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of records, well-formed or not: lines, an array, compressed, cut short, with bytes changed."""
    items = draw(st.lists(records, max_size=5))
    dumped = [json.dumps(item, ensure_ascii=draw(st.booleans())) for item in items]
    text = "[" + ",".join(dumped) + "]" if draw(st.booleans()) else "\n".join(dumped)
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    data = bytearray(draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\n\n", b" "]))) + data
    content = bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
    return gzip.compress(content, mtime=0) if draw(st.booleans()) else content


def corpus() -> dict[str, bytes]:
    """Nasty files by name; every one is refused in a line or read as records."""
    pair = b'{"prompt": "p", "response": "r"}'
    deep = 20_000
    nasty = {
        "empty": b"",
        "white": b" \n\t\r\n",
        "nul": b"\x00" * 64,
        "bom alone": b"\xef\xbb\xbf",
        "bom twice": b"\xef\xbb\xbf\xef\xbb\xbf" + pair,
        "bom inside": pair + b"\n\xef\xbb\xbf" + pair,
        "utf-16": json.dumps({"prompt": "p", "response": "r"}).encode("utf-16"),
        "utf-32": json.dumps({"prompt": "p", "response": "r"}).encode("utf-32"),
        "latin-1": '{"prompt": "né", "response": "r"}'.encode("latin-1"),
        "cut utf-8": '{"prompt": "né", "response": "r"}'.encode()[:14],
        "overlong utf-8": b'{"prompt": "\xc0\xaf", "response": "r"}',
        "lone surrogate": b'{"prompt": "\\ud800", "response": "r"}',
        "surrogate key": b'{"\\udfff": 1, "prompt": "p", "response": "r"}',
        "escaped nul": b'{"prompt": "a\\u0000b", "response": "r"}',
        "raw control": b'{"prompt": "a\x01b", "response": "r"}',
        "cr lines": pair + b"\r" + pair,
        "crlf": pair + b"\r\n" + pair + b"\r\n",
        "line separators": '{"prompt": "a\u2028b\u2029\x85", "response": "r"}'.encode(),
        "no newline": pair + pair,
        "trailing comma": b"[" + pair + b",]",
        "missing comma": b"[" + pair + b" " + pair + b"]",
        "open array": b"[" + pair,
        "closed twice": b"[" + pair + b"]]",
        "after the array": b"[" + pair + b"] x",
        "comments": b"// hello\n" + pair,
        "single quotes": b"{'prompt': 'p', 'response': 'r'}",
        "python": b"[{'prompt': None}]",
        "nan": b'{"prompt": NaN, "response": "r"}',
        "infinity": b'[{"prompt": Infinity, "response": -Infinity}]',
        "huge integer": b'{"id": ' + b"9" * 5000 + b', "prompt": "p", "response": "r"}',
        "huge integer in an array": b'[{"id": ' + b"9" * 5000 + b', "prompt": "p", "response": "r"}]',
        "huge float": b'{"id": 1e999, "prompt": "p", "response": "r"}',
        "huge exponent in an array": b'[{"id": 1e99999999, "prompt": "p", "response": "r"}]',
        "deep lists": b"[" * deep + b"]" * deep,
        "deep objects": b'{"a":' * deep + b"1" + b"}" * deep,
        "deep in a field": b'{"prompt": ' + b"[" * deep + b"]" * deep + b', "response": "r"}',
        "deep unclosed": b'[{"a":' * deep,
        "same key twice": b'{"prompt": "p", "prompt": "q", "response": "r"}',
        "a number": b"1",
        "a text": b'"text"',
        "null": b"null",
        "numbers": b"1\n2\n3",
        "lists": b"[]\n[]",
        "array of nothing": b"[]",
        "array of arrays": b"[[], [[]], [{}]]",
        "empty objects": b"{}\n{}",
        "messages of numbers": b'{"messages": [1, 2]}',
        "messages of lists": b'{"messages": [["user", "x"], ["assistant", "y"]]}',
        "messages a number": b'{"messages": 3}',
        "messages a bad text": b'{"messages": "[{"}',
        "messages deep text": json.dumps({"messages": "[" * 5000}).encode(),
        "no role": b'{"messages": [{"content": "x"}, {"content": "y"}]}',
        "role a list": b'{"messages": [{"role": ["user"], "content": "x"}, {"role": "assistant", "content": "y"}]}',
        "role an object": b'{"messages": [{"role": {}, "content": "x"}, {"role": "assistant", "content": "y"}]}',
        "unknown role": b'{"messages": [{"role": "wizard", "content": "x"}, {"role": "assistant", "content": "y"}]}',
        "only system": b'{"messages": [{"role": "system", "content": "x"}]}',
        "only user": b'{"messages": [{"role": "user", "content": "x"}]}',
        "only assistant": b'{"messages": [{"role": "assistant", "content": "x"}]}',
        "content an object": b'{"messages": [{"role": "user", "content": {}}, {"role": "assistant", "content": 1}]}',
        "content of parts": b'{"messages": [{"role": "user", "content": [1, null, {}]}, {"role": "assistant", "content": []}]}',
        "calls a text": b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": "x"}]}',
        "calls of nothing": b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [null]}]}',
        "call without a function": b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{}]}]}',
        "tools a number": b'{"tools": 5, "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}',
        "tools bad text": b'{"tools": "[", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}',
        "weights odd": b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": "no"}]}',
        "all masked": b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}]}',
        "history odd": b'{"instruction": "i", "output": "o", "history": [["a"], 3, null]}',
        "dict of lists": b'{"messages": {"role": ["user"], "content": ["x", "y"]}}',
        "id an object": b'{"id": {"a": [1]}, "prompt": "p", "response": "r"}',
        "id of control characters": b'{"id": "\\u001b[2J\\n", "prompt": "p", "response": "r"}',
        "id very long": json.dumps({"id": "x" * 100_000, "prompt": "p", "response": "r"}).encode(),
        "id nan": b'{"id": NaN, "prompt": "p", "response": "r"}',
        "blank texts": b'{"prompt": " ", "response": "\\n"}',
        "long line": json.dumps({"prompt": "p" * 3_000_000, "response": "r"}).encode(),
        "many fields": json.dumps({f"f{n}": n for n in range(20_000)}).encode(),
        "gzip": gzip.compress(pair, mtime=0),
        "gzip cut": gzip.compress(pair, mtime=0)[:-9],
        "gzip of gzip": gzip.compress(gzip.compress(pair, mtime=0), mtime=0),
        "gzip and more": gzip.compress(pair, mtime=0) + b"trailing",
        "gzip flipped": bytes(byte ^ (place == 14) for place, byte in enumerate(gzip.compress(pair, mtime=0))),
        "gzip header alone": b"\x1f\x8b",
        "zip": b"PK\x03\x04" + b"\0" * 40,
        "parquet magic": b"PAR1" + b"\xff" * 40 + b"PAR1",
        "arrow magic": b"ARROW1\0\0" + b"\xff" * 64,
        "zstd magic": b"\x28\xb5\x2f\xfd" + b"\xff" * 32,
        "bzip2": b"BZh91AY" + b"\0" * 30,
        "xz": b"\xfd7zXZ\x00" + b"\0" * 30,
        "gguf": b"GGUF" + b"\xff" * 60,
        "numpy": b"\x93NUMPY\x01\x00v\x00" + b"{" * 30,
        "sqlite": b"SQLite format 3\x00" + b"\0" * 80,
        "html": b"<!doctype html><html></html>",
        "csv": b"prompt,response\np,r\n",
        "csv quotes": b'prompt,response\n"p,r\n',
        "tsv": b"prompt\tresponse\np\tr\n",
        "yaml": b"- prompt: p\n  response: r\n",
        "pickle": b"\x80\x04\x95" + b"\0" * 20,
        "random": bytes((place * 197 + 31) % 256 for place in range(4096)),
    }
    assert len(nasty) >= 80
    return nasty
