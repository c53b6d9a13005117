"""A process with eight requests in flight on its embedded engine, for tests of how it ends.

Prints the child's process number once all eight are running, then does what its argument says.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

from outthink.core.request import Message, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.protocol import Call


async def main(how: str) -> None:
    engine = EmbeddedEngine()
    calls = [
        Call((Message("user", "Tell a long story."),), Sampling(max_tokens=900), seed=seed, index=seed)
        for seed in range(8)
    ]
    started: asyncio.Queue[None] = asyncio.Queue()

    async def run(call: Call) -> None:
        first = True
        async for _ in engine.generate(call):
            if first:
                first = False
                started.put_nowait(None)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(call)) for call in calls]
        for _ in calls:
            await started.get()
        print(engine.pid, flush=True)
        if how == "exit":
            sys.exit(0)
        if how == "exception":
            raise RuntimeError("of the parent")
        if how == "fork":
            if os.fork() == 0:  # a sibling that holds the pipe open, as worker processes do
                threading.Event().wait(5)
                os._exit(0)
            print("forked", flush=True)
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    if sys.argv[1] == "thread":
        thread = threading.Thread(target=lambda: asyncio.run(main("wait")))
        thread.start()
        thread.join()
    else:
        asyncio.run(main(sys.argv[1]))
