"""The engine of one chat request: every sample drawn from the pool's backends, kept whole, alone or in a shared call.

Knows: the pool's places, the queue before them, and how a session's call becomes a call of the chat. Facts about the
servers are shared by all requests for a model; nothing of a client is. Does not know sessions or strategies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from outthink.engines.protocol import Call, Delta, Engine, Event, Features, Finish
from outthink.serving.chat.calls import ChatCall, ClientFieldsEngine, RawChoice
from outthink.serving.chat.shared import CallSharing


class ChatEngine(Engine):
    """Calls of one request to one model.

    Args:
        client: sends them.
        concurrency: calls that may be in flight for this request.
    """

    model: str
    concurrency: int

    def __init__(self, client: ClientFieldsEngine, *, concurrency: int = 64) -> None:
        self.client, self.concurrency = client, concurrency
        self.samples: dict[str, RawChoice] = {}
        """Finished samples by their texts; the first of equal ones."""
        self._sharing: CallSharing | None = None

    @property
    def model(self) -> str:
        """The model's name."""
        return self.client.model

    @property
    def features(self) -> Features:
        """What is known of the backends of this model."""
        return self.client.features

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server refused or ignored, in words."""
        shared = self._sharing is not None and self._sharing.used
        note = ("samples of one prompt shared a call, which read the prompt once",) if shared else ()
        return self.client.notes + note

    def share_calls(self, sharing: CallSharing | None) -> None:
        """From now on samples that start together may share a call."""
        self._sharing = sharing

    async def prepare(self, call: Call) -> None:
        """Nothing to get ready: the pool knows the model."""

    async def generate(self, call: Call) -> AsyncGenerator[Event]:
        """Produce one completion; closing the iterator closes its connection."""
        chat_call = ChatCall.of(call)
        choice = chat_call.choice
        pieces: list[str] = []
        shared = self._sharing.join(self.client, chat_call) if self._sharing is not None else None
        async with aclosing(self.client.generate(chat_call) if shared is None else shared.events()) as events:
            async for event in events:
                if isinstance(event, Finish):
                    if tail := choice.tail:
                        pieces.append(tail)
                        yield Delta(tail, "", event.completion_tokens)
                    choice.text = "".join(pieces)
                    self.samples.setdefault(choice.text, choice)
                elif event.text:
                    pieces.append(event.text)
                yield event

    async def count_prompt(self, call: Call) -> int | None:
        """Exact prompt tokens by the server's own tokeniser, None where it cannot count them."""
        return await self.client.count_prompt(call)

    async def count_text(self, text: str) -> int | None:
        """Tokens of a text by the server's own tokeniser."""
        return await self.client.count_text(text)

    async def aclose(self) -> None:
        """Connections belong to the proxy."""
