"""What the proxy costs: throughput beside its peers, added latency, streams, memory and connections.

Measures, with one worker, a scripted backend and the load generator all on the same cores:
  throughput   closed loop at 32 and 100 connections: pass-through, one sample of a strategy, and
               self-consistency with eight samples, in eight calls and in one; its-hub and optillm beside
               it, each installed by this script into an environment of its own;
  latency      Poisson arrivals over 100 keep-alive connections, direct and through the proxy in turn;
  streams      64 concurrent ones: events a second, and how much later the first event comes;
  memory       the proxy's resident memory over 200,000 requests;
  leavers      10,000 clients that close their connection at a random moment, and what stays open.
Does not measure a real model (see serve_strategies.py) or a network. `--only PART` runs one part and
keeps the others' results. Needs the `serve` extra with uvloop. Takes about ten minutes on two idle
cores, most of it the peers' installation (once) and the 200,000 requests.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import uvloop

import serve_servers as servers
from common import RESULTS, Table, load_average, parser, save, show, target
from processes import processor_seconds, resident
from serve_backend import MODEL, backend, counts
from serve_load import Load, chat, closed_loop, leavers, many, open_loop, streams

PARTS = ("throughput", "latency", "streams", "memory", "leavers")
Part = tuple[Table, Table]
"""Rows of a table, and lines of the summary."""


def throughput(seconds: float) -> Part:
    """Closed loop."""
    rows: Table = []
    missing: Table = []
    for make in (servers.ours, servers.ours_after_doctor, servers.its_hub, servers.optillm):
        with backend() as behind, ExitStack() as stack:
            try:
                server = stack.enter_context(make(behind))
            except servers.Missing as error:
                missing.append({"server": make.__name__, "reason": str(error)})
                print(f"{make.__name__} is not measured: {error}", file=sys.stderr)
                continue
            loads: list[tuple[str, dict[str, Any], int]] = []
            if server.passing:
                loads += [("pass-through", server.passing, at) for at in (32, 100)]
            loads += [("self-consistency@8", server.eight, 32)] if server.eight else []
            loads += [("single", {"model": "outthink/single"}, 32)] if server.name == "outthink" else []
            for name, fields, connections in loads:
                used, before = processor_seconds(server.pid), counts(behind)["served"]
                load = uvloop.run(closed_loop(server.url, chat(server.url, **fields), connections, seconds))
                calls = counts(behind)["served"] - before
                cost = 1e6 * (processor_seconds(server.pid) - used) / max(1, calls)
                rows.append({**load.row(server.name, name, connections), "processor us a call": cost})
    show("closed loop", rows)
    return rows + missing, _throughput_targets(rows)


def _throughput_targets(rows: Table) -> Table:
    found = {(row["server"], row["load"], row["connections"]): row for row in rows}
    lines = []
    for connections in (32, 100):
        if (row := found.get(("outthink", "pass-through", connections))) is not None:
            rate = row["requests/s"]
            name = f"pass-through, closed loop, {connections} connections"
            lines.append(target(name, ">= 4,000/s", f"{rate:,.0f}/s, p99 {row['p99 ms']:.1f} ms", rate >= 4000))
    for name, load, factor in (
        ("outthink", "pass-through", 2.5),
        ("outthink", "self-consistency@8", 2.5),
        ("outthink, after doctor", "self-consistency@8", 2.5),
    ):
        mine, theirs = found.get((name, load, 32)), found.get(("its-hub", load, 32))
        if mine is not None and theirs is not None:
            ratio = mine["requests/s"] / theirs["requests/s"]
            said = f"{ratio:.2f}x ({mine['requests/s']:,.0f}/s and {theirs['requests/s']:,.0f}/s), "
            said += f"p99 {mine['p99 ms']:.1f} and {theirs['p99 ms']:.1f} ms"
            met = ratio >= factor and mine["p99 ms"] < theirs["p99 ms"]
            what = load + ("; the samples share a call" if "doctor" in name else "")
            lines.append(target(f"beside its-hub, {what}, 32 connections", f">= {factor}x, lower p99", said, met))
    mine, theirs = found.get(("outthink", "pass-through", 32)), found.get(("optillm", "pass-through", 32))
    if mine is not None and theirs is not None and theirs["requests/s"]:
        ratio = mine["requests/s"] / theirs["requests/s"]
        said = f"{ratio:.0f}x ({theirs['requests/s']:,.0f}/s, p50 {theirs['p50 ms']:,.0f} ms)"
        lines.append(target("beside optillm, pass-through, 32 connections", ">= 50x", said, ratio >= 50))
    return lines


def latency(seconds: float) -> Part:
    """Open loop, five pairs."""
    rows: Table = []
    with backend() as behind, servers.ours(behind) as server:
        loads: dict[str, Callable[[int], Load]] = {
            name: lambda seed, url=url: uvloop.run(open_loop(url, chat(url, MODEL), 100, 500, seconds, seed))
            for name, url in (("direct", behind), ("outthink", server.url))
        }
        for load in loads.values():
            load(0)
        for seed in range(1, 6):
            direct, through = loads["direct"](seed), loads["outthink"](seed)
            rows.append(
                {
                    "run": seed,
                    "direct p50 ms": direct.at(50),
                    "outthink p50 ms": through.at(50),
                    "added p50 ms": through.at(50) - direct.at(50),
                    "direct p99 ms": direct.at(99),
                    "outthink p99 ms": through.at(99),
                    "added p99 ms": through.at(99) - direct.at(99),
                    "requests": through.requests,
                    "errors": through.errors,
                }
            )
    show("open loop, 500 requests a second over 100 connections", rows)
    lines = []
    for percent, limit in ((50, 1.5), (99, 10.0)):
        found = statistics.median(row[f"added p{percent} ms"] for row in rows)
        name = f"added p{percent}, Poisson arrivals, 500/s (median of five)"
        lines.append(target(name, f"< {limit:g} ms", f"{found:.2f} ms", found < limit))
    return rows, lines


def streaming(seconds: float) -> Part:
    """64 streams, at the rate that is asked for and at half of it, and one alone."""
    rows: Table = []
    for name, pause, connections in (("64 streams", 0.003, 64), ("64 slower", 0.006, 64), ("1 stream", 0.003, 1)):
        with backend(events=200, pause=pause) as behind, servers.ours(behind) as server:
            for way, url in (("direct", behind), ("outthink", server.url)):
                found = uvloop.run(streams(url, chat(url, MODEL, stream=True), connections, seconds))
                row = {"streams": name, "way": way, "events/s": found.events, "errors": found.errors}
                rows.append(row | {f"first p{at} ms": _percentile(found.first, at) for at in (50, 99)})
    show("streams of 200 tokens", rows)
    rate, delay = rows[1]["events/s"], rows[1]["first p50 ms"] - rows[0]["first p50 ms"]
    return rows, [
        target("events a second through one worker, 64 streams", ">= 15,000/s", f"{rate:,.0f}/s", rate >= 15000),
        target("first event delayed, the same 64 streams, median", "< 5 ms", f"{delay:.2f} ms", delay < 5),
    ]


def _percentile(values: Any, at: float) -> float:
    return Load(0, 1.0, values).at(at)


def memory(requests: int) -> Part:
    """Resident memory from a tenth of the requests on."""
    rows: Table = []
    with backend() as behind, servers.ours(behind) as server:
        request, step = chat(server.url, MODEL), requests // 10
        for part in range(11):  # the first is the warm-up
            failed = uvloop.run(many(server.url, request, 100, step))
            rows.append({"requests": (part + 1) * step, "MB": resident(server.pid) / 1e6, "failed": failed})
    show("memory of the proxy", rows)
    growth = rows[-1]["MB"] / rows[0]["MB"] - 1
    said = f"{100 * growth:+.1f} % ({rows[0]['MB']:.0f} to {rows[-1]['MB']:.0f} MB)"
    name = f"growth of memory over {requests:,} requests after {step:,}"
    return rows, [target(name, "< 5 %", said, growth < 0.05)]


def leaving(count: int) -> Part:
    """Random disconnects, whole and streamed, passed through and under a strategy."""
    with backend(pause=0.004) as behind, servers.ours(behind) as server:
        url = server.url
        requests = [
            chat(url, MODEL),
            chat(url, MODEL, stream=True),
            chat(url, "outthink/self-consistency@4"),
            chat(url, "outthink/single", stream=True),
        ]
        uvloop.run(many(url, requests[0], 32, 320))
        opened, sockets = _rest(server.pid, behind)
        uvloop.run(leavers(url, requests, count, 64, 0.04, 1))
        time.sleep(0.3)
        busy = counts(behind)["open"]
        after, left = _rest(server.pid, behind)
        row = {
            "left": count,
            "backend connections before": opened,
            "0.3 s after": busy,
            "10 s after": after,
            "sockets of the proxy before": sockets,
            "sockets after": left,
            "answers afterwards": 64 - uvloop.run(many(url, requests[0], 32, 64)),
        }
    show("clients that leave", [row])
    leaked = max(0, after - opened) + max(0, left - sockets)
    said = f"{leaked} (connections at the backend and sockets of the proxy)"
    return [row], [target(f"leaked connections after {count:,} clients that left", "0", said, leaked == 0)]


def _rest(pid: int, behind: str) -> tuple[int, int]:
    """Connections at the backend and sockets of the proxy at rest: the fewest of ten seconds.

    Idle connections are closed after four seconds, and a health check opens one now and then.
    """
    seen = []
    for _ in range(20):
        time.sleep(0.5)
        seen.append((counts(behind)["open"], _sockets(pid)))
    return min(one for one, _ in seen), min(one for _, one in seen)


def _sockets(pid: int) -> int:
    found = 0
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:")
        except FileNotFoundError:
            continue
    return found


def _before(only: list[str]) -> tuple[dict[str, Table], dict[str, Table]]:
    """Tables and summary lines of the parts that are not measured now."""
    file = RESULTS / "serve.json"
    if set(only) == set(PARTS) or not file.exists():
        return {}, {}
    known = json.loads(file.read_text())
    kept = [part for part in PARTS if part not in only and part in known]
    return {part: known[part] for part in kept}, {part: known["summary"][part] for part in kept}


def main() -> int:
    """Measure, print, write."""
    options = parser(__doc__)
    options.add_argument("--only", action="append", choices=PARTS, help="measure this part alone; may be repeated")
    options.add_argument("--seconds", type=float, default=10.0, help="of each load (default 10)")
    options.add_argument("--requests", type=int, default=200_000, help="for memory (default 200000)")
    options.add_argument("--leave", type=int, default=10_000, help="clients that leave (default 10000)")
    chosen = options.parse_args()
    only = chosen.only or list(PARTS)
    load = load_average()
    tables, lines = _before(only)
    measures: dict[str, Callable[[], Part]] = {
        "throughput": lambda: throughput(chosen.seconds),
        "latency": lambda: latency(chosen.seconds),
        "streams": lambda: streaming(chosen.seconds),
        "memory": lambda: memory(chosen.requests),
        "leavers": lambda: leaving(chosen.leave),
    }
    for part in only:
        tables[part], lines[part] = measures[part]()
    save(
        "serve",
        settings={name: getattr(chosen, name) for name in ("seconds", "requests", "leave")} | {"measured now": only},
        targets=[line for part in PARTS for line in lines.get(part, [])],
        load_before=load,
        **{part: tables[part] for part in PARTS if part in tables},
        summary=lines,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
