"""`ask` for code without async. Knows event loops and threads; the main path is in `api`."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from outthink.api import Prompt, ask
from outthink.core.receipt import Result


def ask_sync(prompt: Prompt, **options: Any) -> Result:
    """`ask` for code without async; works inside a running event loop too (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(ask(prompt, **options))
    outcome: list[Result | BaseException] = []

    def work() -> None:
        try:
            outcome.append(asyncio.run(ask(prompt, **options)))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread below
            outcome.append(error)

    thread = threading.Thread(target=work, name="outthink-ask")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
