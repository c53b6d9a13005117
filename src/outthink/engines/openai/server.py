"""One server: sends requests to it and words its failures. Knows HTTP through the transport alone.

Does not know chat parameters or what a completion is, and never retries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outthink.core.errors import BadInput
from outthink.engines.openai.address import Address
from outthink.engines.openai.refusal import Voice
from outthink.engines.openai.transport import Reply, Timeouts, Transport, TransportFault

_MOST = 1 << 20  # bytes of a reply that is read whole: a list of models or an error


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that was read whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The decoded body, None if it is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


class Server:
    """An address, the key for it and the transport that reaches it; `repr` and errors hide the key."""

    def __init__(self, address: Address, key: str | None, transport: Transport, timeouts: Timeouts) -> None:
        key = (key or "").strip()
        if not key.isascii() or not key.isprintable():
            raise BadInput("API key", "***", "has characters that no header can carry", "copy it again")
        self.address, self.transport, self.timeouts = address, transport, timeouts
        secrets = (key, address.query, address.userinfo or "")
        self.voice = Voice(address.base, secrets, timeouts)
        self.sent = 0
        """Requests sent so far."""
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        elif address.userinfo is not None:
            self._headers["authorization"] = address.userinfo

    def __repr__(self) -> str:
        return f"Server({self.address.base!r})"

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """A body as JSON."""
        return json.dumps(body).encode()

    async def open(
        self, path: str, body: Mapping[str, Any] | None = None, *, root: bool = False, stream: bool = False
    ) -> Reply:
        """Send a request (GET without a body) and return its reply, whatever its status.

        Raises:
            EngineError: no reply came.
        """
        self.sent += 1
        method, content = ("GET", None) if body is None else ("POST", self.encode(body))
        headers = {**self._headers, "accept": "text/event-stream, application/json" if stream else "application/json"}
        try:
            return await self.transport.open(method, self.address.url(path, root=root), headers, content, self.timeouts)
        except TransportFault as fault:
            raise self.voice.fault(fault) from fault

    async def fetch(self, path: str, body: Mapping[str, Any] | None = None, *, root: bool = False) -> Answer:
        """Send a request and read its reply whole."""
        return await self.read(await self.open(path, body, root=root))

    async def read(self, reply: Reply) -> Answer:
        """Read a reply whole (errors and lists, so a megabyte at most) and close it."""
        content = b""
        try:
            async for piece in reply:
                content += piece
                if len(content) > _MOST:
                    break
        except TransportFault as fault:
            if reply.status == 200:
                raise self.voice.fault(fault) from fault
            # The status of a refusal says more than the fact that its text was cut off.
        finally:
            await reply.aclose()
        return Answer(reply.status, reply.headers, content)
