"""What is known about a server and its model. Knows values and when each was learnt; knows no file.

Nothing here is configured: it comes from refusals, from what replies contain, and from `doctor`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Facts:
    """None means not found out yet.

    Args:
        refused: request parameters that the server does not accept.
        length_name: the parameter that caps a completion (`max_tokens` or `max_completion_tokens`).
        top_k_off: how top-k is switched off: 0, or -1 for servers that refuse 0.
        logprobs: log-probabilities of the chosen tokens come back.
        top_logprobs: how many alternatives come back at most.
        top_logprobs_limit: more than this is refused.
        prefix: a partial assistant message is continued.
        repeats: the reply repeats that partial message.
        seed: the same seed gave the same completion.
        tokenizer: `vllm`, `llama.cpp` or `none`: whose `/tokenize` the server has.
        counts_chats: that `/tokenize` (or `/apply-template`) takes messages too.
        n: `n` > 1 gives that many choices.
        usage_sums: with `n` > 1, `usage` counts all choices and not one.
    """

    refused: set[str] = field(default_factory=set)
    length_name: str | None = None
    top_k_off: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    top_logprobs_limit: int | None = None
    prefix: bool | None = None
    repeats: bool | None = None
    seed: bool | None = None
    tokenizer: str | None = None
    counts_chats: bool | None = None
    n: bool | None = None
    usage_sums: bool | None = None
    learnt: dict[str, float] = field(default_factory=dict, repr=False)
    """When each of them was found out, in seconds since the epoch; `refused:NAME` for refusals."""
    changed: bool = field(default=False, repr=False, compare=False)
    """Something was learnt that has not been remembered yet."""
    now: Callable[[], float] = field(default=time.time, repr=False, compare=False)

    def learn(self, *, again: bool = False, **values: Any) -> None:
        """Note values. Known ones keep their date, so that limitations expire, unless tried `again`."""
        for name, value in values.items():
            if getattr(self, name) != value or again:
                setattr(self, name, value)
                self.learnt[name] = self.now()
                self.changed = True

    def refuse(self, name: str) -> None:
        """Note a parameter that must not be sent any more."""
        if name not in self.refused:
            self.refused.add(name)
            self.learnt[f"refused:{name}"] = self.now()
            self.changed = True
