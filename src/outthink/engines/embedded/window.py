"""How many tokens a slot must hold. Knows the bound of a call and rounding; does not know the server."""

from __future__ import annotations

from outthink.engines.protocol import Call

STEP = 256  # llama.cpp rounds a slot up to this
LEAST = 1024  # one default call (512 tokens) and a usual prompt: most callers never restart the server
_A_MESSAGE, _A_CHAT = 16, 64  # tokens of the chat template (docs/contracts.md, Budgets)


def prompt_bound(call: Call) -> int:
    """No fewer tokens than the prompt has: byte-level tokenisers make at most one a byte."""
    texts = [message.text for message in call.messages] + [call.prefix or ""]
    return sum(len(text.encode()) + _A_MESSAGE for text in texts) + _A_CHAT


def window(need: int, trained: int) -> int:
    """The context of a slot for calls of `need` tokens, within what the model was trained for."""
    return min(max(LEAST, -(-need // STEP) * STEP), trained)
