"""The proxy's HTTP client: connections that a server closes while they are idle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiohttp")

import aiohttp

from outthink.http.transport import Timeouts, TransportFault
from outthink.serving.pool.transport import AiohttpTransport
from support.chat_server import ChatServer, Drop, stream, whole

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
