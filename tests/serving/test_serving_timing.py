"""What the proxy and its ledger do at once, told from what would come by itself a little later."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.protocols import Terms
from support.chat_server import ChatServer, chat, models
from support.ledgers import opened
from support.policies import policy

pytestmark = pytest.mark.timing
LOOKS_EVERY = 2.0
"""Seconds after which a changed policy is found without a signal."""


def test_a_new_key_works_at_once_and_wrong_ones_are_looked_up_seldom(ledger_url: str) -> None:
    async def job() -> None:
        async with opened(ledger_url, refresh=3600) as one, opened(ledger_url) as two:
            await one.add_key("first", Terms())
            await asyncio.sleep(0.3)
            _, secret = await two.add_key("a", Terms())
            assert await one.authorise(secret) is not None
            began = time.perf_counter()
            for at in range(100):
                assert await one.receipt(f"rcpt-{at}") is None  # looks into the database
            looked_up = time.perf_counter() - began
            began = time.perf_counter()
            for at in range(2000):
                assert await one.authorise(f"ot-{at}") is None
            assert time.perf_counter() - began < 10 * looked_up, "half of what as many look-ups take"

    asyncio.run(job())


def test_the_first_key_is_known_at_once(ledger_url: str) -> None:
    async def job() -> None:
        async with opened(ledger_url, refresh=3600) as one, opened(ledger_url) as two:
            await asyncio.sleep(0.3)
            assert await one.authorise("sk-of-another-service") is not None
            made, secret = await two.add_key("a", Terms())
            key = await one.authorise(secret)
            assert key is not None
            assert key.id == made.id
            assert await one.authorise("sk-of-another-service") is None

    asyncio.run(job())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_hangup_reads_the_policy_at_once_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    policy().save(path)
    command = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "serve", "--port", "0"]
    command += ["--ledger", "memory:", "--policy", str(path)]
    with (
        ChatServer(chat(["The answer is 4."]), routes={"/v1/models": models("tiny")}) as backend,
        subprocess.Popen([*command, "--model", backend.url], stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stderr is not None
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
            assert url is not None
            path.write_text("{")
            problem, end = None, time.monotonic() + 0.75 * LOOKS_EVERY
            process.send_signal(signal.SIGHUP)
            while problem is None and time.monotonic() < end:
                with urllib.request.urlopen(f"{url[0]}/readyz", timeout=5) as reply:
                    problem = json.load(reply).get("policy")
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
    assert "is no policy" in str(problem)
