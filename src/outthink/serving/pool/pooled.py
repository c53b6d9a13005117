"""The calls of an engine on the backends of the pool, each in its turn.

Knows: which paths generate, the queue for a model, and that a place is held until the reply has been closed. Implements
the engine's transport protocol, and words its errors. Does not know when a call is sent again, chats or strategies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self

from outthink.core.errors import EngineError
from outthink.http.errors import REDIRECTED, ErrorBody, ServerErrors, without_private
from outthink.http.events import Json
from outthink.http.fields import JsonDict, encode, with_length_name
from outthink.http.server import Address, Server
from outthink.http.transport import Body, Parts, Response, Timeouts, TransportFault
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.failover import REFUSED, Failover, KeyRefused, Turn, take_turn
from outthink.serving.pool.pool import Full, NoBackend
from outthink.serving.pool.transport import AiohttpTransport, Whole
from outthink.session.runner import Places

ROOT = "http://backend.invalid"
"""What an engine believes its server to be; the chosen backend's address takes its place."""
BASE = ROOT + "/v1"


class PooledTransport:
    """An engine's transport: the calls of one request, each in its turn on a backend of the pool.

    Args:
        places: the queue for the model.
        turn: whose calls they are.
        headers: that every call gets besides.
        queue_seconds: that a request may be without any place.
        lengths: how a chat's length is called by the URLs of backends, where they differ.
    """

    def __init__(
        self,
        failover: Failover,
        wire: AiohttpTransport,
        places: Places,
        *,
        turn: Turn,
        headers: Mapping[str, str],
        queue_seconds: float,
        lengths: Mapping[str, str],
    ) -> None:
        self._lengths = lengths
        self._failover, self._wire, self._places, self._queue_seconds = failover, wire, places, queue_seconds
        self._turn, self._headers = turn, headers

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, timeouts: Timeouts
    ) -> Response:
        """Send a request and wait for the head of its reply. Raises TransportFault."""
        generates = url.startswith(BASE)
        path = url[len(BASE if generates else ROOT) :]

        async def send(lease: BackendLease) -> Response:
            base = lease.url if generates else Address.parse(lease.url).root
            sent = {**headers, **self._headers, **lease.headers}
            content = body
            if (name := self._lengths.get(lease.url)) is not None and generates and body is not None:
                content = _renamed(body, name)
            return await self._wire.open(method, base + path, sent, content, timeouts)

        if generates:
            try:
                await take_turn(self._places, self._turn, self._queue_seconds)
            except Full as full:
                raise EngineError(str(full), again=False) from full
        try:
            reply, lease = await self._failover.send(send, complete=_complete, brief=not generates)
        except BaseException as error:
            if generates:
                self._places.give(self._turn)
            if isinstance(error, Full):
                raise EngineError(str(error), again=False) from error
            if isinstance(error, NoBackend):
                raise TransportFault("connect", str(error)) from error
            raise
        return PlacedResponse(reply, lease, (self._places, self._turn) if generates else None)

    async def aclose(self) -> None:
        """Nothing of its own to close: connections belong to the proxy."""


async def _complete(reply: Response) -> Response:
    """A refusal whole: what it says tells whether the call was begun."""
    return reply if reply.status < 400 else await Whole.of(reply)


class PlacedResponse:
    """A reply together with its place on the backend and in the queue, and with the verdict on it.

    Args:
        place: the queue, and who has it; None for a reply that generates nothing, which is no verdict either.
    """

    def __init__(self, reply: Response, lease: BackendLease, place: tuple[Places, Turn] | None) -> None:
        self.reply, self.status, self.headers = reply, reply.status, reply.headers
        self.failed = False
        """Whoever reads it has found that it tells of a failure, or is no reply."""
        self._lease, self._place = lease, place

    def __aiter__(self) -> Self:
        # The inner reply iterates by itself, which saves a step for every piece.
        return self.reply  # type: ignore[return-value]

    async def __anext__(self) -> bytes:
        return await anext(self.reply)

    async def aclose(self) -> None:
        """Close the reply and give the place back, once."""
        place, self._place = self._place, None
        if place is not None and self.status < 400:  # refusals were reported when they came
            self._lease.report(ok=not self.failed)
        try:
            await self.reply.aclose()
        finally:
            self._lease.close()
            if place is not None:
                place[0].give(place[1])


def blame(reply: Response) -> None:
    """Let the pool hear of a reply that claims success and is none."""
    if isinstance(reply, PlacedResponse):
        reply.failed = True


_LONG = 1 << 16
"""Bytes of messages, or of a field, that are kept once rather than copied into every call's body."""


class EncodedChat:
    """A client's messages and its own fields, encoded once for all calls of its request."""

    def __init__(self, raw: Sequence[JsonDict], extra: JsonDict) -> None:
        self.raw, self.extra = raw, extra
        self._json = b""
        self.long: dict[str, bytes] = {}
        """The fields that are long, as JSON; none before `prepare`."""

    @property
    def json(self) -> bytes:
        """The messages as JSON, without the last bracket."""
        if not self._json:
            self._json = encode(self.raw)[:-1]
        return self._json

    async def prepare(self) -> None:
        """Encode them beside the event loop: they are long."""
        await asyncio.to_thread(self._prepare)

    def forget(self) -> None:
        """Let go of all of it; nothing is sent any more."""
        self.raw, self.extra, self._json, self.long = (), {}, b"", {}

    def _prepare(self) -> None:
        written = ((name, encode(value)) for name, value in self.extra.items())
        self.long = {name: text for name, text in written if len(text) >= _LONG}
        self._json = encode(self.raw)[:-1]


class SharedMessages(list[Json]):
    """The messages of one call: the client's, and what follows them."""

    def __init__(self, encoded: EncodedChat) -> None:
        super().__init__(encoded.raw)
        self.encoded = encoded


def encode_call(body: Mapping[str, Json], chat: EncodedChat) -> Body:
    """A call's body as JSON; long messages and fields stay apart, for other calls send them as well."""
    long = {name: text for name, text in chat.long.items() if body.get(name) is chat.extra[name]}
    messages = body.get("messages")
    shared = messages if isinstance(messages, SharedMessages) else None
    if shared is None and not long:
        return encode(body)
    apart = {*long, "messages"} if shared is not None else long.keys()
    parts = [encode({name: value for name, value in body.items() if name not in apart})[:-1]]
    for name, text in long.items():
        parts += [b"," + encode(name) + b":", text]
    if shared is not None:
        more = shared[len(chat.raw) :]
        parts += [b',"messages":', chat.json, b"," + encode(more)[1:] if more else b"]"]
    parts.append(b"}")
    return Parts(tuple(parts)) if long or len(parts[-3]) >= _LONG else b"".join(parts)


def _renamed(body: Body, name: str) -> Body:
    """A call's body with its length under another name, which stands in the first part."""
    if not isinstance(body, Parts):
        return with_length_name(body, name)
    head, *rest = body.parts
    return Parts((with_length_name(head + b"}", name)[:-1], *rest))


class CallRefused(EngineError):
    """A backend has refused a call.

    Args:
        words: its own, without secrets.
        unread: whether it says that the call had not been begun.
    """

    def __init__(self, error: EngineError, status: int, words: str, *, unread: bool) -> None:
        super().__init__(str(error), fatal=error.fatal, again=False, retry_after=error.retry_after, begun=error.begun)
        self.status, self.words, self.unread = status, words, unread


class PooledErrors(ServerErrors):
    """Names no address. No call is sent again for them: the pool has done that, and what is left is the client's."""

    def clean(self, text: str) -> str:
        """Text on one line, without addresses of the backend's network."""
        return super().clean(without_private(text))

    def redirected(self, status: int, headers: Mapping[str, str]) -> EngineError:
        """The error for a reply that names another address, which is the operator's business."""
        return self.error(REDIRECTED.format(status), fatal=True)

    def refused(self, status: int, refusal: ErrorBody, *, wait: float | None = None, model: str = "") -> EngineError:
        """The error for a refusal."""
        if status in REFUSED:  # of the proxy's key: its words are for nobody
            return KeyRefused(status, self.url.removeprefix("the backend "))
        error = super().refused(status, refusal, wait=wait, model=model)
        return CallRefused(error, status, self.clean(refusal.message), unread=error.again)

    def fault(self, fault: TransportFault) -> EngineError:
        """The error for a call that got no answer."""
        error = super().fault(TransportFault(fault.kind, unsent=fault.unsent))  # its detail may name the host
        error.again = False
        return error


class PooledServer(Server):
    """Encodes quickly: one request may send dozens of bodies."""

    chat = EncodedChat((), {})
    """What its calls have in common."""

    def encode(self, body: Mapping[str, Json]) -> Body:
        """A body as JSON."""
        return encode_call(body, self.chat)
