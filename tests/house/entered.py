"""Which files of the package one warm request enters: the files whose functions are called while it is answered.

Knows: the Python interface and the proxy, each asked a few times so that everything is imported and known; only the
last request counts. The model is a scripted server in another process. Does not know targets. Run it through
measures.py, which gives it a process and a cache folder of its own; it prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import outthink

ROOT = Path(__file__).resolve().parents[2]
_SOURCE = ROOT / "src"
_QUESTION = "What is 17 * 23?"
_REST = 0.3
"""Seconds after a reply in which the proxy still books and closes what belongs to the request."""


class Watch:
    """Notes the files below a folder whose functions are called, in all threads that start after `install`."""

    def __init__(self, folder: Path) -> None:
        self._prefix = f"{folder}/"
        self._seen: set[str] | None = None

    def install(self) -> None:
        """Follow this thread and all that it starts from now on."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)

    def _called(self, frame: FrameType, event: str, _: object) -> None:
        if self._seen is not None and event == "call":
            self._seen.add(frame.f_code.co_filename)

    @contextmanager
    def noting(self) -> Iterator[set[str]]:
        """The files entered within the block, by their names below the folder, complete at its end."""
        self._seen, result = set(), set[str]()
        try:
            yield result
        finally:
            seen, self._seen = self._seen, None
            result |= {name.removeprefix(self._prefix) for name in seen if name.startswith(self._prefix)}


@contextmanager
def scripted_model() -> Iterator[str]:
    """The URL of a chat server in another process, which always answers the same."""
    command = [sys.executable, str(ROOT / "tests/support/chat_server.py"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


async def _asked(watch: Watch, model: Callable[[], str | outthink.OpenAIEngine]) -> set[str]:
    await outthink.ask(_QUESTION, model=model())
    with watch.noting() as result:
        await outthink.ask(_QUESTION, model=model())
        await asyncio.sleep(_REST)
    return result


def asked_with_an_engine(watch: Watch, url: str) -> set[str]:
    """`outthink.ask` with the default strategy and an engine that is kept between the requests."""
    engine = outthink.OpenAIEngine(url)
    return asyncio.run(_asked(watch, lambda: engine))


def asked_with_a_url(watch: Watch, url: str) -> set[str]:
    """`outthink.ask` with the default strategy and the server's URL, for which each request makes an engine."""
    return asyncio.run(_asked(watch, lambda: url))


def asked_through_the_proxy(watch: Watch, url: str) -> set[str]:
    """A chat with a strategy of three samples, through a proxy in this process."""
    from support.proxy_server import ProxyServer

    with ProxyServer(url) as proxy:
        for _ in range(3):  # samples in one call are tried, then left
            _through(proxy.chat("outthink/self-consistency@3").status)
        with watch.noting() as result:
            _through(proxy.chat("outthink/self-consistency@3").status)
            time.sleep(_REST)
    return result


def _through(status: int) -> None:
    if status != 200:
        raise RuntimeError(f"the proxy answered with status {status}")


def main() -> None:
    """Print the files that each kind of request enters."""
    if not Path(outthink.__file__).is_relative_to(_SOURCE):
        raise RuntimeError(f"outthink comes from {outthink.__file__}, not from {_SOURCE}")
    watch = Watch(_SOURCE)
    watch.install()
    with scripted_model() as url:
        kinds = (asked_with_an_engine, asked_with_a_url, asked_through_the_proxy)
        print(json.dumps({kind.__name__: sorted(kind(watch, url)) for kind in kinds}))


if __name__ == "__main__":
    main()
