"""A scripted chat server on loopback: it answers as told, records what was asked and who hung up.

Knows HTTP/1.1 as far as these tests need it, and the OpenAI layout of chunks. Does not know any model.
Runs in a thread with an event loop of its own, so that tests may use `asyncio.run` as they like.

    with ChatServer(chat(["Hello", " world"])) as server:
        engine = OpenAIEngine(server.url)

As a program it serves a fixed stream for load tests: `python tests/support/chat_server.py --port 8123`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Self

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Drop:
    """Cut the connection here, in the middle of the reply."""


@dataclass(frozen=True)
class Hang:
    """Send nothing more, and keep the connection open until the client leaves."""


@dataclass(eq=False)
class Gate:
    """Send nothing more until the test opens it; one gate may hold many replies."""

    passed: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        """Let every reply go on that is held here, and those that come later."""
        self.passed.set()


Step = bytes | float | Drop | Hang | Gate


@dataclass(frozen=True)
class Reply:
    """What to answer.

    Args:
        steps: pieces of the body (one HTTP chunk each), seconds to wait, Gate, Drop or Hang.
        status: HTTP status.
        headers: beyond the content type.
        kind: content type.
        together: pieces between two waits leave in one write; False sends each alone.
        before: steps (waits, Gate, Drop, Hang) before the head of the reply.
    """

    steps: tuple[Step, ...]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "text/event-stream"
    together: bool = True
    before: tuple[Step, ...] = ()
    _wire: list[list[Step]] = field(default_factory=list, repr=False, compare=False)

    def wire(self) -> list[Step]:
        """The steps as they go over the wire, made once."""
        if not self._wire:
            head = f"HTTP/1.1 {self.status} Scripted\r\ncontent-type: {self.kind}\r\ntransfer-encoding: chunked\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in self.headers)
            parts: list[Step] = [*self.before, head.encode() + b"\r\n"]
            for step in self.steps:
                if not isinstance(step, bytes):
                    parts.append(step)
                elif step:
                    chunk = b"%x\r\n%s\r\n" % (len(step), step)
                    if self.together and isinstance(parts[-1], bytes):
                        parts[-1] += chunk
                    else:
                        parts.append(chunk)
            if self.together and isinstance(parts[-1], bytes):
                parts[-1] += b"0\r\n\r\n"
            else:
                parts.append(b"0\r\n\r\n")
            self._wire.append(parts)
        return self._wire[0]


@dataclass(frozen=True)
class Raw(Reply):
    """Exactly these bytes, head included; `raw(b"HTTP/1.1 200 ...")`."""

    def wire(self) -> list[Step]:
        """The steps as they are."""
        return list(self.steps)


def raw(*steps: Step) -> Raw:
    """A reply whose head is a part of its steps."""
    return Raw(steps)


@dataclass(eq=False)
class Seen:
    """One request as it arrived, and how it ended."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    number: int
    at: float
    sent: bool = False
    """The reply was sent to its end."""
    gone_at: float | None = None
    """When the client closed the connection before that, by `time.monotonic`."""
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def body(self) -> dict[str, Any]:
        """The decoded JSON body."""
        decoded: dict[str, Any] = json.loads(self.content) if self.content else {}
        return decoded


Answer = Reply | Callable[[Seen], Reply]


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(content: str | None = None, *, finish: str | None = None, logprobs: Any = None, **more: Any) -> bytes:
    """One chunk of a streamed completion; `delta=` replaces the content, other fields go beside `choices`."""
    delta = more.pop("delta", {"content": content} if content is not None else {})
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "toy", "choices": [choice], **more})


def usage(prompt: int, completion: int, **more: Any) -> bytes:
    """The chunk with empty choices that carries the usage."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}
    return event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": counts})


def token(text: str, logprob: float | None = -0.5, top: Sequence[float | None] = ()) -> dict[str, Any]:
    """One log-probability entry."""
    alternatives = [{"token": str(at), "logprob": value} for at, value in enumerate(top)]
    return {"token": text, "logprob": logprob, "top_logprobs": alternatives}


def chat(
    texts: Sequence[str] = ("Hello", " world"),
    *,
    finish: str | None = "stop",
    counts: tuple[int, int] | None = (5, 2),
    delay: float = 0.0,
    **more: Any,
) -> Reply:
    """A well-behaved stream: a role, the texts, a finish reason, usage and `[DONE]`."""
    steps: list[Step] = [chunk(delta={"role": "assistant", "content": ""})]
    for text in texts:
        if delay:
            steps.append(delay)
        steps.append(chunk(text))
    steps.append(chunk(finish=finish))
    if counts is not None:
        steps.append(usage(*counts))
    return Reply((*steps, DONE), **more)


def stream(*steps: Step, **more: Any) -> Reply:
    """A stream of exactly these steps."""
    return Reply(steps, **more)


def whole(value: Any, status: int = 200, *, kind: str = "application/json", **headers: str) -> Reply:
    """One body: bytes as they are, text encoded, anything else as JSON. Headers: `retry_after="2"`."""
    content = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value)
    named = tuple((name.replace("_", "-"), received) for name, received in headers.items())
    return Reply((content if isinstance(content, bytes) else content.encode(),), status, named, kind)


def refusal(message: str, status: int = 400, **error: Any) -> Reply:
    """An error in OpenAI's layout."""
    return whole({"error": {"message": message, "type": "invalid_request_error", **error}}, status)


def models(*names: str) -> Reply:
    """The list of models."""
    return whole({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def refusing(rules: dict[str, Reply], otherwise: Answer) -> Callable[[Seen], Reply]:
    """Answer with the first rule whose parameter (`a` or `a.b`) the request has, else as told."""

    def answer(seen: Seen) -> Reply:
        for name, reply in rules.items():
            value: Any = seen.body
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                return reply
        return otherwise(seen) if callable(otherwise) else otherwise

    return answer


class ChatServer:
    """A server in a thread. `answer` serves the chat; `routes` serve other paths, after or instead of it."""

    def __init__(self, answer: Answer | None = None, *, routes: dict[str, Answer] | None = None, port: int = 0) -> None:
        self.routes: dict[str, Answer] = {"/v1/models": models("toy"), **(routes or {})}
        if answer is not None:
            self.routes["/v1/chat/completions"] = answer
        self.seen: list[Seen] = []
        self.connections = 0
        self.most_at_once = 0
        self._active = 0
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._open: set[_Connection] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """The address that a user would give."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def calls(self) -> list[Seen]:
        """The chat requests."""
        return [seen for seen in self.seen if seen.path.endswith("/chat/completions")]

    @property
    def open(self) -> int:
        """Connections that are open now, idle ones included."""
        return len(self._open)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def hang_up(self) -> None:
        """Close every connection, as servers do with idle ones."""
        for connection in list(self._open):
            self._loop.call_soon_threadsafe(connection.abort)

    def write(self, content: bytes) -> None:
        """Write on every connection, whether anything was asked or not."""
        for connection in list(self._open):
            self._loop.call_soon_threadsafe(connection.write, content)

    def reply(self, seen: Seen) -> Reply:
        """The reply to a request."""
        answer = self.routes.get(seen.path)
        if answer is None:
            return whole({"error": {"message": f"no route {seen.path}"}}, 404)
        return answer(seen) if callable(answer) else answer

    def began(self) -> None:
        """A request has arrived."""
        self._active += 1
        self.most_at_once = max(self.most_at_once, self._active)

    def ended(self) -> None:
        """A request has been answered or given up."""
        self._active -= 1

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        def connect() -> _Connection:
            self.connections += 1
            return _Connection(self, self._open)

        listening = self._loop.run_until_complete(
            self._loop.create_server(connect, "127.0.0.1", self._port, backlog=1024)
        )
        self._port = listening.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        take_last(self._loop, lambda: {connection.task for connection in self._open if connection.task is not None})
        listening.close()
        for connection in list(self._open):
            connection.abort()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, asyncio.sleep(0), return_exceptions=True))
        self._loop.close()


def take_last(loop: asyncio.AbstractEventLoop, playing: Callable[[], Set[asyncio.Task[None]]] = frozenset) -> None:
    """Let a loop that has ended make the connections that it had accepted: until then nobody can close them."""
    while last := asyncio.all_tasks(loop) - playing():
        loop.run_until_complete(asyncio.wait(last))


class _Connection(asyncio.Protocol):
    """One connection: requests in, replies out, one after the other."""

    def __init__(self, server: ChatServer, opened: set[_Connection]) -> None:
        self._server, self._opened = server, opened
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._current: Seen | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        if (seen := self._current) is not None:
            seen.gone_at = time.monotonic()
            seen.gone.set()
            self._end()
        if self.task is not None:
            self.task.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def write(self, content: bytes) -> None:
        if self._transport is not None:
            self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank or self._current is not None:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = first.split(" ", 2)
        server = self._server
        path = path.partition("?")[0]
        seen = Seen(method, path, headers, rest[:length], len(server.seen), time.monotonic())
        server.seen.append(seen)
        server.began()
        self._current = seen
        steps = server.reply(seen).wire()
        if len(steps) == 1 and isinstance(steps[0], bytes) and self._transport is not None:
            self._transport.write(steps[0])  # the fast path: no task
            seen.sent = True
            self._end()
        else:
            self.task = asyncio.get_running_loop().create_task(self._play(seen, steps))

    def _end(self) -> None:
        self._current = None
        self._server.ended()

    async def _play(self, seen: Seen, steps: list[Step]) -> None:
        assert self._transport is not None
        for step in steps:
            if isinstance(step, bytes):
                self._transport.write(step)
                await asyncio.sleep(0)
            elif isinstance(step, Drop):
                await asyncio.sleep(0.01)  # let the client read what came before
                self._transport.abort()
                return
            elif isinstance(step, Hang):
                await asyncio.get_running_loop().create_future()
            elif isinstance(step, Gate):
                while not step.passed.is_set():  # another thread opens it
                    await asyncio.sleep(0.001)
            else:
                await asyncio.sleep(step)
        if self._current is seen:
            seen.sent = True
            self._end()


def main() -> None:
    """Serve a fixed stream until the process is ended."""
    parser = argparse.ArgumentParser(description="A scripted chat server for load tests.")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--deltas", type=int, default=20, help="pieces of text in each stream")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each piece")
    parser.add_argument("--alone", action="store_true", help="one write for each piece")
    options = parser.parse_args()
    texts = [f" word{at}" for at in range(options.deltas)]
    reply = chat(texts, counts=(20, options.deltas), delay=options.delay, together=not options.alone)
    with ChatServer(reply, port=options.port) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
