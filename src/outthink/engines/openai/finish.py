"""Why a completion ended, in one vocabulary. Knows what servers write there; knows no counts.

The stop sequence: vLLM tells it as `stop_reason` (text, a token's number, or null for the end of text),
SGLang as `matched_stop`, llama.cpp as `__verbose.stopping_word` where `verbose` was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def stop_sequence(chunk: Mapping[str, Any], choice: Mapping[str, Any], stops: Sequence[str]) -> str | None:
    """The stop sequence that this last chunk names: empty for an end without one, None if it does not tell."""
    if not stops or finish_reason(choice.get("finish_reason")) in ("length", "tool_calls", "content_filter"):
        return ""
    verbose = chunk.get("__verbose")
    if isinstance(verbose, dict) and isinstance(word := verbose.get("stopping_word"), str):
        return word
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            told = choice[name]
            if isinstance(told, str) and told in stops:
                return told
            # Null and token numbers mean the end of the text; other words say no more than `stop` does.
            return "" if told is None or isinstance(told, int) else None
    return None
