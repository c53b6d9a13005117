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
    from outthink.serving.config import Config
    from outthink.serving.proxy import Proxy

_FLAGS = {"policy": "policy.file", "host": "listen.host", "port": "listen.port", "ledger": "ledger.url"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    add = parser.add_argument
    add("--model", metavar="URL[,URL...]", help="backends: servers' URLs, `embedded`, or GGUF files ($OUTTHINK_MODEL)")
    add("--policy", metavar="FILE", help="file of `outthink calibrate`, for outthink/auto")
    add("--host", help="address to listen on (default 127.0.0.1)")
    add("--port", help="port to listen on, 0 for any (default 8000)")
    add("--ledger", metavar="URL", help="sqlite:///PATH, postgresql://... or memory: (default a file of this user)")
    add("--api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable with the key that --model wants")
    add("--price", metavar="IN,OUT", help="dollars per million tokens of --model; wins over published prices")
    add("--energy", metavar="PROMPT,COMPLETION", help="joules a token of --model, bounds from above")
    add("--log-content", action="store_true", help="keep prompts and answers beside their receipts")
    add("--config", type=Path, metavar="FILE", help="TOML file with everything; flags and $OUTTHINK_SERVE_... win")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any key of the file, for this run")
    add("--check", action="store_true", help="look at everything, start nothing that stays, and say what is wrong")
    add("--print-config", action="store_true", help="print a file with every key explained, and end")


def run(chosen: argparse.Namespace) -> int:
    """Serve until interrupted; with --check answer 0 if that would work."""
    missing = [name for name in ("aiohttp",) if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput("serve", ", ".join(missing), "is not installed", "pip install 'outthink[serve]'")
    if chosen.print_config:
        from outthink.serving.config.config import example

        print(example(), end="")
        return 0
    from outthink.serving.proxy import serve

    config = _config(chosen)
    with asyncio.Runner(loop_factory=_loop()) as runner:
        if chosen.check:
            return runner.run(_check(config))
        runner.run(serve(config, _told))
    return 0


def _config(chosen: argparse.Namespace) -> Config:
    from outthink.serving.config import read_config
    from outthink.serving.config.sections import Setting

    flags = {
        path: Setting(value, f"--{name}", "flag") for name, path in _FLAGS.items() if (value := vars(chosen)[name])
    }
    if chosen.log_content:
        flags["content.log"] = Setting("true", "--log-content", "flag")
    return read_config(
        chosen.config,
        models=chosen.model,
        key=os.environ.get(chosen.api_key_env),
        price=chosen.price,
        energy=chosen.energy,
        flags=flags,
        settings=chosen.set,
    )


def _loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed: a third more requests a second."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


async def _check(config: Config) -> int:
    """Print what holds and what was found; 1 where something is wrong."""
    from outthink.serving.config.check import check
    from outthink.serving.config.config import effective

    print(effective(config))
    wrong = 0
    async for finding in check(config):
        wrong += not finding.ok
        print(finding if finding.ok else f"outthink serve: {finding}", file=sys.stdout if finding.ok else sys.stderr)
    print("ok" if not wrong else f"{wrong} wrong", flush=True)
    return 1 if wrong else 0


def _told(proxy: Proxy) -> None:
    listen = proxy.config.listen
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    names = ", ".join(proxy.pool.names()) or "no model yet"
    print(f"outthink serve: http://{host}:{proxy.port}/v1 serves {names} and outthink/...", file=sys.stderr)
    for backend in proxy.pool.backends:
        if backend.trouble is not None:
            told = f"{backend.url} is not there ({backend.trouble}); it is asked again"
            print(f"outthink serve: {told}", file=sys.stderr)
