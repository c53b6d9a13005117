"""What a session costs on top of a bare HTTP loop that sends the same requests.

Measures, at 32 requests in flight, in alternating pairs of self-consistency through a Session and a
bare httpx2 loop which sends the same bodies, streams the replies and parses every event:
  a. extra processor time of this process a sample, with a scripted server in another process (20
     tokens with log-probabilities): a token every 3 ms and lengths of 10 to 30, as a model does it;
     one by one without pause; and all at once, so that 32 replies end in the same instant. The
     server's time is not counted;
  b. wall time with the embedded engine (32 slots, one server process for both sides, 16 tokens a
     sample, prompt already read): the ratio of each pair, and its median.
Does not measure the first request, a new prompt, or the network. (b) needs the `local` extra and the
embedded model (`outthink pull`), and is skipped without. Takes about three minutes on two idle cores.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from common import Table, load_average, parser, save, show, target
from loopback import loopback
from outthink.client import ask
from outthink.core.errors import EngineError
from outthink.core.request import Request, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.openai import OpenAIEngine
from outthink.engines.openai.body import body
from outthink.engines.protocol import Call, Engine

IN_FLIGHT = 32
WRITTEN: dict[str, dict[str, Any]] = {
    "every 3 ms": {"delay": 0.003, "spread": True},
    "one by one": {"alone": True},
    "all at once": {},
}
Side = Callable[[], Awaitable[int]]


async def through_session(engine: Engine, request: Request, samples: int) -> int:
    """Self-consistency over so many samples; returns the generated tokens."""
    result = await ask(
        request.messages,
        model=engine,
        strategy=f"self-consistency:n={samples}",
        answer=request.answer,
        max_tokens=request.sampling.max_tokens,
        temperature=request.sampling.temperature,
        seed=request.seed,
    )
    entries = result.receipt.entries
    assert len(entries) == samples, f"{len(entries)} calls instead of {samples}"
    assert all(entry.status == "finished" for entry in entries), {entry.error for entry in entries}
    return sum(entry.completion_tokens or 0 for entry in entries)


async def bare(client: httpx2.AsyncClient, url: str, key: str | None, bodies: list[dict[str, Any]], close: bool) -> int:
    """The same requests with nothing around them: send, stream, split, parse, join. Returns the tokens."""
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    headers |= {"authorization": f"Bearer {key}"} if key else {}
    headers |= {"connection": "close"} if close else {}
    waiting = iter(bodies)
    tokens = 0

    async def work() -> None:
        nonlocal tokens
        for sent in waiting:
            text: list[str] = []
            rest = b""
            content = json.dumps(sent).encode()
            async with client.stream("POST", f"{url}/chat/completions", content=content, headers=headers) as reply:
                assert reply.status_code == 200, reply.status_code
                async for piece in reply.aiter_raw():
                    *events, rest = (rest + piece).split(b"\n\n")
                    for event in events:
                        if event.startswith(b"data: ") and event != b"data: [DONE]":
                            chunk = json.loads(event[6:])
                            text += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
                            usage = chunk.get("usage") if not chunk["choices"] else None
                            tokens += usage["completion_tokens"] if usage else 0
            "".join(text)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return tokens


async def clocked(side: Side) -> tuple[float, float, int]:
    """Wall seconds, processor seconds of this process, and generated tokens."""
    began, used = time.perf_counter(), time.process_time()
    tokens = await side()
    return time.perf_counter() - began, time.process_time() - used, tokens


async def alternate(first: Side, second: Side, pairs: int) -> list[tuple[tuple[float, float, int], ...]]:
    """Pairs of measurements (first, second), every other one taken in reverse order."""
    await first()
    await second()
    measured = []
    for pair in range(pairs):
        if pair % 2:
            later = await clocked(second)
            measured.append((await clocked(first), later))
        else:
            measured.append((await clocked(first), await clocked(second)))
    return measured


def requests(model: str, request: Request, samples: int, facts: Any) -> list[dict[str, Any]]:
    """The bodies that the session sends."""
    assert request.seed is not None
    return [
        body(Call(request.messages, request.sampling, request.seed + i, i, None, 0), model, facts)
        for i in range(samples)
    ]


async def processor_time(pairs: int, samples: int, written: str) -> Table:
    """Part (a) for one way of writing."""
    request = Request.of("What is 17 * 23?", answer="number", sampling=Sampling(max_tokens=64), seed=1)
    with loopback(**WRITTEN[written]) as url:
        engine = OpenAIEngine(url, concurrency=IN_FLIGHT, memory=None)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=IN_FLIGHT)
        async with httpx2.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
            await through_session(engine, request, IN_FLIGHT)
            bodies = requests(engine.model, request, samples, engine.facts)
            measured = await alternate(
                lambda: through_session(engine, request, samples), lambda: bare(client, url, None, bodies, False), pairs
            )
        await engine.aclose()
    return [
        {
            "written": written,
            "session ms": 1000 * ours[1] / samples,
            "bare ms": 1000 * theirs[1] / samples,
            "extra ms": 1000 * (ours[1] - theirs[1]) / samples,
        }
        for ours, theirs in measured
    ]


async def wall_time(pairs: int) -> Table:
    """Part (b)."""
    sampling = Sampling(max_tokens=16)
    request = Request.of("Tell me a very long story about a river.", sampling=sampling, seed=1)
    engine = EmbeddedEngine(concurrency=IN_FLIGHT, context=128)
    try:
        await engine.prepare(Call(request.messages, sampling))
        assert engine._server is not None
        child, client_engine, _ = engine._server
        bodies = requests(engine.model, request, IN_FLIGHT, client_engine.facts)
        async with httpx2.AsyncClient(timeout=300, trust_env=False) as client:
            measured = await alternate(
                lambda: through_session(engine, request, IN_FLIGHT),
                lambda: bare(client, child.url, child.key, bodies, True),
                pairs,
            )
        assert engine._server.child is child, "the server was restarted in between"
    finally:
        await engine.aclose()
    return [
        {
            "session s": ours[0],
            "bare s": theirs[0],
            "ratio": round(ours[0] / theirs[0], 3),
            "session tokens": ours[2],
            "bare tokens": theirs[2],
        }
        for ours, theirs in measured
    ]


def main() -> int:
    """Measure both, print, write."""
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=15, help="alternating pairs (default 15)")
    options.add_argument("--samples", type=int, default=320, help="samples on each side of a pair in (a)")
    chosen = options.parse_args()
    load = load_average()
    processor: Table = []
    lines = []
    for written in WRITTEN:
        rows = asyncio.run(processor_time(chosen.pairs, chosen.samples, written))
        processor += rows
        extra = statistics.median(row["extra ms"] for row in rows)
        name = f"extra processor time a sample, server writes {written}"
        lines.append(target(name, "0.5 ms", f"{extra:.2f} ms (median of {len(rows)} pairs)", extra <= 0.5))
    show("processor time a sample at 32 in flight", processor)
    wall: Table = []
    try:
        wall = asyncio.run(wall_time(chosen.pairs))
    except EngineError as error:
        print(f"the embedded part is skipped: {error}", file=sys.stderr)
    else:
        show("wall time of 32 samples of 16 tokens at 32 in flight, embedded engine", wall)
        ratio = statistics.median(row["ratio"] for row in wall)
        found = f"{100 * (ratio - 1):+.1f} % (median of {len(wall)} pairs)"
        lines.append(target("wall time with the embedded engine, against a bare loop", "+5 %", found, ratio <= 1.05))
    save(
        "overhead",
        settings={"in flight": IN_FLIGHT, "pairs": chosen.pairs, "samples a side in (a)": chosen.samples},
        targets=lines,
        load_before=load,
        processor_time=processor,
        wall_time=wall,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
