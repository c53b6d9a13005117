"""The proxy's HTTP client: connections that a server closes while they are idle."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("aiohttp")

import aiohttp

from outthink.http.transport import Timeouts, TransportFault
from outthink.serving.pool.transport import _PIECE, AiohttpTransport, _has_come
from support.chat_server import ChatServer, Drop, Reply, chat, stream, whole
from support.hostile_server import HostileServer
from support.waiting import until

WITHIN = Timeouts(2.0, 2.0)


class Stale:
    """A session whose first connections turn out to be closed."""

    def __init__(self, session: Any, times: int) -> None:
        self._session, self.left = session, times

    async def request(self, *told: Any, **more: Any) -> Any:
        if self.left:
            self.left -= 1
            error = aiohttp.ClientOSError(None, "Can not write request body")
            raise error from aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        return await self._session.request(*told, **more)

    async def close(self) -> None:
        await self._session.close()


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_request_that_was_never_written_is_written_again(times: int) -> None:
    async def main(url: str) -> int:
        wire = AiohttpTransport()
        wire._session = Stale(wire._open(), times)  # type: ignore[assignment]
        try:
            return (await wire.fetch("POST", url, {}, b"{}", WITHIN)).status
        finally:
            await wire.aclose()

    with ChatServer(whole({"choices": []})) as server:
        url = f"{server.url}/chat/completions"
        if times < 3:
            assert asyncio.run(main(url)) == 200
        else:
            with pytest.raises(TransportFault, match="dropped"):
                asyncio.run(main(url))
        assert len(server.calls) == (times < 3)


def test_a_request_that_may_have_been_read_is_not() -> None:
    async def main(url: str) -> None:
        wire = AiohttpTransport()
        try:
            await wire.fetch("POST", url, {}, b"{}", WITHIN)
        finally:
            await wire.aclose()

    with ChatServer(stream(Drop(), before=(Drop(),))) as server:
        with pytest.raises(TransportFault, match="dropped"):
            asyncio.run(main(f"{server.url}/chat/completions"))
        assert len(server.calls) == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_kept_connection_is_not_used_whose_end_the_event_loop_has_not_noticed(
    reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outthink.serving.pool.transport._BRIEF", 0.0)

    async def main(server: HostileServer) -> None:
        wire = AiohttpTransport()
        try:
            for _ in range(5):
                assert (await wire.fetch("POST", f"{server.url}/chat/completions", {}, b"{}", WITHIN)).status == 200
                server.hang_up(reset=reset)
                until(lambda: not server.open, "the end of the connection")  # nothing else runs meanwhile
        finally:
            await wire.aclose()

    with HostileServer() as server:
        asyncio.run(main(server))
        assert (server.read, server.connections) == (5, 5)


@pytest.mark.parametrize(
    "unasked",
    [
        b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"reply": 0}',
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"garbage\r\n\r\n",
        b"\r\n",
    ],
)
@pytest.mark.parametrize("noticed", [False, True])
def test_what_a_server_writes_unasked_is_nobodys_reply(
    unasked: bytes, noticed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outthink.serving.pool.transport._BRIEF", 0.0)

    async def main(server: ChatServer) -> list[bytes]:
        wire, received = AiohttpTransport(), []
        try:
            for _ in range(4):
                reply = await wire.fetch("POST", f"{server.url}/chat/completions", {}, b"{}", WITHIN)
                received.append(reply.content)
                connection = next(iter(wire._open().connector._conns.values()))[0][0].transport  # type: ignore
                server.write(unasked)
                until(lambda open=connection: open is None or _has_come(open), "what was written")
                for _ in range(3 * noticed):
                    await asyncio.sleep(0)
        finally:
            await wire.aclose()
        return received

    with ChatServer(lambda seen: whole({"reply": seen.number})) as server:
        received = asyncio.run(main(server))
    assert [json.loads(content)["reply"] for content in received] == [0, 1, 2, 3]


def test_a_server_that_lets_nobody_in_is_told_from_one_that_may_have_read() -> None:
    async def fault(url: str) -> TransportFault:
        wire = AiohttpTransport()
        try:
            await wire.fetch("POST", f"{url}/chat/completions", {}, b"{}", WITHIN)
        except TransportFault as fault:
            return fault
        finally:
            await wire.aclose()
        raise AssertionError("it was answered")

    with HostileServer("read, then closed") as server:
        read = asyncio.run(fault(server.url))
    away = asyncio.run(fault(server.url))
    assert (read.kind, read.unsent, away.kind, away.unsent) == ("dropped", False, "connect", True)


def test_a_server_that_closes_unannounced_gets_a_connection_for_each_request() -> None:
    async def main(url: str) -> None:
        wire = AiohttpTransport()
        try:
            for _ in range(3):
                await wire.fetch("POST", f"{url}/chat/completions", {}, b"{}", WITHIN)
        finally:
            await wire.aclose()

    with ChatServer(whole({"choices": []}, server="llama.cpp")) as server:
        asyncio.run(main(server.url))
        assert [seen.headers.get("connection") for seen in server.calls] == [None, "close", "close"]


def test_long_bodies_take_turns_so_that_the_event_loop_goes_round() -> None:
    piece, size, bodies = 1 << 16, 2 << 20, 8

    async def main(url: str) -> int:
        wire, rounds = AiohttpTransport(), 0
        sending = [
            asyncio.create_task(wire.fetch("POST", url, {}, b'"' + b"x" * size + b'"', WITHIN)) for _ in range(bodies)
        ]
        while not all(task.done() for task in sending):
            rounds += 1
            await asyncio.sleep(0)
        await wire.aclose()
        assert {task.result().status for task in sending} == {200}
        return rounds

    with ChatServer(whole({"choices": []})) as server:
        rounds = asyncio.run(main(f"{server.url}/chat/completions"))
        assert [len(seen.content) for seen in server.calls] == [size + 2] * bodies
    assert rounds >= bodies * size / piece


def test_a_short_body_goes_with_its_head_and_is_told_as_a_long_one_is() -> None:
    """aiohttp writes the longer one by itself: should it come to write other heads, this would notice."""
    short, long = (b"x" * (size - 2) + b"\r\n" for size in (_PIECE, _PIECE + 1))
    made = 0

    def task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        nonlocal made
        made += 1
        return asyncio.Task(work, loop=loop, **more)

    async def main(url: str) -> int:
        wire = AiohttpTransport()
        for body in (long, short):
            asyncio.get_running_loop().set_task_factory(task if body is short else None)
            for more in ({}, {"authorization": "Bearer a-secret-of-mine", "x-empty": ""}):
                reply = await wire.open("POST", url, {"content-type": "text/plain", **more}, body, WITHIN)
                pieces = [piece async for piece in reply]
                assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
                await reply.aclose()
        used = made
        await wire.aclose()
        return used

    with ChatServer(chat()) as server:
        path = f"{server.url}/chat/completions?a=%20b&c=ä"
        assert asyncio.run(main(path)) == 0
        assert server.connections == 1
        seen = server.calls
    assert [each.content for each in seen] == [long, long, short, short]
    heads = [
        (each.method, each.path, {name: value for name, value in each.headers.items() if name != "content-length"})
        for each in seen
    ]
    assert heads[:2] == heads[2:]


@pytest.mark.parametrize("line", [b"\n", b"\r", b"\r\n", b"data: {}\n\n", b"x" * 60 + b"\n", b"x" * 500 + b"\n\n"])
def test_what_a_round_of_the_event_loop_is_handed_has_few_lines(line: bytes) -> None:
    body = line * ((1 << 19) // len(line))

    async def main(url: str) -> None:
        wire, rounds, before, lines, left = AiohttpTransport(), 0, 0, 0, body

        async def count() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        try:
            async for piece in await wire.open("POST", url, {}, b"{}", WITHIN):
                assert left.startswith(piece)
                left = left[len(piece) :]
                lines = (lines if rounds == before else 0) + piece.count(b"\n") + piece.count(b"\r")
                before = rounds
                assert len(piece) <= 1 << 14
                assert lines <= 1 << 9
            assert not left
        finally:
            counting.cancel()
            await wire.aclose()

    with ChatServer(Reply((body,))) as server:
        asyncio.run(main(f"{server.url}/chat/completions"))
