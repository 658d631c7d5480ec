"""The tools that a record offers its model, in the form that chat templates expect: OpenAI's list."""

from __future__ import annotations

import json
from typing import Any

from .fields import RecordError, as_list

TOOLS = ("tools", "functions", "toolconfig", "tool_config")


def tools_of(value: Any, name: str) -> str | None:
    """The JSON text of the list of tools in field `name`, or None for what is no such list.

    What is in `tools` goes to the template as it is, as transformers' apply_chat_template does it. Only what no
    template knows is put into OpenAI's form: the older `functions`, and the declarations of Gemini, Bedrock and
    Anthropic.
    """
    try:
        value = _of_text(value)
        if isinstance(value, list):
            value = [_of_text(tool) for tool in value if tool is not None]
    except RecordError:
        return None
    if value is None:
        return ""
    if isinstance(value, dict):
        named = all(isinstance(tool, dict) and {"description", "parameters"} & {*tool} for tool in value.values())
        by_name = [_function({"name": name, **tool}) for name, tool in value.items()] if named else None
        value = value.get("tools") or value.get("functions") or by_name or [value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        return None
    tools = [form for tool in value for form in _forms(tool, name)]
    return json.dumps(tools, ensure_ascii=False) if tools else ""


def _of_text(value: Any) -> Any:
    """A value, or what its JSON text (or that of Python) says."""
    return as_list(value, "") if isinstance(value, str) else value


def _forms(tool: dict[str, Any], name: str) -> list[dict[str, Any]]:
    for key in ("functionDeclarations", "function_declarations"):
        if isinstance(declared := tool.get(key), list):
            return [_function(each) for each in declared if isinstance(each, dict)]
    if isinstance(spec := tool.get("toolSpec"), dict):
        schema = spec.get("inputSchema")
        parameters = schema.get("json", schema) if isinstance(schema, dict) else {}
        return [_function({**{k: v for k, v in spec.items() if k != "inputSchema"}, "parameters": parameters})]
    if "input_schema" in tool and "name" in tool:
        rest = {key: value for key, value in tool.items() if key not in ("input_schema", "type")}
        return [_function({**rest, "parameters": tool["input_schema"]})]
    if name == "functions" and "function" not in tool:
        return [_function(tool)]
    return [tool]


def _function(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": function}
