"""Chunks that came together as fewer chunks: tokens of one text that nobody looks at one by one.

Knows: which chunks hold nothing but text and its log-probabilities. Everything else is left as it came.
"""

from __future__ import annotations

from typing import Any

_PLAIN = frozenset({"index", "delta", "finish_reason", "logprobs"})
_BESIDE = ("usage", "timings", "error")

Chunk = dict[str, Any]


def merged(chunks: list[Chunk]) -> tuple[list[Chunk], int]:
    """The chunks, runs of plain text made one, and how many held text before."""
    if len(chunks) < 2:
        return chunks, len(chunks)
    found: list[Chunk] = []
    texts: list[str] = []
    entries: list[Any] = []
    last: Chunk | None = None
    count = 0
    for chunk in chunks:
        choice = _plain(chunk)
        if choice is None:
            if last is not None:
                found.append(_joined(last, texts, entries))
                texts, entries, last = [], [], None
            found.append(chunk)
            continue
        told = choice.get("logprobs")
        some = told.get("content") if told is not None else None
        if last is not None and bool(some) != bool(entries):  # counted differently, so not to be mixed
            found.append(_joined(last, texts, entries))
            texts, entries = [], []
        texts.append(choice["delta"]["content"])
        if some:
            entries += some
        last, count = chunk, count + 1
    if last is not None:
        found.append(_joined(last, texts, entries))
    return found, count


def _plain(chunk: Chunk) -> dict[str, Any] | None:
    """The choice of a chunk that holds text and nothing that could matter besides."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1:
        return None
    choice = choices[0]
    if type(choice) is not dict or choice.get("finish_reason") is not None or not choice.keys() <= _PLAIN:
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1 or type(delta.get("content")) is not str or not delta["content"]:
        return None
    told = choice.get("logprobs")
    if told is not None and (type(told) is not dict or type(told.get("content")) is not list):
        return None
    for name in _BESIDE:
        if chunk.get(name) is not None:
            return None
    return choice if choice.get("index") in (0, None) else None


def _joined(chunk: Chunk, texts: list[str], entries: list[Any]) -> Chunk:
    """The last chunk with the text of all."""
    choice = chunk["choices"][0]
    told = {**choice["logprobs"], "content": entries} if entries else choice.get("logprobs")
    return {**chunk, "choices": [{**choice, "delta": {"content": "".join(texts)}, "logprobs": told}]}
