"""The client for code without async: the same object, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, Unpack

from outthink.client.batch import BatchResult
from outthink.client.client import Client
from outthink.client.options import BatchOptions, Model, Options, Prompt
from outthink.client.progress import AskEvent
from outthink.core.errors import BadInput
from outthink.core.receipt import Result

T = TypeVar("T")


class SyncClient(AbstractContextManager["SyncClient", None]):
    """A `Client` whose calls wait for their results; works inside a running event loop too (notebooks)."""

    def __init__(self, model: Model | Sequence[Model] | None = None, /, **options: Unpack[Options]) -> None:
        self._client = Client(model, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="outthink-client", daemon=True)
        self._thread.start()

    def ask(self, prompt: Prompt, **options: Unpack[Options]) -> Result:
        """Answer one request; see `Client.ask`."""
        return self._wait(self._client.ask(prompt, **options))

    def ask_batch(self, prompts: Sequence[Prompt], **options: Unpack[BatchOptions]) -> BatchResult:
        """Answer many requests within one budget; see `Client.ask_batch`."""
        return self._wait(self._client.ask_batch(prompts, **options))

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Iterator[AskEvent]:
        """Answer one request and yield what happens meanwhile; see `Client.stream`."""
        events = self._client.stream(prompt, **options)
        try:
            while (event := self._wait(_following(events))) is not None:
                yield event
        finally:
            self._wait(events.aclose())

    def close(self) -> None:
        """Close what was opened here, and end the thread."""
        if self._loop.is_closed():
            return
        self._wait(self._client.aclose())
        self._wait(self._loop.shutdown_default_executor())  # in whose threads verifiers are opened
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise BadInput("client", self._client, "is closed", "make a new one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C arrives here, while the work goes on in its thread
            future.cancel()
            raise


async def _following(events: AsyncIterator[AskEvent]) -> AskEvent | None:
    # run_coroutine_threadsafe takes a coroutine, and what anext returns is none.
    return await anext(events, None)


def ask_sync(prompt: Prompt, **options: Unpack[Options]) -> Result:
    """`ask` for code without async; works inside a running event loop too (notebooks)."""
    with SyncClient() as client:
        return client.ask(prompt, **options)
