"""Replies of backends on their way to the client: streamed event by event or whole, and what was used for them.

Knows: whether a client could read a reply, which failures are told in one that claims success, and what its counts are
worth beside what was asked for. Does not know keys or budgets.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from outthink.economics.tariff import Tariff
from outthink.http.errors import OUTWAITED, REDIRECTED, ErrorBody, failed_choice, failure_in, without_private
from outthink.http.events import BOM, LONG, is_html
from outthink.http.fields import JsonDict, decode
from outthink.http.transport import Response, TransportFault
from outthink.http.usage import UNKNOWN, ReplyUsage, Usage, read_count
from outthink.serving.accounting import Account
from outthink.serving.failure import Failure, backend_auth, failure_of
from outthink.serving.forward.stream import EventReader
from outthink.serving.pool.backend import BackendLease
from outthink.serving.pool.transport import Whole, paced, write_paced
from outthink.serving.protocols import RequestRecord

# Whether a client could read what a backend has answered, and the error object where it could not. Only both
# ends of a reply and the beginning of a stream are looked at for this.

_EVENTS = (b"data", b"event", b"id", b"retry", b"error", b": ", b"{", BOM)
_FIELD = re.compile(rb"\s*(?:data|event|id|retry|error)?:")
_SPACE = b" \t\r\n"
_MOST = 32 << 20
"""Bytes of a whole reply to a request for a stream that are read."""
_LONG_REFUSAL = 1 << 20
"""Bytes of a refusal that is not decoded: small values take fifty times their memory."""
_LINGER = 0.05
"""Seconds after the event that ends a response."""
_FRAMING = ("content-length", "transfer-encoding")
"""Headers by which a body that was cut off shows."""
_FINISH = re.compile(rb'"finish_reason": ?"')


def _comes_whole(headers: Mapping[str, str]) -> bool:
    """Whether a reply is none that comes in events, whatever was asked for."""
    return headers.get("content-type", "").startswith(("application/json", "text/html"))


def is_garbled(reply: Response) -> bool:
    """Whether a whole reply that says that all is well is none."""
    if not isinstance(reply, Whole) or reply.status >= 400:
        return False
    if reply.status >= 300:
        return True
    content = reply.content
    if _is_object(content):
        return content[-64:].rstrip(_SPACE)[-1:] != b"}"
    return _FIELD.match(content[:64].removeprefix(BOM)) is None  # some stream unasked


def _is_object(content: bytes) -> bool:
    return content[:64].removeprefix(BOM).lstrip(_SPACE)[:1] == b"{"


def _unreadable(reply: Whole) -> Failure | None:
    """The error object instead of a whole reply that is none; None where the reply is one."""
    status = reply.status
    if is_garbled(reply):
        what = "answered something that is not JSON; try again"
        if status >= 300:  # the client's key is not for wherever that leads
            what = REDIRECTED.format(status)
        return Failure(502, f"the backend {what}", code="backend_error")
    if status < 400:
        return None
    if _tells_error(reply.content):
        return None
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "an error"
    words = (
        ""
        if is_html(reply.content)
        else without_private(ErrorBody.parse(reply.content[:_LONG_REFUSAL]).message).strip("{}[] ")
    )
    why = f": {words}" if words and "\ufffd" not in words else " and did not say why"
    return Failure(status, f"the backend answered {status} ({phrase}){why}", code="backend_error")


def _tells_error(content: bytes) -> bool:
    """Whether a refusal is an object that says what is wrong; a long one by its looks."""
    if len(content) > _LONG_REFUSAL:
        return _is_object(content) and (b'"error"' in content or b'"message"' in content)
    try:
        value = decode(content.removeprefix(BOM))
    except ValueError:
        return False
    return isinstance(value, dict) and ("error" in value or "message" in value)


def begins_events(piece: bytes) -> bool:
    """Whether a stream may begin so: its first piece, which may be cut anywhere."""
    start = piece[:64].removeprefix(BOM).lstrip(_SPACE)
    return any(start.startswith(word) or word.startswith(start) for word in _EVENTS)


async def complete(reply: Response) -> Response:
    """A refusal, read to its end, or its beginning where it is long or breaks off; other replies as they come."""
    if isinstance(reply, Whole) or reply.status < 300:
        return reply
    return await Whole.of(reply, _MOST)


@dataclass(slots=True)
class Passage:
    """A reply on its way: whose it is, where it comes from, and what it is measured by.

    Args:
        head: headers that the client gets.
        completions: how many were asked for, over all prompts.
        length: tokens that none of them exceeds, None where nobody has said.
        summed: the backends are known to count all completions of a request.
        hide_usage: the counts in the stream were asked for by us.
        usage: of what has come so far.
        response: the stream to the client, while more may be written to it.
    """

    account: Account
    tariff: Tariff
    lease: BackendLease
    head: dict[str, str]
    completions: int = 1
    length: int | None = None
    summed: bool = False
    hide_usage: bool = False
    usage: ReplyUsage | None = None
    response: web.StreamResponse | None = None

    async def tell(self, failure: Failure) -> web.StreamResponse | None:
        """End a stream by an error event, so that nothing pretends to be whole; None where no stream has begun."""
        response = self.response
        if response is None or not response.prepared:
            return None
        await response.write(b"\n\ndata: " + failure.body() + b"\n\n")  # the last event may lack its blank line
        await response.write_eof()
        return response

    def counted(self, usage: Usage) -> Usage:
        """What the counts of a reply are worth: unknown where they may be those of one completion of several."""
        if self.account.endpoint.endswith("/embeddings"):  # the prompt is all there is
            return Usage(usage.prompt, usage.cached, usage.completion or 0)
        if self.completions == 1 or self.summed:
            return usage
        written = self.usage.written if self.usage is not None else 0
        # More than one can have, and no more than all: what exceeds that has not heeded the length at all.
        all_of_them = self.length is not None and self.length < written <= self.length * self.completions
        return usage if all_of_them else UNKNOWN

    def refused_key(self, status: int | None) -> Failure:
        """The error for a backend that refuses the proxy's own key."""
        return backend_auth(status or 401, self.lease.url)

    def judge(self, failure: ErrorBody | None) -> None:
        """Report how a reply that claims success was, now that it has been read."""
        self.lease.report(ok=failure is None, status=None if failure is None else failure.status)

    def record(self, status: int, failure: ErrorBody | None, body: bytes | None) -> RequestRecord:
        """The record of a reply that has come to its end, of which a part may tell of a failure."""
        account, usage = self.account, self.usage or ReplyUsage()
        total = self.counted(usage.total())
        if failure is None:
            return account.passed(total, self.tariff, "finished", status, body=body)
        if not usage.text and total.completion is None and (account.stream or 400 <= (failure.status or 500) < 500):
            total = Usage(0, 0, 0)  # a refusal costs nothing
        # The words may quote the prompt, so they are for the client alone; and the next attempt is served anew.
        error = f"{failure.status or 502} backend_error"
        record = account.passed(total, self.tariff, "interrupted", status, error=error)
        record.stopped = "error"
        return record


async def deliver(reply: Whole, passage: Passage) -> web.Response:
    """Settle a reply that has come whole, and hand it on as it came; an error object instead of what is no reply."""
    account, head, status = passage.account, passage.head, reply.status
    body = reply.content.removeprefix(BOM)
    if status in (401, 403):
        raise passage.refused_key(status)
    failure = _unreadable(reply) if len(body) <= LONG else await asyncio.to_thread(_unreadable, reply)
    if failure is not None:  # who says nothing readable has not said either that nothing was generated
        finished, status, body = status < 300, failure.status, failure.body()
        head = {name: value for name, value in head.items() if name.lower() != "content-type"}
        head["content-type"] = "application/json"
        stopped = "interrupted" if finished or status in OUTWAITED else "error"
        record = account.passed(UNKNOWN, passage.tariff, stopped, status, error=failure.stored)
        record.stopped = "error"
    elif status >= 400:
        passage.usage = usage = ReplyUsage()
        if len(body) <= LONG:
            read_whole(body, usage)
        elif len(body) <= _LONG_REFUSAL:  # most tell nothing
            await asyncio.to_thread(read_whole, body, usage)
        used = passage.counted(passage.usage.total())
        stopped = "error" if status not in OUTWAITED else "interrupted"
        record = account.passed(used, passage.tariff, stopped, status, body=body)
        record.stopped = "error"
    else:
        passage.usage = usage = ReplyUsage()
        embeds, beside = account.endpoint.endswith("/embeddings"), len(body) > LONG
        told = await asyncio.to_thread(read_whole, body, usage, embeds) if beside else read_whole(body, usage, embeds)
        if told is not None and told.about_key:
            raise passage.refused_key(told.status)
        passage.judge(told)
        record = passage.record(status, told, body)
    await account.settle(record)
    return web.Response(body=paced(body), status=status, headers=head)


def read_whole(body: bytes, usage: ReplyUsage, embeds: bool = False) -> ErrorBody | None:
    """Note what a whole reply has used; the failure that it tells of, None where all is well.

    Args:
        embeds: nothing is generated, so no text can stand beside a zero.
    """
    try:
        # Most replies are looked at from their end: only what follows the name of the counts is decoded.
        end = _from_usage(body)
        if end is not None and (embeds or read_count(end["usage"].get("completion_tokens"))):
            usage.count(end["usage"])
            if isinstance(timings := end.get("timings"), dict):
                usage.time(timings)
            return None
        if not _is_object(body):  # a stream unasked
            reader = EventReader(usage=usage)
            reader.feed(body)
            reader.close()
            return reader.failure
        reply = decode(body)
    except ValueError:
        usage.add_unread()
        return None
    usage.add(reply)
    return failure_in(reply) or (ErrorBody("a choice failed") if failed_choice(reply) else None)


_TRIES = 4


def _from_usage(body: bytes) -> JsonDict | None:
    """The end of a reply from its `usage` on; None where there is none, or more of the reply has to be known.

    A quotation mark within a text of JSON has a backslash before it, so what is found is a name, or a text of its own;
    and only behind a member of the outermost object is the rest, with a brace before it, an object again.
    """
    at = len(body)
    for _ in range(_TRIES):
        if (at := body.rfind(b'"usage"', 0, at)) < 0:
            return None
        try:
            end = decode(b"{" + body[at:])
        except ValueError:
            continue
        # Nowhere may a failure be told, however a server writes its JSON.
        low = body.lower()
        told = b"error" in low or b"failed" in low or b"abort" in low or b"insufficient" in low or b"\\u00" in low
        if told or not isinstance(end["usage"], dict) or ("timings" not in end and b'"timings"' in low):
            return None
        return dict(end)
    return None


async def forward_stream(request: web.BaseRequest, reply: Response, passage: Passage) -> web.StreamResponse:
    """Forward a stream event by event, as it came; its end is held until the ledger has the record.

    The reply is left open: after its last event the client is done, whatever the backend does with the connection.
    """
    passing = _Passing(request, reply, passage)
    try:
        return await passing.run()
    except (TransportFault, Failure) as error:
        if not passing.response.prepared:  # the client can still have a status that tells of it
            if isinstance(error, TransportFault):
                passage.lease.report(ok=False)
            raise
        return await passing.break_off(error)


class _Passing:
    """One stream on its way."""

    def __init__(self, request: web.BaseRequest, reply: Response, passage: Passage) -> None:
        self._request, self._reply, self._passage = request, reply, passage
        self._account = passage.account
        self._reader = EventReader(hide_usage=passage.hide_usage)
        self._kept = bytearray() if passage.account.keeps else None
        passage.usage = self._reader.usage
        self.response = passage.response = web.StreamResponse(status=reply.status, headers=passage.head)

    async def run(self) -> web.StreamResponse:
        """Forward it to its end. Raises TransportFault, or Failure where the backend refuses our key."""
        reply, reader, write, kept = self._reply, self._reader, self.response.write, self._kept
        async for piece in reply:
            if reader.adds_text(piece):
                if kept is not None:
                    kept += piece
                await write(piece)
                continue
            if self._account.first is None:
                if _is_object(piece) or (_comes_whole(reply.headers) and not begins_events(piece)):
                    return await self._deliver(piece)
                if not begins_events(piece):
                    raise TransportFault("dropped", "no events")
                self._account.first_token()
            if reader.pending + len(piece) <= LONG:
                await self._show(reader.feed(piece))
            else:
                await self._show(await asyncio.to_thread(reader.feed, piece))
            if reader.done:
                break
            if reader.ended:
                await self._linger()
                break
        else:
            if self._account.first is None and _comes_whole(reply.headers):
                return await self._deliver(b"")
            await self._show(reader.close())
            if not reader.complete:
                raise TransportFault("dropped", "the stream ended before its end")
            await self._prepare()
            await self._settle(cut=self._may_be_cut())
        self._passage.judge(reader.failure)
        self._passage.response = None
        await self.response.write_eof()
        return self.response

    async def break_off(self, error: Exception) -> web.StreamResponse:
        """Tell the client by an event that nothing more comes."""
        passage = self._passage
        passage.lease.report(ok=False)
        failure = failure_of(error) or Failure(502, "the backend broke off")
        usage = passage.counted(self._reader.usage.at_end(passage.completions))
        record = self._account.passed(usage, passage.tariff, "interrupted", self._reply.status, error=failure.stored)
        record.stopped = "error"
        await self._account.settle(record)
        await passage.tell(failure)
        return self.response

    async def _show(self, shown: bytes) -> None:
        """Send what the client may see of events; behind the last of them the record stands first."""
        reader = self._reader
        refused = reader.failure is not None and reader.failure.about_key
        if shown and not (refused and reader.empty):
            await self._prepare()
            if self._kept is not None:
                self._kept += shown
            if reader.done or reader.ended:
                await self._settle()  # who has read the end may ask for the receipt at once
            await write_paced(self.response, shown)
        if refused and reader.failure is not None:
            raise self._passage.refused_key(reader.failure.status)

    async def _prepare(self) -> None:
        if not self.response.prepared:
            await self.response.prepare(self._request)

    def _may_be_cut(self) -> bool:
        """Whether nothing but the end of the connection has ended the reply, which a crash looks like too."""
        if any(name.lower() in _FRAMING for name in self._reply.headers):
            return False
        return self._kept is not None and _FINISH.search(self._kept) is None

    async def _settle(self, *, cut: bool = False) -> None:
        """Write the record; what may have been cut is not repeated for an `Idempotency-Key`."""
        kept = None if self._kept is None or (cut and self._account.keep) else bytes(self._kept)
        await self._account.settle(self._passage.record(self._reply.status, self._reader.failure, kept))

    async def _deliver(self, piece: bytes) -> web.Response:
        """A reply that turns out not to come in events."""
        return await deliver(await Whole.of(self._reply, _MOST, piece), self._passage)

    async def _linger(self) -> None:
        """What a backend sends behind the event that ends a response; many keep the connection open instead."""
        try:
            async with asyncio.timeout(_LINGER):
                async for piece in self._reply:
                    if shown := self._reader.feed(piece):
                        await self.response.write(shown)
                    if self._reader.done:
                        return
        except (TimeoutError, TransportFault):
            return  # nothing is missing
