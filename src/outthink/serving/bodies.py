"""A request's body: received within bounds, then decoded. Knows sizes and JSON; knows no field of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from outthink.serving.admission import Limits
from outthink.serving.failure import Failure

# JSON in and out, as bytes. Knows orjson where it is installed; does not know what is said.


def _encoder() -> Callable[[Any], bytes]:
    try:
        import orjson
    except ImportError:
        return _plain

    def encode(value: Any) -> bytes:
        try:
            return orjson.dumps(value)
        except TypeError:  # numbers beyond 64 bits, lone surrogates
            return _plain(value)

    return encode


def _plain(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _decoder() -> Callable[[bytes], Any]:
    try:
        import orjson
    except ImportError:
        return json.loads
    loads: Callable[[bytes], Any] = orjson.loads
    return loads


encode = _encoder()
decode = _decoder()
"""Raises ValueError; orjson also refuses invalid UTF-8, and reads a chat five times as fast."""


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


def decode_body(content: bytes) -> dict[str, Any]:
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
