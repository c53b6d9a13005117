"""A full fine-tune as a low-rank difference to its base, small enough to ship.

Knows: the singular value decomposition of what each linear layer has learnt. Does not know data; whether
the difference is enough is measured afterwards, like any verifier.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from outthink.training.base import Shape, build, low_rank, require


def compress(model: Any, shape: Shape, rank: int) -> tuple[Any, float]:
    """A base with an adapter of this rank that comes nearest to a trained model, and the share it keeps.

    The share is that of the squared differences of all linear layers. What embeddings and norms have
    learnt is dropped; the output is kept whole.

    Args:
        model: all of whose weights were trained from `shape`.
    """
    torch, _ = require()
    base, _ = build(replace(shape, rank=None))
    trained = dict(model.cpu().named_modules())
    before = {name: part.weight.detach().clone() for name, part in base.named_modules() if hasattr(part, "weight")}
    adapted = low_rank(base, rank, alpha=rank)
    kept = whole = 0.0
    with torch.no_grad():
        for name, part in adapted.base_model.model.named_modules():
            if not hasattr(part, "lora_A"):
                continue
            u, s, v = torch.linalg.svd(trained[name].weight.detach().float() - before[name], full_matrices=False)
            size = min(rank, len(s))
            root = s[:size].sqrt()
            down, up = part.lora_A["default"].weight, part.lora_B["default"].weight
            down.zero_()
            up.zero_()
            down[:size] = root[:, None] * v[:size]
            up[:, :size] = u[:, :size] * root
            kept += float((s[:size] ** 2).sum())
            whole += float((s**2).sum())
        head = adapted.base_model.model.score.modules_to_save["default"]
        head.weight.copy_(model.score.weight)
        head.bias.copy_(model.score.bias)
    return adapted, kept / whole if whole else 1.0
