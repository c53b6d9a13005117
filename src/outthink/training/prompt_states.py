"""What a local model's layers hold at the end of a prompt, before it writes anything.

Knows: torch, chat templates, batches, and what reading the prompts costs. Does not know what is read off
the states (`outthink.evaluation.routing.probes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outthink.training.base import Model, Module, Tokenizer, active_parameters, locate, require, tokenizer_of
from outthink.verifiers.reward_model.checkpoint import load

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PromptStates:
    """Hidden states at the last token of each prompt.

    Args:
        states: (prompts, layers + 1, width), the embedding first.
        tokens: of each prompt, its chat template included.
        parameters: weights read per token by the whole model.
    """

    states: Floats
    tokens: npt.NDArray[np.int64]
    parameters: int

    def flops(self, layer: int) -> float:
        """Mean floating-point operations of reading a prompt up to a layer, 2 a weight and token."""
        share = layer / (self.states.shape[1] - 1)
        return float(2 * self.parameters * share * self.tokens.mean())


def prompt_states(
    prompts: Sequence[str],
    *,
    base: str = "embedded",
    batch: int = 16,
    limit: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> PromptStates:
    """Read each prompt as the user's message of a chat, up to where the answer would begin.

    Args:
        base: `embedded`, a model folder or GGUF file, or a hub name.
        batch: prompts read at once, of similar lengths.
        limit: tokens of a prompt; of a longer one the end is read.
        progress: called with (prompts read, prompts in all).

    Raises BadInput for a base that cannot be loaded, or where torch or transformers is missing.
    """
    torch, _ = require()
    tokenizer = tokenizer_of(base)
    model = load("AutoModel", locate(base), field="base", dtype=torch.float32).eval()
    ids = [_ids(tokenizer, prompt)[-limit:] for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    config = model.config
    states = np.empty((len(ids), config.num_hidden_layers + 1, config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        states[rows] = _read(torch, model, [ids[row] for row in rows])
        if progress is not None:
            progress(min(start + batch, len(order)), len(order))
    return PromptStates(states, np.array([len(tokens) for tokens in ids], dtype=np.int64), active_parameters(model))


def _ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Tokens of a chat whose answer is about to begin; the bare prompt where there is no template."""
    if tokenizer.chat_template is None:
        return list(tokenizer(prompt)["input_ids"]) or [0]  # an empty prompt has a state, too
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    # The template has written the special tokens already.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _read(torch: Module, model: Model, rows: list[list[int]]) -> Floats:
    """States at the last tokens of a batch, (rows, layers + 1, width); padding stands on the right, unseen."""
    longest = max(map(len, rows))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)], mask[line, : len(row)] = torch.tensor(row), 1
    with torch.inference_mode():
        layers = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    last = mask.sum(dim=1) - 1
    return np.asarray(torch.stack([layer[torch.arange(len(rows)), last] for layer in layers], dim=1).float().numpy())
