"""Random request bodies that ask for more than they seem to, each with a server that would give it.

Knows: known and invented names of lengths in every spelling, the forms that a number takes, where it may be hidden, and
what multiplies or is not shown; and bodies of honest clients, which have to be served. Sends nothing.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from outthink.http.fields import names_of
from support.lenient_server import CHAT, COMPLETIONS, EMBEDDINGS, OWN_LENGTHS, RESPONSES, Dialect

INVENTED = tuple(
    f"{first}_{second}{third}"
    for first in ("max", "limit", "num", "cap", "desired", "budget", "upto", "most", "target", "gen")
    for second in ("reply", "answer", "decode", "write", "emit", "sample", "step", "word", "stream", "output")
    for third in ("_tokens", "_count")
)
"""Two hundred names of lengths that no server is known to have."""
HOLDERS = ("options", "generation_config", "extra_body", "sampling_params", "parameters", "custom_params")
STRANGE_HOLDERS = ("vendor", "engine_args", "x_settings", "inference")
KNOWN = tuple(
    name for kind in ("plain", "free", "schema", "tier", "hidden") for name in names_of(kind) if "." not in name
)
"""Fields that mean something else, in which some server may look for a length all the same."""
LENGTHS, CHOICES, BEAMS = names_of("length"), names_of("choices"), names_of("beams")
THINKING, FLOORS = names_of("thinking"), names_of("floor")
MODELS = ("toy", "toy", "toy", "outthink/single", "outthink/self-consistency@2")
"""Strategies that end no call early: what a server works on while it is left is not known to be spent."""

Pair = tuple[str, Any]


class RawObject(list[Pair]):
    """A JSON object whose names may be doubled."""


def written(value: Any) -> str:
    """A value as JSON, doubled names included."""
    if isinstance(value, RawObject):
        return "{" + ", ".join(f"{json.dumps(name)}: {written(below)}" for name, below in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


@dataclass(frozen=True)
class DrawnBody:
    """A body, the server that it is meant for, and whether nothing in it is out of the ordinary."""

    path: str
    content: bytes
    dialect: Dialect
    honest: bool


@dataclass
class _Drawing:
    """One body on its way."""

    random: Random
    path: str
    pairs: RawObject
    lengths: list[str] = field(default_factory=list)
    holders: set[str] = field(default_factory=set)

    def spelled(self, name: str) -> str:
        """A name in one of the ways that a lenient server takes for the same."""
        first, *rest = name.split("_")
        ways = [name] * 4 + [name.upper(), name.title(), name.replace("_", "-")]
        return self.random.choice([*ways, first + "".join(part.title() for part in rest)])

    def value(self, most: int) -> Any:
        """A count, as one of the forms in which it may stand."""
        count = self.random.choice((1, 2, 7, 30, 90, most // 2, most, most * 10))
        forms = [count] * 3 + [str(count), float(count), f"{count}.0", f" {count} ", [count], [str(count)]]
        return self.random.choice([*forms, -1, 0, None, count + 0.5, {"value": count}, f"{count} tokens", f"{count}e1"])

    def put(self, name: str, value: Any, *, hidden: bool = True) -> str:
        """Write a field, on the outside or in an object; returns its path."""
        draw, spelled = self.random.random(), self.spelled(name)
        if not hidden or draw < 0.6:
            self.pairs.append((spelled, value))
            if draw < 0.1:  # twice, the second time with another value
                self.pairs.append((spelled, self.value(2000)))
            return spelled
        holder = self.random.choice(HOLDERS if draw < 0.8 else STRANGE_HOLDERS if draw < 0.93 else KNOWN)
        self.holders.add(holder)
        inner: Any = RawObject([(spelled, value)])
        if draw > 0.95:
            inner = RawObject([("inner", inner)])
        self.pairs.append((holder, inner))
        return f"{holder}.{spelled}"

    def length(self) -> None:
        """A length under a known or an invented name, which the server then obeys."""
        name = self.random.choice(LENGTHS if self.random.random() < 0.5 else INVENTED)
        self.lengths.append(self.put(name, self.value(4000)))
        self.lengths.append(name)

    def multiplicity(self) -> None:
        """Several completions of several prompts."""
        if self.path == COMPLETIONS and self.random.random() < 0.5:
            prompt = self.random.choice((["a"] * 10, [[1, 2], [3]], [5, 6, 7], ["a", [1]], [["a"]], [{"text": "a"}]))
            self.pairs[:] = [pair for pair in self.pairs if pair[0] != "prompt"]
            self.pairs.append(("prompt", prompt))
        else:
            self.put(self.random.choice((*CHOICES, *BEAMS)), self.value(16))

    def beside(self) -> None:
        """Tokens that are granted beside the length, or in spite of it."""
        if self.random.random() < 0.5:
            self.put(self.random.choice(THINKING), self.value(600))
        else:
            self.put(self.random.choice(FLOORS), self.value(600))

    def unseen(self) -> None:
        """Something whose size the request does not show."""
        name, value = self.random.choice(_UNSEEN)
        part = self.random.choice(_PARTS)
        if self.path in (CHAT, RESPONSES) and self.random.random() < 0.5:
            place = "messages" if self.path == CHAT else "input"
            self.pairs.append((place, [RawObject([("role", "user"), ("content", [_raw(part)])])]))
        else:
            self.put(name, _raw(value), hidden=False)


def _raw(value: Any) -> Any:
    if isinstance(value, dict):
        return RawObject((name, _raw(below)) for name, below in value.items())
    return [_raw(below) for below in value] if isinstance(value, list) else value


_SOUND = base64.b64encode(b"\x00" * 40_000).decode()
_PARTS = (
    {"type": "image_url", "image_url": {"url": "http://pictures.example/a.png"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}},
    {"type": "input_image", "image_url": "http://pictures.example/a.png"},
    {"type": "input_image", "file_id": "file-abc"},
    {"type": "input_audio", "input_audio": {"data": _SOUND, "format": "wav"}},
    {"type": "video_url", "video_url": {"url": "http://pictures.example/a.mp4"}},
    {"type": "file", "file": {"file_id": "file-abc"}},
    {"type": "input_file", "file_url": "http://pictures.example/a.pdf"},
)
_UNSEEN = (
    ("previous_response_id", "resp-abc"),
    ("conversation", "conv-abc"),
    ("prediction", {"type": "content", "content": "word " * 50}),
    ("web_search_options", {}),
    ("data_sources", [{"type": "azure_search"}]),
    ("chat_template", "{% for x in range(9) %}a{% endfor %}"),
    ("tools", [{"type": "web_search"}]),
    ("tools", [{"type": "function", "function": {"name": "f"}}, {"type": "code_interpreter"}]),
)
_SCHEMA = {"type": "object", "properties": {"max_tokens": {"type": "integer", "minimum": 3, "maximum": 900}}}
_HONEST: dict[str, tuple[Pair, ...]] = {
    "*": (("temperature", 0.7), ("top_p", 0.9), ("user", "user-17"), ("seed", 7), ("metadata", {"build": "1204"})),
    CHAT: (
        ("max_tokens", 20),
        ("max_completion_tokens", 20),
        ("logit_bias", {"50256": -100}),
        ("stop", ["1.", "2."]),
        ("n", 2),
        ("top_logprobs", 3),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}]),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}),
        ("stream_options", {"include_usage": True}),
    ),
    COMPLETIONS: (("max_tokens", 20), ("best_of", 2), ("logprobs", 5), ("suffix", "7"), ("prompt", ["a", "b"])),
    RESPONSES: (
        ("max_output_tokens", 20),
        ("instructions", "Answer 7."),
        ("reasoning", {"effort": "low"}),
        ("max_tool_calls", 4),
        ("text", {"format": {"type": "json_schema", "name": "a", "schema": _SCHEMA}}),
    ),
    EMBEDDINGS: (("dimensions", 64), ("encoding_format", "float"), ("input", ["a", "b"]), ("input", [[1, 2], [3]])),
}


def draw_body(random: Random) -> DrawnBody:
    """A body and its server."""
    path = random.choice((CHAT, CHAT, CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS))
    text = "word " * random.randrange(1, 12)
    place, value = {
        CHAT: ("messages", [RawObject([("role", "user"), ("content", text)])]),
        COMPLETIONS: ("prompt", text),
    }.get(path, ("input", text))
    model = random.choice(MODELS) if path == CHAT else MODELS[0]
    drawing = _Drawing(random, path, RawObject([("model", model), (place, value)]))
    honest = random.random() < 0.2
    if honest:
        for name, given in random.sample((*_HONEST["*"], *_HONEST[path]), 3):
            drawing.pairs[:] = [pair for pair in drawing.pairs if pair[0] != name]
            drawing.pairs.append((name, _raw(given)))
    else:
        ways = (drawing.length, drawing.length, drawing.length, drawing.multiplicity, drawing.beside, drawing.unseen)
        for way in random.sample(ways, random.randrange(1, 4)):
            way()
    if path != EMBEDDINGS and random.random() < 0.3:
        drawing.pairs.append(("stream", True))
    if not honest:
        random.shuffle(drawing.pairs)
    dialect = Dialect(
        lengths=tuple(drawing.lengths),
        capitals=random.random() < 0.5,
        first=random.random() < 0.5,
        lists=random.random() < 0.5,
        deep=random.random() < 0.3,
        holders=tuple(drawing.holders) if random.random() < 0.7 else (),
        thinking=THINKING,
        floors=FLOORS,
    )
    if honest:
        dialect = replace(Dialect(), lengths=OWN_LENGTHS[path])
    return DrawnBody(path, written(drawing.pairs).encode(), dialect, honest)
