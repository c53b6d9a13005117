"""One thread that reads, on a connection of its own, so that no question holds up a settlement.

Knows: a connection that breaks is opened once more. Does not know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from outthink.serving.ledger.database import Connect, Database, Gone
from outthink.serving.protocols import LedgerDown

T = TypeVar("T")


class Reader:
    """The thread."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._database: Database | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outthink-ledger-reader")

    async def ask(self, question: Callable[[Database], T]) -> T:
        """The answer to a question. Raises LedgerDown, or what the question raises."""
        if self._closed:
            raise LedgerDown("the ledger is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, question)

    def _answer(self, question: Callable[[Database], T]) -> T:
        for last in (False, True):
            try:
                if self._database is None:
                    self._database = self._connect()
                return question(self._database)
            except Gone as error:
                self._drop()
                if last or not error.again:
                    raise LedgerDown("the ledger's database cannot be used now", str(error)) from None
        raise AssertionError

    def _drop(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    async def close(self) -> None:
        """Disconnect and end."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
            self._thread.shutdown()
