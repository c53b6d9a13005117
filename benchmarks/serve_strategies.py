"""Many clients at once over a real model: whether anybody starves, and whether budgets hold.

Measures: 50 clients, each with one question of its own for self-consistency over 32 samples of 16
tokens, all at once through `outthink serve --model embedded`. Forty have a token budget that fits all
samples, five one that fits about half of them, five a deadline of 45 seconds. Completion times are
those of the forty, which have equal work: a proxy that served in order of arrival would let the last
wait fifty times as long as the first. Every budget is checked against the receipt, and deadlines
against the client's own clock. Does not measure throughput: the small model on the processor is the
bottleneck. Needs the `local` and `serve` extras and the embedded model (`outthink pull`). Takes about
three minutes on two idle cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

import serve_servers as servers
from common import Table, load_average, parser, save, show, skip, target
from outthink.core.errors import OutthinkError
from outthink.engines.embedded import EmbeddedEngine

GRACE = 0.25
"""Seconds after a deadline within which an answer must be there."""


@dataclass(frozen=True)
class Client:
    """One client's wish."""

    kind: str
    tokens: int | None = None
    seconds: float | None = None

    @property
    def budget(self) -> dict[str, float]:
        """As it goes into the request."""
        told = {"tokens": self.tokens, "seconds": self.seconds}
        return {name: value for name, value in told.items() if value is not None}


def clients(count: int, samples: int, tokens: int, deadline: float) -> list[Client]:
    """A tenth with half of the tokens, a tenth with a deadline, the others with enough."""
    bound = 200 + tokens  # the prompt's upper bound before it has been counted, and a completion
    usual = 45 + tokens  # what a sample costs in fact
    few = max(1, count // 10)
    half = [Client("half the tokens", tokens=bound + usual * samples // 2)] * few
    late = [Client("deadline", seconds=deadline)] * few
    return [Client("enough", tokens=bound * samples)] * (count - 2 * few) + half + late


async def ask(session: aiohttp.ClientSession, url: str, at: int, client: Client, samples: int, tokens: int) -> Any:
    """One request and what came of it."""
    body = {
        "model": f"outthink/self-consistency@{samples}",
        "messages": [{"role": "user", "content": f"Client {at} asks: what is {17 + at} times {23 + at}?"}],
        "max_tokens": tokens,
        "seed": at,
        "outthink": {"budget": client.budget, "answer": "number"},
    }
    began = time.perf_counter()
    async with session.post(f"{url}/chat/completions", json=body) as reply:
        told = json.loads(await reply.read())
        took = time.perf_counter() - began
    row = {"client": at, "kind": client.kind, "status": reply.status, "seconds": took}
    if reply.status != 200:
        return row | {"stopped": str(told["error"]["message"])[:120], "samples": 0, "tokens": None, "held": False}
    receipt = told["outthink"]["receipt"]
    spent = receipt["tokens"] if receipt["tokens"] is not None else receipt["at_most"]["tokens"]
    held = client.tokens is None or (spent is not None and spent <= client.tokens)
    held = held and (client.seconds is None or took <= client.seconds + GRACE)
    done = sum(entry["status"] == "finished" for entry in receipt["entries"])
    return row | {"stopped": receipt["stopped"], "samples": done, "tokens": spent, "held": held}


async def everybody(url: str, wishes: list[Client], samples: int, tokens: int) -> Table:
    """All at once."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=1200)) as session:
        return list(
            await asyncio.gather(*(ask(session, url, at, one, samples, tokens) for at, one in enumerate(wishes)))
        )


def summed(rows: Table) -> Table:
    """One line for each kind of client."""
    lines: Table = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        these = [row for row in rows if row["kind"] == kind]
        times = np.array([row["seconds"] for row in these])
        lines.append(
            {
                "clients": kind,
                "number": len(these),
                "p50 s": float(np.percentile(times, 50)),
                "p99 s": float(np.percentile(times, 99)),
                "longest s": float(times.max()),
                "samples": float(np.mean([row["samples"] for row in these])),
                "tokens": float(np.mean([row["tokens"] or 0 for row in these])),
                "budgets held": sum(row["held"] for row in these),
            }
        )
    return lines


def main() -> int:
    """Measure, print, write."""
    options = parser(__doc__)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--samples", type=int, default=32)
    options.add_argument("--tokens", type=int, default=16, help="of a sample (default 16)")
    options.add_argument("--deadline", type=float, default=45.0, help="seconds, for those that have one (default 45)")
    chosen = options.parse_args()
    load = load_average()
    try:
        model = EmbeddedEngine().model
        wishes = clients(chosen.clients, chosen.samples, chosen.tokens, chosen.deadline)
        with servers.ours("embedded") as server:
            rows = asyncio.run(everybody(server.url, wishes, chosen.samples, chosen.tokens))
    except (OutthinkError, servers.Missing) as error:
        return skip(f"the embedded model cannot be served here: {error}")
    lines = summed(rows)
    show(f"{chosen.clients} clients at once, {chosen.samples} samples of {chosen.tokens} tokens, {model}", lines)
    enough = next(line for line in lines if line["clients"] == "enough")
    ratio = enough["p99 s"] / enough["p50 s"]
    said = f"{ratio:.2f} (p50 {enough['p50 s']:.0f} s, p99 {enough['p99 s']:.0f} s)"
    held = sum(row["held"] for row in rows)
    answered = sum(row["status"] == 200 for row in rows)
    save(
        "serve_strategies",
        settings={name: getattr(chosen, name) for name in ("clients", "samples", "tokens", "deadline")},
        targets=[
            target("p99/p50 of completion, clients with equal work", "< 4", said, ratio < 4),
            target("budgets held", "all", f"{held} of {len(rows)}", held == len(rows)),
            target("clients answered", "all", f"{answered} of {len(rows)}", answered == len(rows)),
        ],
        load_before=load,
        kinds=lines,
        requests=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
