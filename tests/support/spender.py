"""A process that spends from a key's budget as fast as it can, and may be killed in the middle of it.

`python spender.py URL SECRET NAME BOUND [LAST]`: for every request that is settled a line `ID TOKENS`, then `over`. It
kills itself after LAST lines, while its other requests go on: from outside nobody is sure to be in time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from outthink.serving.ledger import Rules
from outthink.serving.protocols import OverBudget
from support.ledgers import opened, record


async def main(url: str, secret: str, name: str, bound: int, last: int | None = None) -> None:
    """Eight requests at a time, until the budget is used up."""
    draw = random.Random(name)
    async with opened(url, rules=Rules(lease=1.0)) as ledger:
        key = await ledger.authorise(secret)
        assert key is not None
        numbers, lines = itertools.count(), itertools.count(1)

        async def spend() -> None:
            while True:
                number = f"{name}-{next(numbers)}"
                held = await ledger.reserve(key, bound, None, number)
                tokens = draw.randint(0, bound)
                spent = record(number, key.id, started=time.time(), tokens=tokens)
                for _ in range(draw.randint(0, 50)):  # settle early or late, while the others go on
                    await asyncio.sleep(0)
                await asyncio.gather(*(ledger.settle(held, spent) for _ in range(draw.randint(1, 2))))
                print(number, tokens, flush=True)
                if next(lines) == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        ended = await asyncio.gather(*(spend() for _ in range(8)), return_exceptions=True)
        assert all(isinstance(error, OverBudget) for error in ended), ended
    print("over", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])))
