"""`outthink serve`: the proxy."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.serving.proxy import Plan, Proxy


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    add = parser.add_argument
    add("--model", metavar="URL[,URL...]", help="backends: servers' URLs, `embedded`, or GGUF files ($OUTTHINK_MODEL)")
    add("--policy", type=Path, metavar="FILE", help="file of `outthink calibrate`, for outthink/auto")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=int, default=8000, help="port to listen on, 0 for any (default 8000)")
    add("--api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable with the backends' key")
    add("--check", action="store_true", help="look at everything, start nothing that stays, and say what is wrong")


def run(chosen: argparse.Namespace) -> int:
    """Serve until interrupted; with --check answer 0 if that would work."""
    missing = [name for name in ("aiohttp",) if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput("serve", ", ".join(missing), "is not installed", "pip install 'outthink[serve]'")
    from outthink.serving.proxy import Plan, serve

    models = chosen.model or os.environ.get("OUTTHINK_MODEL") or ""
    plan = Plan(
        models=tuple(filter(None, (model.strip() for model in models.split(",")))),
        policy=chosen.policy,
        host=chosen.host,
        port=chosen.port,
        key=os.environ.get(chosen.api_key_env),
    )
    factory = _loop()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_check(plan) if chosen.check else serve(plan, _told))
    return 0


def _loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed: a third more requests a second."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


async def _check(plan: Plan) -> None:
    """Start on a free port, meet every backend, and stop."""
    from dataclasses import replace

    from outthink.serving.proxy import Proxy

    proxy = Proxy(replace(plan, port=0))
    try:
        names = await proxy.start()
    finally:
        await proxy.stop()
    print(f"ok: {len(names)} models ({', '.join(names)})")


def _told(proxy: Proxy, names: list[str]) -> None:
    host = f"[{proxy.plan.host}]" if ":" in proxy.plan.host else proxy.plan.host
    print(f"outthink serve: http://{host}:{proxy.port}/v1 serves {', '.join(names)} and outthink/...", file=sys.stderr)
