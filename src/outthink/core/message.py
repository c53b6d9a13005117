"""One message of a chat. Knows its role and content; does not know any server's wire quirks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outthink.core.errors import BadInput

Content = str | Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message; `extra` carries tool calls and unknown fields through untouched."""

    role: str
    content: Content
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Message | Mapping[str, Any]) -> Message:
        """Read an OpenAI-style mapping; BadInput if it has no role."""
        if isinstance(value, Message):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
            raise BadInput("messages", value, "has no role", "use {'role': 'user', 'content': '...'}")
        rest = {key: item for key, item in value.items() if key not in ("role", "content")}
        return cls(value["role"], value.get("content"), rest)

    def wire(self) -> dict[str, Any]:
        """The mapping an OpenAI-compatible server expects."""
        return {"role": self.role, "content": self.content, **self.extra}

    @property
    def text(self) -> str:
        """The textual parts of the content, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content or ())
