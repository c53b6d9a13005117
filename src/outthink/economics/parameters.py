"""How many weights a token passes through, by model name.

Knows: active parameters of a few models and FLOPs from them. Does not know a model's file; a name
that is not listed is unknown, never a guess from the size in its name.
"""

from __future__ import annotations

import re

# Output head included and a tied embedding counted once (docs/contracts.md, Counting), summed over the
# tensors of the GGUF files. The size must stand alone: 1.5b is not the end of 11.5b.
_ACTIVE = {
    r"smollm2[-_:. ]?135m": 134_515_008,
    r"qwen2[._]5[-_:. ]?coder[-_:. ]?0[._]5b": 494_032_768,
    r"qwen2[._]5[-_:. ]?coder[-_:. ]?1[._]5b": 1_543_714_304,
}
_PATTERNS = [(re.compile(rf"(?<![a-z0-9]){name}(?![a-z0-9])"), count) for name, count in _ACTIVE.items()]


def active_parameters(model: str) -> int | None:
    """Weights read per token; accepts trace stems, GGUF files, hub ids and Ollama names in any case.

    Only the last part of a path counts, so a folder named after a model does not lend its size to
    the files inside. None for a model that is not listed.
    """
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower()
    return next((count for pattern, count in _PATTERNS if pattern.search(name)), None)


def flops(parameters: int, tokens: int) -> float:
    """Floating-point operations of a forward pass over `tokens`: 2 x parameters x tokens."""
    return 2.0 * parameters * tokens
