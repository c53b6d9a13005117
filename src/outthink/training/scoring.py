"""Scores many solutions at once, for evaluation.

Knows: batches sorted by length and the logits at step ends. Does not know votes; single requests are
scored by `verifiers/reward_model`, with a prefix cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from outthink.core.errors import EngineError
from outthink.training.base import require
from outthink.training.batches import micro_batches
from outthink.training.examples import Examples
from outthink.training.loop import Dtype, autocast, device_of, micro_tokens, moved

Floats = npt.NDArray[np.float32]


def step_logits(
    model: Any,
    examples: Examples,
    *,
    device: str | None = None,
    dtype: Dtype = "auto",
    micro: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Floats]:
    """The logit at each step end of each example, in the examples' order. EngineError for one that is NaN."""
    torch, _ = require()
    where = device_of(device)
    model = model.to(where).eval()
    found: list[Floats] = [np.zeros(0, np.float32)] * len(examples)
    batches = micro_batches(examples.lengths, 4 * micro_tokens(where, micro))
    began, tokens, told = time.monotonic(), 0, time.monotonic()
    with torch.no_grad():
        for number, chosen in enumerate(batches):
            ids, _, _, lengths = examples.batch(chosen)
            with autocast(where, dtype):
                logits = model(input_ids=moved(ids, where), use_cache=False).logits
            values = logits[..., 0].float().cpu().numpy()
            for place, steps in zip(chosen.tolist(), examples.step_scores(values, chosen), strict=True):
                found[place] = steps
            tokens += int(lengths.sum())
            if time.monotonic() - told > 10:
                told = time.monotonic()
                say(f"scored {number + 1}/{len(batches)} batches, {tokens / (told - began):,.0f} tokens/s")
    if not all(np.isfinite(steps).all() for steps in found):
        raise EngineError("the model gives scores that are no numbers", fatal=True)
    return found


def probabilities(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Scores between 0 and 1: the logistic function of logit / temperature."""
    return 1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64) / temperature))
