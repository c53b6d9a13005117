"""A chat server that treats connections and requests as badly as a script says, and counts what it has read.

    with HostileServer("503 loading", "read, then reset") as server:
        ...
        assert server.read <= wanted + server.refused

Every chat request that was read whole gets the next act of the script, `good` once that has ended. Knows HTTP/1.1 as
far as these tests need it. Runs in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from typing import Any, Self

from support.chat_server import DONE, chunk, models, take_last, usage

LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
REFUSALS: dict[str, tuple[int, dict[str, str], Any]] = {
    "429": (429, {}, {"error": {"message": "slow down"}}),
    "429 at once": (429, {"retry-after": "0"}, {"error": {"message": "slow down"}}),
    "429 later": (429, {"retry-after": "30"}, {"error": {"message": "slow down"}}),
    "503 at once": (503, {"retry-after": "0"}, {"error": {"message": "busy"}}),
    "503 later": (503, {"retry-after": "30"}, {"error": {"message": "busy"}}),
    "503 loading": (503, {}, LOADING),
    "503 loading in words": (503, {}, {"error": "llm server loading model"}),
}
"""Acts that say that nothing was begun."""
FAILURES: dict[str, tuple[int, dict[str, str], Any]] = {
    "503": (503, {}, {"error": {"message": "overloaded"}}),
    "500": (500, {}, {"error": {"message": "unknown error while streaming"}}),
    "502": (502, {"retry-after": "0"}, {"error": {"message": "bad gateway"}}),
    "504": (504, {}, {"error": {"message": "timeout"}}),
    "408": (408, {}, {"error": {"message": "too slow"}}),
    "529": (529, {"retry-after": "0"}, {"error": {"message": "overloaded"}}),
    "garbage": (200, {}, "<html>"),
    "empty object": (200, {}, {}),
    "error inside 200": (200, {}, {"error": {"message": "rate limit", "code": 429}}),
}
"""Acts that may have begun it."""
CUTS = (
    "read, then closed",
    "read, then reset",
    "half a head",
    "head, then closed",
    "head, then reset",
    "delta, then closed",
    "delta, then reset",
)
"""Acts that break a connection off."""
GOOD = ("good", "good, then closed", "good, then reset")
"""Acts that answer; some close the connection afterwards without having said so."""
ACTS = (*GOOD, *REFUSALS, *FAILURES, *CUTS)


class HostileServer:
    """The server.

    Args:
        script: acts for the chat requests in the order in which they have been read.
        doors: for each connection in turn whether it is closed before anything is read from it.
        partial: for each connection in turn whether it is reset once a request's head has come, its body unread.
    """

    def __init__(self, *script: str, doors: tuple[bool, ...] = (), partial: tuple[bool, ...] = ()) -> None:
        self.script, self.doors, self.partial = list(script), list(doors), list(partial)
        self.read = self.refused = self.answered = self.connections = 0
        self.open: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        """The address that a user would give."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; nobody reaches it any more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)

    def hang_up(self, *, reset: bool = False) -> None:
        """Close every connection that is idle."""
        for connection in list(self.open):
            self._loop.call_soon_threadsafe(connection.end, reset)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = self._loop.run_until_complete(self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0))
        self.port = listening.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        take_last(self._loop)
        listening.close()
        for connection in list(self.open):
            connection.end(False)
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, server: HostileServer) -> None:
        self._server = server
        self._buffer = b""
        self._partial = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        server = self._server
        server.connections += 1
        server.open.add(self)
        self._partial = bool(server.partial and server.partial.pop(0))
        if server.doors and server.doors.pop(0):
            transport.pause_reading()
            self.end(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self)

    def end(self, reset: bool) -> None:
        """Close the connection, or reset it."""
        if reset and not self._transport.is_closing():
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        if self._partial:
            self.end(True)
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        path = lines[0].split(" ")[1]
        if path.endswith("/chat/completions"):
            self._act(json.loads(rest[:length]))
        elif path.endswith("/models"):
            self._transport.write(b"".join(step for step in models("toy").wire() if isinstance(step, bytes)))
        else:
            self._reply(404, {}, {"error": {"message": "no such path"}})

    def _act(self, body: dict[str, Any]) -> None:
        server = self._server
        server.read += 1
        act = server.script.pop(0) if server.script else "good"
        streamed = body.get("stream") is True
        if act in REFUSALS:
            server.refused += 1
        if (told := REFUSALS.get(act) or FAILURES.get(act)) is not None:
            self._reply(*told)
            return
        if act in GOOD:
            server.answered += 1
            self._good(streamed)
        elif act == "half a head":
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
        elif act.startswith(("head", "delta")):
            kind = b"text/event-stream" if streamed else b"application/json"
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: " + kind + b"\r\n\r\n"
            )
            if act.startswith("delta"):
                piece = chunk("The answer") if streamed else b'{"choices": [{"index": 0'
                self._transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if act != "good":
            reset = act.endswith("reset")
            # What was written before a reset would be lost with it, so it gets a turn to be read.
            wait = 0.02 if reset and not act.startswith("read") else 0.0
            self._server._loop.call_later(wait, self.end, reset)

    def _good(self, streamed: bool) -> None:
        if streamed:
            content = chunk("The answer is 4.") + chunk(finish="stop") + usage(5, 2) + DONE
            self._write(200, {"content-type": "text/event-stream"}, content)
            return
        message = {"role": "assistant", "content": "The answer is 4."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        self._reply(200, {}, {"object": "chat.completion", "choices": [choice], "usage": counts})

    def _reply(self, status: int, headers: dict[str, str], value: Any) -> None:
        content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self._write(status, {"content-type": "application/json", **headers}, content)

    def _write(self, status: int, headers: dict[str, str], content: bytes) -> None:
        lines = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, f"content-length: {len(content)}", "", ""])
        self._transport.write(head.encode() + content)
