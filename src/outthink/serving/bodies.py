"""A request's body: received within bounds, then decoded.

Knows: sizes, times and JSON, by orjson where it is installed. Knows no field of any body.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from outthink.http.fields import JsonObject
from outthink.serving.admission import Limits
from outthink.serving.failure import Failure

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

decode: Callable[[bytes], Any] = json.loads if orjson is None else orjson.loads
"""Raises ValueError; orjson also refuses invalid UTF-8, and reads a chat five times as fast."""


def encode(value: object) -> bytes:
    """A value as JSON."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # numbers beyond 64 bits, lone surrogates
            pass
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


_RATE = 1 << 16  # bytes a second that a slow client may be expected to reach


async def receive(request: web.BaseRequest, limits: Limits) -> bytes:
    """The whole body. Raises Failure (413 too long, 408 too slow, 400 cut off)."""
    length = request.content_length
    if length is not None and length > limits.body:
        raise _too_long(limits)
    payload = request.content
    if payload.is_eof():  # the usual case: it came with its head
        content = payload.read_nowait()
        if len(content) > limits.body:
            raise _too_long(limits)
        return content
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds + (length or limits.body) / _RATE):
            while piece := await payload.readany():
                size += len(piece)
                if size > limits.body:
                    raise _too_long(limits)
                pieces.append(piece)
    except TimeoutError:
        raise Failure(
            408, f"body: not received within its time ({size} bytes came); send it faster", param="body", code="timeout"
        ) from None
    except web.RequestPayloadError as error:
        raise Failure(400, f"body: {error}; send it again", param="body", code="invalid_body") from None
    return b"".join(pieces)


def decode_body(content: bytes) -> JsonObject:
    """The JSON object of a body. Raises Failure that says what is wrong with it."""
    try:
        value = decode(content)
    except (ValueError, RecursionError) as error:
        try:
            content.decode()
        except UnicodeDecodeError as wrong:
            what = f"is not valid UTF-8 (byte {wrong.start})"
        else:
            what = "is empty" if not content.strip() else f"is not JSON ({_line(error)})"
        raise Failure(400, f"body: {what}; send one JSON object", param="body", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Failure(
            400, f"body: is a JSON {type(value).__name__}; send one JSON object", param="body", code="invalid_json"
        )
    return value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _too_long(limits: Limits) -> Failure:
    most = limits.body / (1 << 20)
    return Failure(
        413, f"body: is longer than {most:g} MiB; send less, or raise the limit", param="body", code="body_too_large"
    )
