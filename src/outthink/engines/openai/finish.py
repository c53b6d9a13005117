"""Why a completion ended, in one vocabulary. Knows what servers write there; knows no counts."""

from __future__ import annotations

_REASONS = {
    "stop": {
        "stop",
        "eos",
        "eos_token",
        "end_turn",
        "stop_sequence",
        "stop_token",
        "stop_word",
        "complete",
        "completed",
        "finished",
        "end",
        "done",
    },
    "length": {"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "limit", "token_limit"},
    "tool_calls": {"tool_calls", "tool_call", "tool_use", "function_call"},
    "content_filter": {"content_filter", "safety", "refusal", "sensitive", "recitation", "prohibited_content"},
}
_KNOWN = {name: reason for reason, names in _REASONS.items() for name in names}


def finish_reason(told: object) -> str:
    """One of stop, length, tool_calls, content_filter, unknown."""
    if not isinstance(told, str):
        return "unknown"
    return _KNOWN.get(told.strip().lower().replace("-", "_").replace(" ", "_"), "unknown")
