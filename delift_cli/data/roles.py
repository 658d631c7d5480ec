"""Whose turn it is: the names that public data give to the four roles of a chat."""

from __future__ import annotations

CALL = "call"  # an assistant's turn that is nothing but a call of a tool
_NAMES = {
    "system": ("system", "developer", "system_prompt", "sys", "preamble"),
    "user": ("user", "human", "prompter", "usr", "instructor"),
    "assistant": (
        *("assistant", "gpt", "chatgpt", "model", "bot", "ai", "chatbot", "llm", "claude", "bard", "bing", "gemini"),
        *("gpt-4", "gpt4", "gpt-4o", "gpt-3.5", "gpt-3.5-turbo", "assistant_response"),
    ),
    "tool": (
        *("tool", "function", "observation", "ipython", "tool_response", "tool_result", "tool_results"),
        *("function_response", "function-response", "function response", "function_result", "environment"),
        "tool_output",
    ),
    CALL: ("function_call", "function-call", "function call", "tool_call", "tool_calls", "tool-call"),
}
ROLES = {name: role for role, names in _NAMES.items() for name in names}
