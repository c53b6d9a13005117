"""Compressed replies that nobody asked for: unpacked in any cut, within bounds."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.http.transport import TransportFault
from outthink.http.unpack import unpacked
from support.fake_transport import FakeReply

BODY = b'{"text": "' + b"abc" * 5000 + b'"}'


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def in_members(body: bytes) -> bytes:
    return gzip.compress(body[:100]) + gzip.compress(body[100:])


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in capitals": (" GZIP ", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "members": ("gzip", in_members),
    "behind the end": ("gzip", lambda body: gzip.compress(body) + b"\0\0"),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "two layers": ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    "identity as well": ("identity, gzip", gzip.compress),
    "labelled only": ("gzip", lambda body: body),
    "labelled deflate": ("deflate", lambda body: body),
    "labelled br": ("br", lambda body: body),
    "labelled by its letters": ("UTF-8", lambda body: body),
    "labelled as it is": ("identity", lambda body: body),
}


def read(content: bytes, encoding: str, cuts: list[float]) -> tuple[bytes, dict[str, str]]:
    """What is read of a body in pieces, and the headers."""
    places = [0, *sorted(int(cut * len(content)) for cut in cuts), len(content)]
    pieces = [content[start:stop] for start, stop in pairwise(places)]
    reply = unpacked(FakeReply(list(pieces), 200, {"content-type": "x", "content-encoding": encoding}))

    async def run() -> bytes:
        return b"".join([piece async for piece in reply])

    return asyncio.run(run()), dict(reply.headers)


@pytest.mark.parametrize("case", PACKED)
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.floats(0, 1), max_size=8))
def test_any_form_in_any_cut(case: str, cuts: list[float]) -> None:
    encoding, pack = PACKED[case]
    content, headers = read(pack(BODY), encoding, cuts)
    assert content == BODY
    assert headers == {"content-type": "x"}


def test_every_byte_alone() -> None:
    packed = gzip.compress(BODY)
    assert read(packed, "gzip", [at / len(packed) for at in range(len(packed))])[0] == BODY


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "aes128gcm"])
def test_what_nobody_here_can_unpack_is_a_fault(encoding: str) -> None:
    with pytest.raises(TransportFault, match="packed as"):
        read(b"\x1b\x00\x80", encoding, [0.5])
    assert read(b"", encoding, [])[0] == b""


@pytest.mark.parametrize("broken", [lambda body: body[:-9], lambda body: body[:40] + b"?" * 40 + body[80:]])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_broken_body_is_a_fault(broken: Callable[[bytes], bytes], encoding: str) -> None:
    packed = broken(PACKED[encoding][1](bytes(range(256)) * 40))
    with pytest.raises(TransportFault, match="dropped"):
        read(packed, encoding, [0.5])


def test_a_few_bytes_do_not_become_gigabytes() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()
    bomb = gzip.compress(packed)
    assert len(bomb) < 5000
    with pytest.raises(TransportFault, match="64 MiB"):
        read(bomb, "gzip, gzip", [])
