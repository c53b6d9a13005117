"""What is known about a server and its model, and the small JSON file that remembers it.

Nothing here is configured: it comes from refusals, from what replies contain, and from `doctor`. Knows values, when
each was learnt and when it expires; does not know what a fact means for a request. Files hold no key, prompt or text.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from outthink.http.events import Json


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

    def learn(self, *, again: bool = False, **values: Json) -> None:
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


EXPIRES = 7 * 86_400.0
"""Seconds after which a fact must be found out again: servers are upgraded and restarted with other flags."""

_TYPES: dict[str, type] = {
    "length_name": str,
    "top_k_off": int,
    "logprobs": bool,
    "top_logprobs": int,
    "top_logprobs_limit": int,
    "prefix": bool,
    "repeats": bool,
    "seed": bool,
    "tokenizer": str,
    "counts_chats": bool,
    "n": bool,
    "usage_sums": bool,
}


def file_for(folder: Path, url: str, model: str) -> Path:
    """The file of one URL (without user, password and query) and model."""
    name = hashlib.sha256(f"{url}\n{model}".encode()).hexdigest()[:20]
    return folder / f"{name}.json"


def recall(path: Path, *, now: Callable[[], float] = time.time) -> Facts:
    """The facts of a file that are still fresh. A missing or corrupt file is an empty one."""
    facts = Facts(now=now)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return facts
    values, learnt = (stored.get(key) for key in ("facts", "learnt")) if isinstance(stored, dict) else (None, None)
    if not isinstance(values, dict) or not isinstance(learnt, dict):
        return facts

    def fresh(key: str) -> bool:
        at = learnt.get(key)
        return isinstance(at, int | float) and 0 <= now() - at < EXPIRES

    for name, kind in _TYPES.items():
        if type(values.get(name)) is kind and fresh(name):
            setattr(facts, name, values[name])
            facts.learnt[name] = learnt[name]
    refused = values.get("refused")
    for name in refused if isinstance(refused, list) else ():
        if isinstance(name, str) and fresh(key := f"refused:{name}"):
            facts.refused.add(name)
            facts.learnt[key] = learnt[key]
    return facts


def remember(path: Path, facts: Facts, url: str, model: str) -> None:
    """Write the file, whole or not at all. A disk that refuses costs only the memory."""
    facts.changed = False
    known = asdict(facts)
    values = {name: known[name] for name in _TYPES if known[name] is not None}
    values["refused"] = sorted(facts.refused)
    text = json.dumps({"url": url, "model": model, "facts": values, "learnt": facts.learnt}, indent=1)
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, path)
    except OSError:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)
