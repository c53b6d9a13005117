"""Pictures, sound and the like among the messages of a request: how many tokens each may cost.

Knows: the parts of messages and of response items, where a server may find a picture or a sound in them, and how long a
sound is at most, by its bytes. What neither shows its size nor has a bound set by the operator is refused. Does not
know budgets.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection

from outthink.http.events import Json, JsonObject
from outthink.http.fields import normalised
from outthink.serving.failure import Failure, bad_field
from outthink.serving.pool.rules import FieldRules

_TEXTS = frozenset(
    {"text", "input_text", "output_text", "refusal", "thinking", "reasoning", "redacted_thinking", "summary_text"}
    | {"reasoning_text", "tool_use", "tool_result", "message", "function_call", "function_call_output"}
    | {"custom_tool_call", "custom_tool_call_output"}
)
"""Parts and items whose bytes are all that they are."""
_PICTURES = frozenset(map(normalised, ("image_url", "image", "input_image")))
_SOUNDS = frozenset(map(normalised, ("input_audio", "audio_url", "audio")))
_UNSHOWN = frozenset(
    map(normalised, ("video", "video_url", "input_video", "file", "input_file", "file_url", "file_id", "file_ids"))
) | frozenset(map(normalised, ("images", "videos", "audios", "files", "attachments", "document", "multimodal_data")))
_PROSE = frozenset(
    {"tool_calls", "function_call", "arguments", "input", "annotations", "citations", "logprobs", "caller"}
    | {"reasoning_details", "thinking_blocks", "provider_specific_fields", "metadata", "cache_control"}
)
"""Fields of a message or part that hold what programs say to each other, whatever names are in it."""


def _leaves(value: Json) -> list[Json]:
    """What lists of lists hold, or the value itself."""
    leaves: list[Json] = []
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, list):
            waiting += here
        else:
            leaves.append(here)
    return leaves


class PartBounds:
    """Adds up what the parts of one request may cost; raises Failure for one that nobody has bounded.

    `tokens` are those of pictures and sound, `content` the bytes that these take in the request.
    """

    def __init__(self, rules: FieldRules) -> None:
        self._rules = rules
        self.tokens = self.content = 0

    def add(self, place: str, value: Json) -> None:
        """Messages, prompts, items, or one of them."""
        waiting: list[tuple[str, Json]] = [(place, value)]
        while waiting:
            at, here = waiting.pop()
            if isinstance(here, dict):
                inside = self._object(at, here)
            elif isinstance(here, list):
                inside = [(f"{at}[{index}]", below) for index, below in enumerate(here) if type(below) in (list, dict)]
            else:
                continue
            waiting += inside[::-1]  # so that the first one is refused first

    def _object(self, place: str, part: JsonObject) -> list[tuple[str, Json]]:
        """One message, item or part; returns what is to be looked at inside it."""
        kind = part.get("type")
        known = kind is None or (isinstance(kind, str) and kind in _TEXTS)
        inside: list[tuple[str, Json]] = []
        counted = False
        for name, value in part.items():
            key = normalised(name)
            if not value:
                continue
            if key in self._rules.allowed:
                counted = True
            elif key in _PICTURES or (key == "fileid" and kind in ("input_image", "image")):
                self._picture(place, value)
                counted = True
            elif key in _SOUNDS:
                self._sound(place, value)
                counted = True
            elif key in _UNSHOWN:
                self._refuse_unless_allowed(place, kind if isinstance(kind, str) else name, name)
            elif name not in _PROSE and isinstance(value, list | dict):
                inside.append((f"{place}.{name}", value))
        if kind == "reasoning" and part.get("id") and not (part.get("encrypted_content") or part.get("content")):
            known = False  # the server adds what it has kept under that id
        if not known and not counted:
            self._refuse_unless_allowed(place, kind)
        return inside

    def _refuse_unless_allowed(self, place: str, *kinds: Json) -> None:
        names: Collection[str] = [kind for kind in kinds if isinstance(kind, str)]
        if not any(normalised(name) in self._rules.allowed for name in names):
            kind = next(iter(names), None)
            what = "brings in tokens that the request does not show, and this key has a budget"
            raise self._refused(place, kind, what, self._rules.remedy("allow_fields", f'["{kind}"]'))

    def _picture(self, place: str, value: Json) -> None:
        tokens = self._rules.image_tokens
        if tokens is None:
            what = "is a picture, whose tokens the request does not show, and this key has a budget"
            raise self._refused(place, "image", what, self._rules.remedy("image_tokens", "N"))
        pictures = _leaves(value)
        self.tokens += tokens * len(pictures)
        for each in pictures:
            data = each.get("url") if isinstance(each, dict) else each
            if isinstance(data, str) and data.startswith("data:"):
                self.content += len(data)

    def _sound(self, place: str, value: Json) -> None:
        rate = self._rules.audio_tokens_per_second
        if rate is None:
            what = "is sound, whose tokens the request does not show, and this key has a budget"
            raise self._refused(place, "audio", what, self._rules.remedy("audio_tokens_per_second", "N"))
        data = (value.get("data") or value.get("url")) if isinstance(value, dict) else value
        seconds = sound_seconds(data) if isinstance(data, str) else None
        if seconds is None or not isinstance(data, str):
            raise self._refused(place, "audio", "is sound of unknown length", "send its bytes, as wav or mp3")
        self.tokens += math.ceil(seconds * rate)
        self.content += len(data)

    @staticmethod
    def _refused(place: str, value: Json, problem: str, remedy: str) -> Failure:
        return bad_field(place, value, problem, remedy, code="unbounded_input")


_SLOWEST = 1000.0
"""Bytes of a second of sound at least, but for what says otherwise in its head: MP3's lowest rate is 8 kbit/s."""
_PACKED = (b"fLaC", b"OggS", b"\x1aE\xdf\xa3", b"FORM", b"caff", b"#!AM", b"MThd")
"""Formats that pack hours of silence into a few bytes."""
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
