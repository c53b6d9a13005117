"""What a server can do, found out with a few cheap calls: the logic of `outthink doctor URL`.

Knows: which question to put and how to read the answer. Does not know how to print it. What it finds
goes into the engine's facts, so that later runs start with them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from outthink.core.errors import EngineError
from outthink.engines.openai import probes
from outthink.engines.openai.engine import OpenAIEngine
from outthink.engines.openai.listening import Heard
from outthink.engines.openai.report import Finding, Report
from outthink.engines.openai.transport import TransportFault

MOST_REQUESTS = 12
Probe = Callable[[OpenAIEngine, Heard], Awaitable[list[Finding]]]

_PROBES: tuple[tuple[Probe, int, tuple[str, ...]], ...] = (
    (probes.tokenizer, 3, ("tokenizer", "prompt counts")),
    (probes.prefix, 1, ("prefix", "prefix repeated")),
    (probes.choices, 1, ("n", "usage sums choices")),
    (probes.seed, 2, ("seed",)),
    (probes.cancellation, 1, ("cancellation",)),
)
_NAMES = ("reachable", "models", *probes.COMPLETION, *(name for _, _, names in _PROBES for name in names))


async def examine(engine: OpenAIEngine) -> Report:
    """Examine a server with at most 12 requests of at most 16 tokens each.

    Raises:
        EngineError: the server cannot be reached at all.
    """
    started, before = time.monotonic(), engine.server.sent
    found = [Finding("reachable", "yes", engine.url), await _models(engine)]
    why = "no model to ask" if engine.model == engine.url else ""
    first = None
    if not why:
        try:
            first = await probes.listen_first(engine)
        except EngineError as error:
            if isinstance(error.__cause__, TransportFault) and error.__cause__.kind in ("connect", "tls"):
                raise
            why = str(error)
    if first is not None:
        found += probes.completion(engine, first)
        for probe, needs, names in _PROBES:
            if engine.server.sent - before + needs > MOST_REQUESTS:
                found += [Finding(name, "unknown", f"{MOST_REQUESTS} requests were used up") for name in names]
                continue
            try:
                found += await probe(engine, first)
            except EngineError as error:
                found += [Finding(name, "unknown", str(error)) for name in names]
    have = {finding.name for finding in found}
    found += [Finding(name, "unknown", why) for name in _NAMES if name not in have]
    engine.save()
    return Report(engine.url, engine.model, tuple(found), engine.server.sent - before, time.monotonic() - started)


async def _models(engine: OpenAIEngine) -> Finding:
    """The server's list; also settles the engine's model. Raises where nothing answers."""
    try:
        listed = await engine.begin_anew()
    except EngineError as error:
        if isinstance(error.__cause__, TransportFault):
            raise
        return Finding("models", "unknown", str(error))
    if listed is None:
        return Finding("models", "no", f"no list; asking for {engine.model!r}")
    shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
    missing = f"; {engine.model!r} is not among them" if engine.model not in listed else ""
    return Finding("models", "yes", shown + missing)
