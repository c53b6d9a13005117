"""A scripted chat server that costs next to nothing, in a process of its own.

Knows: one answer, once or in `n` choices, whole or as a stream of tokens, and how many connections are open. It speaks
just enough HTTP/1.1 for the proxies that are measured. Does not know any of them.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODEL = "toy"
TOKENS = ("The", " answer", " is", " \\boxed{", "391", "}", ".")
_PROMPT = 12


def _reply(body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind, len(body), body)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _usage(completion: int) -> dict[str, int]:
    return {"prompt_tokens": _PROMPT, "completion_tokens": completion, "total_tokens": _PROMPT + completion}


def _entries(text: str) -> list[dict[str, Any]]:
    return [{"token": text, "logprob": -0.25, "top_logprobs": []}]


def _whole(logprobs: bool, choices: int) -> bytes:
    message = {"role": "assistant", "content": "".join(TOKENS)}
    told = {"content": [entry for text in TOKENS for entry in _entries(text)]} if logprobs else None
    rows = [{"index": at, "message": message, "finish_reason": "stop", "logprobs": told} for at in range(choices)]
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL}
    return _reply(_json({**head, "choices": rows, "usage": _usage(choices * len(TOKENS))}))


def _event(delta: dict[str, Any], finish: str | None, entries: list[Any] | None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": entries and {"content": entries}}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + _json(value) + b"\n\n"


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def _events(logprobs: bool, many: int, choices: int = 1) -> list[bytes]:
    """Events of a stream: `many` tokens, or the answer's own; those of several choices take turns."""
    texts = [TOKENS[at % len(TOKENS)] for at in range(many or len(TOKENS))]
    entries = [_entries(text) if logprobs else None for text in texts]
    events = [_event({"role": "assistant", "content": ""}, None, None, at) for at in range(choices)]
    for text, entry in zip(texts, entries, strict=True):
        events += [_event({"content": text}, None, entry, at) for at in range(choices)]
    events += [_event({}, "stop", None, at) for at in range(choices)]
    last = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": _usage(choices * len(texts))}
    events.append(b"data: " + _json(last))
    events[-1] += b"\n\ndata: [DONE]\n\n"
    return events


_N = re.compile(rb'"n":(\d+)')
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


class _Server:
    """Counts, and what is answered."""

    def __init__(self, events: int, pause: float) -> None:
        self.open = self.served = 0
        self.pause = pause
        self._events, self._made = events, dict[tuple[bool, int], list[bytes]]()
        self._wholes: dict[tuple[bool, int], bytes] = {}
        self.models = _reply(_json({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))

    def stream(self, logprobs: bool, choices: int) -> list[bytes]:
        """The chunks of a stream, made once."""
        key = logprobs, choices
        if key not in self._made:
            self._made[key] = [_chunk(event) for event in _events(logprobs, self._events, choices)]
            if not self.pause:
                self._made[key] = [_HEAD + b"".join(self._made[key]) + _END]
        return self._made[key]

    def whole(self, logprobs: bool, choices: int) -> bytes:
        """A reply that comes at once, made once."""
        key = logprobs, choices
        if key not in self._wholes:
            self._wholes[key] = _whole(logprobs, choices)
        return self._wholes[key]

    def counts(self) -> bytes:
        """Open connections, this one left out, and chats so far."""
        return _reply(_json({"open": self.open - 1, "served": self.served}))


class _Connection(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport
        self._server.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open -= 1
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        at = head.lower().find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        server, body = self._server, rest[:length].replace(b" ", b"")
        if head.startswith(b"GET"):
            self._transport.write(server.counts() if b"/counts" in head else server.models)
            return
        server.served += 1
        asked = _N.search(body)
        wanted = b'"logprobs":true' in body, int(asked[1]) if asked else 1
        if b'"stream":true' not in body:
            if server.pause:
                self._task = asyncio.get_running_loop().create_task(self._late(server.whole(*wanted)))
            else:
                self._transport.write(server.whole(*wanted))
            return
        chunks = server.stream(*wanted)
        if server.pause:
            self._task = asyncio.get_running_loop().create_task(self._stream(chunks))
        else:
            self._transport.write(chunks[0])

    async def _late(self, reply: bytes) -> None:
        await asyncio.sleep(self._server.pause * len(TOKENS))
        self._transport.write(reply)

    async def _stream(self, chunks: list[bytes]) -> None:
        self._transport.write(_HEAD)
        for chunk in chunks:
            self._transport.write(chunk)
            await asyncio.sleep(self._server.pause)
        self._transport.write(_END)


def serve(events: int, pause: float) -> None:
    """Answer until killed."""
    import uvloop

    async def run() -> None:
        server = _Server(events, pause)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0, backlog=1024)
        print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", flush=True)
        await listening.serve_forever()

    uvloop.run(run())


@contextmanager
def backend(*, events: int = 0, pause: float = 0.0) -> Iterator[str]:
    """The URL of a running server.

    Args:
        events: tokens of a stream, 0 for those of the answer.
        pause: seconds after each of them; 0 writes the whole reply at once.
    """
    code = f"import serve_backend; serve_backend.serve({events}, {pause})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def counts(url: str) -> dict[str, int]:
    """Open connections and chats so far."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/counts", timeout=10) as reply:
        told: dict[str, int] = json.load(reply)
    return told
