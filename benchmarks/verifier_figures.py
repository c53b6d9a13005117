"""What a verified vote costs and gains at equal FLOPs, and a trained verifier read back for bulk scoring.

Knows: FLOPs as 2 x parameters x tokens, nothing cached. Does not know training, files of samples or result tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outthink.training.base import BaseShape, build, require
from outthink.training.judgement import vote_row
from outthink.training.metrics import ScoredProblem, accuracies
from outthink.verifiers.reward_model.checkpoint import quietly
from outthink.verifiers.reward_model.opening import Artefact, read_artefact


def equal_flops(
    data: ScoredProblem, sizes: Sequence[int], *, policy: int, verifier: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Verified votes against majority with N samples, with as many samples as the same FLOPs pay for.

    Nothing is cached: the verifier reads question and solution of every sample. Samples are rounded down.
    """
    rows: list[dict[str, Any]] = []
    for n in sizes:
        if n > data.answers.shape[1]:
            continue
        fewer = affordable(data, n, policy, verifier)
        base = accuracies(data, n, methods=("majority",), seed=seed)["majority"]
        found = accuracies(data, fewer, methods=("weighted", "best_of_n"), seed=seed)
        for method, values in found.items():
            row = vote_row(method, fewer, values, base)
            spent = flops(data, fewer, policy, verifier)
            rows.append(
                {**row, "majority_n": n, "majority": float(base.mean()), "flops": spent}
                | {"majority_flops": flops(data, n, policy, None)}
            )
    return rows


def flops(data: ScoredProblem, n: float, policy: int, verifier: int | None) -> float:
    """Mean FLOPs of a problem with n samples: 2 x parameters x tokens.

    The policy reads the prompt and generates anew for each sample; the verifier, None for none, reads
    question and solution of each. Nothing is assumed to be cached.
    """
    each = 2.0 * policy * (data.prompt_tokens + data.tokens)
    if verifier is not None:
        each = each + 2.0 * verifier * data.read
    return float(n * each.mean())


def affordable(data: ScoredProblem, n: int, policy: int, verifier: int) -> int:
    """Samples that a verified vote may take for the FLOPs of n unverified ones, rounded down, at least 1."""
    return max(1, int(n * flops(data, 1, policy, None) / flops(data, 1, policy, verifier) + 1e-9))


def load_verifier(folder: Path, *, base: str | None = None) -> tuple[Any, Any, Artefact]:
    """The model (float32, on the CPU, adapter merged), its tokeniser and description, for bulk scoring.

    Args:
        base: where the base lies, if not where the description says.
    """
    torch, transformers = require()
    artefact = read_artefact(folder)
    if not artefact.adapter:
        with quietly():
            model = transformers.AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32)
            return model, transformers.AutoTokenizer.from_pretrained(folder), artefact
    import peft

    bare, tokenizer = build(BaseShape(base=base or artefact.base, layers=artefact.layers))
    with quietly():
        adapted = peft.PeftModel.from_pretrained(bare, str(folder)).float()
    return adapted.merge_and_unload(), tokenizer, artefact
