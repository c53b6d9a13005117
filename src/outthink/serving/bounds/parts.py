"""Pictures, sound and the like among the messages of a request: how many tokens each may cost.

Knows: the parts of messages and of response items, and where a server may find a picture or a sound in them. What
neither shows its size nor has a bound set by the operator is refused. Does not know budgets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from outthink.http.events import Json, JsonObject
from outthink.http.fields import normalised
from outthink.serving.bounds.sound import sound_seconds
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
    {"video", "videourl", "inputvideo", "file", "inputfile", "fileurl", "fileid", "fileids", "images", "videos"}
    | {"audios", "files", "attachments", "document", "multimodaldata", "url", "uri", "fileuri", "imagefile", "filedata"}
    | {"inlinedata", "mediaurl"}
)
_SHOWN = frozenset({"content", "text", "tool_calls", "function_call", "arguments", "output", "input", "summary"})
"""Fields of which an item has one, or else its id stands for what the server has kept."""
_PROSE = frozenset(
    {"tool_calls", "function_call", "arguments", "input", "annotations", "citations", "logprobs", "caller"}
    | {"reasoning_details", "thinking_blocks", "provider_specific_fields", "metadata", "cache_control"}
)
"""Fields of a message or part that hold what programs say to each other, whatever names are in it."""
_MEDIA = re.compile(
    r"(?:^|_)(?:image|img|picture|photo|pixel|video|clip|frame|audio|sound|speech|voice|media|file|document|attachment"
    r"|url|uri|src)s?(?:_|$)"
)
"""In a name that nobody knows: what some server may take for more than its bytes."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|-")
_ADDRESS = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)


_PLAIN = frozenset({"role", "content", "type", "text", "name", "tool_call_id", "refusal", "reasoning_content"})
_PLAIN_TYPES = (None, "text", "input_text", "output_text", "message")


def _is_text(part: Json) -> bool:
    """Whether a message or part is text and nothing else, as nearly all are."""
    if not isinstance(part, dict) or not _PLAIN.issuperset(part) or part.get("type") not in _PLAIN_TYPES:
        return False
    return all(type(value) is str for value in part.values())


def _is_elsewhere(name: str, value: Json) -> bool:
    """Whether a field that nobody knows may stand for a picture, a sound or a file."""
    if _MEDIA.search(_CAMEL.sub("_", name).lower()) is not None:
        return True
    texts = (each for each in (value if isinstance(value, list) else (value,)) if isinstance(each, str))
    return any(_ADDRESS.match(each) is not None for each in texts)


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


_NESTING = frozenset({list, dict})
Place = tuple["Place | None", str | int]
"""Where something stands: what holds it, and its name or number there. Only a refusal writes it out."""


def written_place(place: Place) -> str:
    """A place as messages name it."""
    steps: list[str] = []
    here: Place | None = place
    while here is not None:
        here, step = here
        steps.append(f"[{step}]" if isinstance(step, int) else step if here is None else f".{step}")
    return "".join(reversed(steps))


class PartBounds:
    """Adds up what the parts of one request may cost; raises Failure for one that nobody has bounded.

    `tokens` are those of pictures and sound, `content` the bytes that these take in the request.
    """

    def __init__(self, rules: FieldRules) -> None:
        self._rules = rules
        self.tokens = self.content = 0

    def add(self, place: str, value: Json) -> None:
        """Messages, prompts, items, or one of them."""
        waiting: list[tuple[Place, Json]] = [((None, place), value)]
        while waiting:
            at, here = waiting.pop()
            if isinstance(here, dict):
                inside = self._object(at, here)
            elif isinstance(here, list) and not _NESTING.isdisjoint(map(type, here)):
                inside = [
                    ((at, index), below)
                    for index, below in enumerate(here)
                    if type(below) in (list, dict) and not _is_text(below)
                ]
            else:
                continue
            waiting += inside[::-1]  # so that the first one is refused first

    def _object(self, place: Place, part: JsonObject) -> list[tuple[Place, Json]]:
        """One message, item or part; returns what is to be looked at inside it."""
        kind = part.get("type")
        known = kind is None or (isinstance(kind, str) and kind in _TEXTS)
        inside: list[tuple[Place, Json]] = []
        counted = False
        for name, value in part.items():
            if name in _PLAIN or not value:
                if isinstance(value, list | dict) and value:
                    inside.append(((place, name), value))
                continue
            key = normalised(name)
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
            elif name not in _PROSE:
                if _is_elsewhere(name, value):
                    self._refuse_unless_allowed(place, name)
                if isinstance(value, list | dict):
                    inside.append(((place, name), value))
        if part.get("id"):
            if kind == "reasoning":  # its summary is less than what the server has kept
                known = bool(part.get("encrypted_content") or part.get("content"))
            elif known and _SHOWN.isdisjoint(part):
                known, kind = False, "item_reference"
        if not known and not counted:
            self._refuse_unless_allowed(place, kind)
        return inside

    def _refuse_unless_allowed(self, place: Place, *kinds: Json) -> None:
        names: Collection[str] = [kind for kind in kinds if isinstance(kind, str)]
        if not any(normalised(name) in self._rules.allowed for name in names):
            kind = next(iter(names), written_place(place))
            what = "brings in tokens that the request does not show, and this key has a budget"
            raise self._refused(place, kind, what, self._rules.remedy("allow_fields", f'["{kind}"]'))

    def _picture(self, place: Place, value: Json) -> None:
        tokens = self._rules.image_tokens
        if tokens is None:
            what = "is a picture, whose tokens the request does not show, and this key has a budget"
            raise self._refused(place, "image", what, self._rules.remedy("image_tokens", "N"))
        for each in _leaves(value):
            for data in _leaves(each["url"] if isinstance(each, dict) and "url" in each else each):
                self.tokens += tokens
                if isinstance(data, str) and data[:5].lower() == "data:":
                    if data[:11].lower() != "data:image/":  # of a film or a document, one is not the bound
                        self._refuse_unless_allowed(place, data[5:60].partition(";")[0].partition(",")[0])
                    self.content += len(data)

    def _sound(self, place: Place, value: Json) -> None:
        rate = self._rules.audio_tokens_per_second
        if rate is None:
            what = "is sound, whose tokens the request does not show, and this key has a budget"
            raise self._refused(place, "audio", what, self._rules.remedy("audio_tokens_per_second", "N"))
        sources = (
            [value.get(name) for name in ("data", "url") if value.get(name)] if isinstance(value, dict) else [value]
        )
        data = sources[0] if len(sources) == 1 else None  # nobody knows which of two the server reads
        seconds = sound_seconds(data) if isinstance(data, str) else None
        if seconds is None or not isinstance(data, str):
            raise self._refused(place, "audio", "is sound of unknown length", "send its bytes, as wav or mp3")
        self.tokens += math.ceil(seconds * rate)
        self.content += len(data)

    @staticmethod
    def _refused(place: Place, value: Json, problem: str, remedy: str) -> Failure:
        return bad_field(written_place(place), value, problem, remedy, code="unbounded_input")
