"""Reuses finished samples of earlier runs.

Knows: what makes two calls the same. Does not know strategies: a hit is a vote that costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from outthink.core.paths import cache_dir
from outthink.core.sample import Sample
from outthink.engines.protocol import Call
from outthink.session.store import SampleStore


def call_key(engine: str, call: Call) -> str:
    """Hash of engine and model, messages, prefix, sampling parameters, seed and sample number."""
    content = {
        "engine": engine,
        "messages": [message.wire() for message in call.messages],
        "prefix": call.prefix,
        "sampling": asdict(call.sampling),
        "seed": call.seed,
        "sample": call.index,
        "top_logprobs": call.top_logprobs,
        "problem": call.problem,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class ResponseCache:
    """Samples of one engine in a store; `engine` names it together with its model."""

    def __init__(self, store: SampleStore, engine: str) -> None:
        self.store, self.engine = store, engine

    @classmethod
    def default(cls, engine: str) -> ResponseCache:
        """The cache in the user's cache folder."""
        return cls(SampleStore(default_path()), engine)

    def get(self, call: Call) -> Sample | None:
        """The sample this call gave before."""
        return self.store.get(call_key(self.engine, call))

    def put(self, call: Call, sample: Sample) -> None:
        """Keep a finished sample."""
        self.store.put(call_key(self.engine, call), sample)

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def default_path() -> Path:
    """Where the response cache lies."""
    return cache_dir() / "responses.sqlite"
