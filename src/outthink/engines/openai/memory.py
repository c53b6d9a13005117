"""Where facts about servers outlive the process: one small JSON file a URL and model.

Knows: paths, expiry and atomic writing. Does not know what a fact means. Holds no key, prompt or text.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outthink.engines.openai.facts import Facts

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
    values: dict[str, Any] = {name: value for name in _TYPES if (value := getattr(facts, name)) is not None}
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
