"""The embedded model as a backend: a llama.cpp server of our own, that others of this machine cannot use.

Knows how the embedded engine is started with room for chats. What it serves goes through the same pool
and the same protocol as any other backend.
"""

from __future__ import annotations

from pathlib import Path

from outthink.core.errors import EngineError
from outthink.core.request import Message, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.protocol import Call

SLOTS = 8
CONTEXT = 4096


class Embedded:
    """One model in a child process.

    Args:
        model: path of a GGUF file, None for the published small one.
        slots: calls at once; each has `context` tokens for its prompt and its completion.
    """

    def __init__(self, model: Path | None = None, *, slots: int = SLOTS, context: int = CONTEXT) -> None:
        self.slots = slots
        self._engine = EmbeddedEngine(model, concurrency=slots, context=context)

    @property
    def model(self) -> str:
        """The model's name."""
        return self._engine.model

    async def start(self) -> tuple[str, str]:
        """Start the server; returns its URL and key. Raises EngineError where the model or the extra is missing."""
        await self._engine.prepare(Call((Message("user", "Hello"),), Sampling(max_tokens=16)))
        address = self._engine.address
        if address is None:
            raise EngineError("the embedded server ended as soon as it had started; see its log")
        return address

    async def aclose(self) -> None:
        """End the child process."""
        await self._engine.aclose()
