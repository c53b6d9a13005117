"""What an operator lets limited keys send to a model, and what bounds it.

Knows: the settings of a backend about request fields, and that of several backends of a model the strictest holds.
Does not know requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from outthink.core.errors import BadInput
from outthink.http.fields import CHAT_LENGTH_FIELDS, normalised

LENGTHS_BY_OWNER = {"library": CHAT_LENGTH_FIELDS[0], "llamacpp": CHAT_LENGTH_FIELDS[0]}
"""What caps a chat on servers that tell their kind by `owned_by` in the list of models: Ollama ignores
`max_completion_tokens`, as llama.cpp did for long, and would generate to the end of the context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSettings:
    """One backend's.

    Args:
        setting: where its operator writes them, for messages.
        length_name: the field that caps a chat there, None to go by the client's.
        allow_fields: fields, parts and tools that pass although their meaning or size is not known.
        image_tokens: of one picture at most, None where nobody has said.
        audio_tokens_per_second: of sound at most, None where nobody has said.
    """

    setting: str = "[[serve.backends]]"
    length_name: str | None = None
    allow_fields: tuple[str, ...] = ()
    image_tokens: int | None = None
    audio_tokens_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.length_name not in (None, *CHAT_LENGTH_FIELDS):
            remedy = f"use {' or '.join(CHAT_LENGTH_FIELDS)}, or leave it out"
            raise BadInput("length_name", self.length_name, "is no length of a chat", remedy)
        for name, value in (
            ("image_tokens", self.image_tokens),
            ("audio_tokens_per_second", self.audio_tokens_per_second),
        ):
            if value is not None and not 0 < value <= 1e9:
                raise BadInput(name, value, "bounds nothing", "give a number above 0, or leave it out")


@dataclass(frozen=True, slots=True)
class FieldRules:
    """What holds for a model, whichever of its backends is asked.

    `allowed` names are normalised; `lengths` are the names that cap a chat by URL, where backends differ.
    """

    settings: tuple[FieldSettings, ...] = ()
    length_name: str | None = None
    lengths: tuple[tuple[str, str], ...] = ()
    allowed: frozenset[str] = frozenset()
    image_tokens: int | None = None
    audio_tokens_per_second: float | None = None

    @classmethod
    def strictest(cls, settings: Sequence[FieldSettings]) -> FieldRules:
        """Of several backends: what all of them allow, and the largest of their bounds."""
        if not settings:
            return cls()
        allowed = [frozenset(map(normalised, each.allow_fields)) for each in settings]
        pictures = [each.image_tokens for each in settings if each.image_tokens is not None]
        sounds = [each.audio_tokens_per_second for each in settings if each.audio_tokens_per_second is not None]
        return cls(
            tuple(settings),
            allowed=frozenset.intersection(*allowed),
            image_tokens=max(pictures) if len(pictures) == len(settings) else None,
            audio_tokens_per_second=max(sounds) if len(sounds) == len(settings) else None,
        )

    def named(self, lengths: Mapping[str, str], backends: int) -> FieldRules:
        """With how a chat's length is called at so many backends: one name for all of them, or each its own."""
        if len(lengths) == backends and len(names := set(lengths.values())) == 1:
            return replace(self, length_name=names.pop(), lengths=())
        return replace(self, lengths=tuple(lengths.items()))

    def remedy(self, setting: str, value: str) -> str:
        """What the operator would write, and where: the first backend that lacks it."""

        def lacks(each: FieldSettings) -> bool:
            if setting == "image_tokens":
                return each.image_tokens is None
            if setting == "audio_tokens_per_second":
                return each.audio_tokens_per_second is None
            return value.strip('["]') not in each.allow_fields

        place = next((each.setting for each in self.settings if lacks(each)), "[[serve.backends]]")
        return f"leave it out, or have the proxy's operator set {place} {setting} = {value}"
