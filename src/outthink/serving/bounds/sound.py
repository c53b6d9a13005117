"""How long a sound is at most, by its bytes.

Knows: the slowest rate of sound that does not say otherwise, and what the heads of WAVE and MP3 files tell. Formats
that pack silence without bound have no answer. Decodes no sound.
"""

from __future__ import annotations

import base64

_SLOWEST = 1000.0
"""Bytes of a second of sound at least, but for what says otherwise in its head: MP3's lowest rate is 8 kbit/s."""
_PACKED = (
    *(
        b"fLaC",
        b"OggS",
        b"\x1aE\xdf\xa3",
        b"FORM",
        b"caff",
        b"#!AM",
        b"#!SI",
        b"\x02#!SI",
        b"MThd",
        b"\x30\x26\xb2\x75",
    ),
    *(b"ADIF", b"wvpk", b"MAC ", b"TTA1", b"MPCK", b"MP+", b"\x56\xe0", b"DSD ", b"FRM8", b".ra\xfd", b".RMF"),
    *(b"RF64", b"BW64", b"RIFX", b"riff", b".snd", b"dns.", b"NIST", b"Crea", b"\x64\xa3", b"\0\1\xa3\x64", b"2BIT"),
)
"""Formats that pack hours of silence into a few bytes, or say in their heads that a second takes one."""
_PLAIN_WAVE = frozenset({1, 3, 6, 7, 0xFFFE})  # samples of one size each


def sound_seconds(data: str) -> float | None:
    """Seconds of a sound in base64 (or a `data:` URL) at most; None where its bytes do not bound them."""
    head, comma, rest = data.partition(",")
    if comma:
        if not (head.startswith("data:") and head.endswith(";base64")):
            return None
        data = rest
    data = "".join(data.split())
    try:
        begin = _bytes_at(data, 0)
        if begin.startswith(b"ID3") and len(begin) > 10:  # a tag of any length before the sound itself
            size = sum(byte << shift for byte, shift in zip(begin[6:10], (21, 14, 7, 0), strict=True))
            begin = _bytes_at(data, 10 + size)
            if not begin.startswith(b"\xff"):
                return None
    except ValueError:
        return None
    size_in_bytes = len(data) * 3 / 4
    if begin.startswith(b"RIFF"):
        return _wave_seconds(begin, size_in_bytes)
    packed_frames = begin[:1] == b"\xff" and begin[1:2] and begin[1] & 0xF6 == 0xF0  # AAC
    if packed_frames or begin.startswith(_PACKED) or begin[4:8] == b"ftyp":
        return None
    return size_in_bytes / _SLOWEST


def _bytes_at(data: str, offset: int) -> bytes:
    """Up to 3 KB of what base64 stands for, from a byte on. Raises ValueError."""
    start = offset // 3 * 4
    piece = data[start : start + 4096]
    return base64.b64decode(piece + "=" * (-len(piece) % 4), validate=True)[offset % 3 :]


def _wave_seconds(begin: bytes, size: float) -> float | None:
    at = begin.find(b"fmt ")
    fields = begin[at + 8 : at + 24]
    if at < 0 or len(fields) < 16 or begin.find(b"fmt ", at + 4) >= 0:
        return None
    code, _, rate, told, block = (
        int.from_bytes(fields[low:high], "little") for low, high in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14))
    )
    slowest = min(rate * block, told)
    return size / slowest if code in _PLAIN_WAVE and slowest > 0 else None
