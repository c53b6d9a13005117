"""A client that plays a workload on a real server, and what its streams tell of the server's steps.

Knows: the streams of vLLM and of llama.cpp, prompts as random tokens, calls in launch order with so many in flight, the
rest cancelled by closing their connections; and that every step hands a token to each call that writes, so that the
times of the tokens are the ends of the steps. Does not know what is predicted.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.economics.workload import Workload

_APART = 0.05  # seconds between tokens that belong to two steps

_MERGED = 8


@dataclass(frozen=True)
class StreamedServer:
    """A server, as its client sees it.

    Args:
        fields: of every request, beside the prompt and the number of tokens.
    """

    name: str
    port: int
    path: str
    length: str
    fields: dict[str, Any]
    key: str = "none"

    def request(self, prompt: list[int], output: int) -> bytes:
        """A whole HTTP request."""
        body = json.dumps({**self.fields, "prompt": prompt, self.length: output, "stream": True}).encode()
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        return head.encode() + body


@dataclass
class StreamedCall:
    """One call: seconds from the start of the run, NaN where it has not come to that."""

    launched: float = float("nan")
    finished: float = float("nan")
    tokens: list[float] = field(default_factory=list)


@dataclass
class PlayedRun:
    """What a real server has done with a workload."""

    workload: Workload
    calls: list[StreamedCall]
    closed: NDArray[np.float64]
    last: float

    @property
    def e2e(self) -> NDArray[np.float64]:
        """Seconds from arrival to the answer, of each group."""
        return np.asarray(self.closed - self.workload.arrival)


async def _stream(server: StreamedServer, prompt: list[int], output: int, call: StreamedCall, begin: float) -> None:
    """Raises ValueError where the server answers anything but the tokens that it was asked for."""
    call.launched = time.perf_counter() - begin
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    try:
        writer.write(server.request(prompt, output))
        if b" 200 " not in (status := await reader.readline()):
            raise ValueError(f"{server.name}: {status!r} {(await reader.read(2000))!r}")
        while line := await reader.readline():
            if not line.startswith(b"data: ") or b"[DONE]" in line:
                continue
            now = time.perf_counter() - begin
            event = json.loads(line[6:])
            if "choices" in event:
                event = event["choices"][0]
            call.tokens += [now] * len(event.get("token_ids") or event.get("tokens") or ())
            if event.get("stop") is True or event.get("finish_reason"):
                break
        if not call.tokens:
            raise ValueError(f"{server.name}: a stream without tokens")
        call.finished = call.tokens[-1]
    finally:
        writer.close()


async def _group(
    server: StreamedServer, workload: Workload, stage: int, calls: list[StreamedCall], begin: float
) -> float:
    """Play one group; returns when it had what it needs, NaN if the run was over before."""
    start, count = int(workload.starts[stage]), int(workload.sizes[stage])
    need, ahead = int(workload.need[stage]), int(workload.ahead[stage])
    random = np.random.default_rng((7, stage, int(1e3 * begin)))
    prompt = random.integers(1000, 40_000, int(workload.prompt[start])).tolist()
    running: dict[asyncio.Task[None], int] = {}
    done: set[int] = set()
    launched = 0
    await asyncio.sleep(begin + float(workload.arrival[stage]) - time.perf_counter())
    try:
        while not done.issuperset(range(need)):
            while launched < count and len(running) < ahead:
                at = start + launched
                work = _stream(server, prompt, int(workload.output[at]), calls[at], begin)
                running[asyncio.create_task(work)] = launched
                launched += 1
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
                done.add(running.pop(task))
        return time.perf_counter() - begin
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _play(server: StreamedServer, workload: Workload, until: float) -> PlayedRun:
    begin = time.perf_counter()
    calls = [StreamedCall() for _ in range(workload.stage.size)]
    tasks = [asyncio.create_task(_group(server, workload, stage, calls, begin)) for stage in range(len(workload))]
    _, late = await asyncio.wait(tasks, timeout=until if np.isfinite(until) else None)
    last = time.perf_counter() - begin
    for task in late:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [each for each in found if isinstance(each, Exception)]
    if failed:
        raise failed[0]
    closed = np.array([each if isinstance(each, float) else np.nan for each in found])
    return PlayedRun(workload, calls, closed, last)


def play(server: StreamedServer, workload: Workload, until: float = float("inf")) -> PlayedRun:
    """Play a workload of single stages, all of it or for so many seconds; what is left is cancelled."""
    return asyncio.run(_play(server, workload, until))


def steps(run: PlayedRun, budget: int, block: int) -> NDArray[np.float64]:
    """What the server's steps held, from the tokens of its calls.

    Args:
        budget: tokens that a step computes at most; steps that may have read part of a prompt are left out.
        block: tokens of a page of memory, whole pages of a prompt are read once a group.

    Returns rows of (sequences, contexts, prefill tokens, seconds) in the meaning of StepProfile.fit: sequences that end
    reading their prompt in the step are among the sequences, with one token each of what they read.
    """
    told = sorted((when, at) for at, call in enumerate(run.calls) for when in call.tokens)
    waves: list[tuple[float, set[int]]] = []
    previous = -1.0
    for when, at in told:
        if not waves or when - previous > _APART or at in waves[-1][1]:
            waves.append((when, set()))
        waves[-1][1].add(at)
        previous = when
    prompt, shared = run.workload.prompt, run.workload.shared // block * block
    reads = prompt - shared
    reads[run.workload.starts] = prompt[run.workload.starts]
    written = np.array([len(call.tokens) for call in run.calls])
    seen = np.zeros_like(written)
    rows: list[tuple[float, float, float, float]] = []
    before, inside, clean = 0.0, set[int](), False
    room = budget - int(prompt.max())
    for when, wrote in waves:
        fresh = {at for at in wrote if not seen[at]}
        read = sum(int(reads[at]) for at in fresh)
        # Where a whole prompt had found room beside what was computed, no other was begun.
        before_clean, clean = clean, read + len(inside) <= room
        known = clean and before_clean and inside and inside <= wrote
        for at in wrote:
            seen[at] += 1
        if known:
            contexts = sum(int(prompt[at] + seen[at] - 1) for at in inside)
            rows.append((len(wrote), contexts, read - len(fresh), when - before))
        inside = {at for at in inside | fresh if seen[at] < written[at]}
        before = when
    return np.array(rows).reshape(-1, 4)


def together(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steps of one episode, up to eight alike ones in a row as their mean.

    A client that is late for one step sees the next one too short; only sums of steps are not touched by that.
    """
    kinds = np.where(rows[:, 2] > 0, -1 - np.arange(len(rows)), rows[:, 0])
    starts = [0]
    for at in range(1, len(rows)):
        if kinds[at] != kinds[at - 1] or at - starts[-1] == _MERGED:
            starts.append(at)
    sizes = np.diff([*starts, len(rows)])
    return np.asarray(np.add.reduceat(rows, starts) / sizes[:, None])
