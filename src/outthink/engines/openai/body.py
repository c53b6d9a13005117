"""The request body of one completion. Knows the parameters and their names; knows no reply."""

from __future__ import annotations

from typing import Any

from outthink.engines.openai.facts import Facts
from outthink.engines.protocol import Call

OPTIONAL = frozenset(
    {
        "top_k",
        "min_p",
        "timings_per_token",
        "stream_options",
        "continuous_usage_stats",
        "seed",
        "logprobs",
        "top_logprobs",
        "continue_final_message",
        "add_generation_prompt",
        "stream",
        "verbose",
        "reasoning_effort",
        "thinking_token_budget",
        "thinking_budget_tokens",
        "custom_params",
        "chat_template_kwargs",
    }
)
"""Parameters that may be left out because the call still means the same, or nearly so."""

EXTENSIONS = ("top_k", "min_p", "timings_per_token", "continuous_usage_stats")
"""Those which OpenAI itself does not have; strict servers refuse them all, one by one."""

THINKING = ("thinking_token_budget", "thinking_budget_tokens", "custom_params", "chat_template_kwargs")
"""How a cap of the thinking is asked for: vLLM, llama.cpp, SGLang, and templates that can leave it out.
Servers ignore the names of others, so all are sent, but only where a cap is wished."""

SAMPLING = frozenset({"temperature", "top_p", "top_k", "min_p", "seed"})
"""Those which change what is drawn: leaving one out is said in the engine's notes."""


def body(call: Call, model: str, facts: Facts) -> dict[str, Any]:
    """What is sent for this call, in the dialect that the facts ask for."""
    sampling = call.sampling
    sent: dict[str, Any] = {
        "model": model,
        "messages": [message.wire() for message in call.messages],
        "stream": True,
        # One object, refused as a whole or in its vLLM part.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or facts.top_k_off or 0,
        "min_p": sampling.min_p,
        facts.length_name or "max_tokens": sampling.max_tokens,
        "timings_per_token": True,
    }
    if call.seed is not None:
        sent["seed"] = call.seed
    if sampling.stop:
        sent["stop"] = list(sampling.stop)
    if call.top_logprobs is not None:
        sent["logprobs"] = True
        alternatives = call.top_logprobs
        if facts.top_logprobs_limit is not None:
            alternatives = min(alternatives, facts.top_logprobs_limit)
        if alternatives > 0:
            sent["top_logprobs"] = alternatives
    if call.prefix:
        sent["messages"].append({"role": "assistant", "content": call.prefix})
        sent["continue_final_message"], sent["add_generation_prompt"] = True, False
    sent.update(_thinking(call))
    if sampling.stop and facts.tokenizer == "llama.cpp":
        sent["verbose"] = True  # its last chunk then tells which stop sequence was hit
    _leave_out(sent, facts.refused)
    return sent


def _thinking(call: Call) -> dict[str, Any]:
    """What the wishes about thinking are called; nothing where there are none."""
    asked: dict[str, Any] = {}
    if (effort := call.sampling.reasoning_effort) is not None:
        asked["reasoning_effort"] = effort
    if (tokens := call.sampling.thinking_tokens) is not None:
        asked |= {"thinking_token_budget": tokens, "thinking_budget_tokens": tokens}
        asked["custom_params"] = {"thinking_budget": tokens}
        if tokens == 0:
            asked["chat_template_kwargs"] = {"enable_thinking": False}
    return asked


def template(call: Call, facts: Facts) -> dict[str, Any]:
    """The part of the body that changes how the chat is written out as text."""
    flags = ("reasoning_effort", "chat_template_kwargs")
    return {name: value for name, value in _thinking(call).items() if name in flags and name not in facts.refused}


def _leave_out(sent: dict[str, Any], refused: set[str]) -> None:
    for name in refused:
        sent.pop(name, None)
    if "continuous_usage_stats" in refused and "stream_options" in sent:
        sent["stream_options"] = {"include_usage": True}
    if "stream" not in sent:
        sent.pop("stream_options", None)
    if "logprobs" not in sent:
        sent.pop("top_logprobs", None)


def names(sent: dict[str, Any]) -> set[str]:
    """The parameters of a body under the names that a refusal would use."""
    options = sent.get("stream_options")
    return set(sent) | (set(options) if isinstance(options, dict) else set())
