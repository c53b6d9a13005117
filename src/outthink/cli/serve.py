"""`outthink serve` and `keys`: the proxy, and who may use it.

Knows flags, what is printed when the proxy is there, and the table of keys. Does not know the configuration's keys,
how requests are served or where keys lie.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.options import KEY_HELP, age_seconds, configuration_arguments
from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra

if TYPE_CHECKING:
    from outthink.core.request import Budget
    from outthink.serving.config import Config
    from outthink.serving.guard import Marker
    from outthink.serving.protocols import StoredKey, Terms
    from outthink.serving.proxy import Proxy

_FLAGS = {
    "policy": "policy.file",
    "router": "router.file",
    "operating-point": "router.operating_point",
    "verifier": "verifier.source",
    "host": "listen.host",
    "port": "listen.port",
    "keys": "listen.keys",
    "ledger": "ledger.url",
}


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    add = parser.add_argument
    models = "backends: servers' URLs, `embedded`, GGUF files, or SCHEME:REST of plugins ($OUTTHINK_MODEL)"
    add("--model", metavar="URL[,URL...]", help=models)
    add("--policy", metavar="FILE", help="file of `outthink calibrate`, for outthink/auto")
    add(
        "--router",
        metavar="FILE|DIR",
        help="predictor of `outthink router train`, for outthink/... with several models",
    )
    add("--router-map", action="append", default=[], metavar="NAME=ALIAS", help="what a model of the router is called")
    add("--operating-point", metavar="WAY=X", help="in place of the router's own, for example strong-share=0.3")
    add("--verifier", metavar="PATH|URL", help="judges samples: a reward model's folder or hub name, or a server's URL")
    add("--host", help="address to listen on (default 127.0.0.1)")
    add("--port", help="port to listen on, 0 for any (default 8000)")
    add("--keys", metavar="MODE", help="who needs an API key: auto (default: all once there is one), required, open")
    add("--ledger", metavar="URL", help="sqlite:///PATH, postgresql://... or memory: (default a file of this user)")
    add("--new-ledger", action="store_true", help="make the ledger that is named if it is not there")
    add("--api-key-env", metavar="NAME", help=KEY_HELP)
    add("--price", metavar="IN,OUT", help="dollars per million tokens of --model; wins over published prices")
    add("--energy", metavar="PROMPT,COMPLETION", help="joules a token of --model, bounds from above")
    add("--log-content", action="store_true", help="keep prompts and answers beside their receipts")
    configuration_arguments(parser)
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any key of the file, for this run")
    add("--check", action="store_true", help="look at everything, start nothing that stays, and say what is wrong")
    add("--print-config", action="store_true", help="print a file with every key explained, and end")


def run_serve(chosen: argparse.Namespace) -> int:
    """Serve until interrupted; with --check answer 0 if that would work."""
    need_extra("serve", "verb", "serve")
    if chosen.print_config:
        from outthink.serving.config.config import example

        print(example(), end="")
        return 0
    from outthink.serving.proxy import new_event_loop, serve

    config = _config(chosen)
    if (endpoint := config.telemetry.endpoint) is not None and not chosen.check:
        need_extra("telemetry", "telemetry.endpoint", endpoint)  # before a model is fetched or started
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        if chosen.check:
            return runner.run(_check(config))
        runner.run(serve(config, _announce))
    return 0


def _config(chosen: argparse.Namespace) -> Config:
    from outthink.serving.config import read_config
    from outthink.serving.config.sections import Setting

    flags = {
        path: Setting(value, f"--{name}", "flag")
        for name, path in _FLAGS.items()
        if (value := vars(chosen)[name.replace("-", "_")]) is not None
    }
    if chosen.router_map:
        flags["router.map"] = Setting(",".join(chosen.router_map), "--router-map", "flag")
    if chosen.log_content:
        flags["content.log"] = Setting("true", "--log-content", "flag")
    config = read_config(
        chosen.config,
        env_file=chosen.env_file,
        models=chosen.model,
        api_key_env=chosen.api_key_env,
        price=chosen.price,
        energy=chosen.energy,
        flags=flags,
        settings=chosen.set,
    )
    if config.former:
        problem = f"{config.file} is in the form of version 0.1, which is read in this version for the last time"
        print(f"outthink serve: {problem}; write [serve.SECTION], as --check prints it", file=sys.stderr)
    return replace(config, new_ledger=chosen.new_ledger)


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


def _announce(proxy: Proxy) -> None:
    listen = proxy.config.listen
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    names = ", ".join(proxy.pool.names()) or "no model yet"
    url = f"http://{host}:{proxy.port}"
    line = f"{url}/v1 serves {names} and outthink/...; dashboard: {url}/; {proxy.access}"
    print(f"outthink serve: {line}", file=sys.stderr)
    for problem in (*proxy.refused, *proxy.unjudged):
        print(f"outthink serve: {problem}", file=sys.stderr)
    for backend in proxy.pool.backends:
        if backend.trouble is not None:
            trouble = f"{backend.url} is not there ({backend.trouble}); it is asked again"
            print(f"outthink serve: {trouble}", file=sys.stderr)


# `outthink keys`: who may use the proxy, and how much of it.

_WIDE = 300
"""Letters of a line that goes into a file or a pipe."""


def keys_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the steps."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--ledger", metavar="URL", help="sqlite:///PATH or postgresql://... (default: that of serve)")
    where.add_argument("--config", type=Path, metavar="FILE", help="the TOML file that serve reads, for its ledger")
    where.add_argument("--json", action="store_true", help="print JSON")
    steps = parser.add_subparsers(dest="step", metavar="add|list|revoke|open", required=True)
    add = steps.add_parser("add", parents=[where], help="make a key", description="Make a key; it is shown once.")
    add.add_argument("name", metavar="NAME", help="what it is called in lists and logs")
    add.add_argument("--admin", action="store_true", help="may see the dashboard, metrics, search and all receipts")
    add.add_argument("--metrics", action="store_true", help="may read /metrics, and nothing else")
    budget = "tokens=N,usd=N of a %s (UTC)"
    add.add_argument("--budget-day", metavar="BUDGET", help=budget % "day")
    add.add_argument("--budget-month", metavar="BUDGET", help=budget % "month")
    add.add_argument("--ceiling", metavar="BUDGET", help="of every single request: tokens=N,seconds=N,usd=N,joules=N")
    add.add_argument("--strategy", metavar="S", help="what outthink/auto runs for this key")
    add.add_argument("--model", action="append", default=[], metavar="M", help="may ask for this model only; repeat")
    add.add_argument("--expires", metavar="AGE", help="ends after 30m, 12h, 30d or 8w")
    steps.add_parser("list", parents=[where], help="show all keys", description="Show all keys; never a secret.")
    revoke = steps.add_parser("revoke", parents=[where], help="end a key", description="End a key within seconds.")
    revoke.add_argument("key", metavar="ID|NAME", help="which key")
    about = "Forget that a key was ever made, so that a proxy whose ledger holds none asks for none."
    steps.add_parser("open", parents=[where], help="forget that a key was made", description=about)


def run_keys(chosen: argparse.Namespace) -> int:
    """Add, list, revoke, or forget that there were any."""
    need_extra("serve", "verb", "keys")  # its ledger is the proxy's
    from outthink.serving.config import read_store
    from outthink.serving.guard import Marker
    from outthink.serving.ledger import LedgerAddress

    # By its URL, else the one that serve would open.
    store, configuration = read_store(chosen.config)
    url = chosen.ledger or store.resolved(configuration.variables)
    marker = Marker.of(configuration.file, LedgerAddress.parse(url).identity)
    return asyncio.run(_open(chosen, url, marker) if chosen.step == "open" else _run(chosen, url, marker))


async def _open(chosen: argparse.Namespace, url: str, marker: Marker) -> int:
    """Take the marker away, and say what that changes."""
    from outthink.core.errors import OutthinkError

    try:
        removed = marker.remove()
    except OSError as error:
        remedy = "remove it as its owner"
        raise BadInput("keys open", str(error.filename), f"cannot be removed ({error.strerror})", remedy) from None
    held: int | None = None
    with suppress(OutthinkError):  # no ledger, or out of reach: what it holds is not known
        held = len(await _listed(url))
    if chosen.json:
        print(json.dumps({"removed": [str(path) for path in removed], "keys": held}))
        return 0
    print("\n".join(f"removed {path}" for path in removed) or "nothing said that a key was made: nothing changes")
    if held:
        keys = "1 key" if held == 1 else f"{held} keys"
        print(f"the ledger holds {keys}, revoked ones included: a proxy asks for keys all the same, unless it is")
        print('started with keys = "open" (outthink serve --keys open)')
    elif removed:
        print('from its next start, a proxy with keys = "auto" whose ledger holds no key asks its machine for none')
    return 0


async def _listed(url: str) -> Sequence[StoredKey]:
    from outthink.serving.ledger import open_ledger

    ledger = open_ledger(url, absent=_ABSENT)
    await ledger.open()
    try:
        return await ledger.list_keys()
    finally:
        await ledger.close()


_ABSENT = "correct it, or make a ledger with a key in it: outthink keys add NAME"


async def _run(chosen: argparse.Namespace, url: str, marker: Marker) -> int:
    from outthink.serving.ledger import open_ledger

    logging.getLogger("outthink.serving").addHandler(logging.NullHandler())  # what a proxy would log of the same
    terms = _terms(chosen) if chosen.step == "add" else None
    ledger = open_ledger(url, absent="" if terms is not None else _ABSENT)
    await ledger.open()
    try:
        if terms is not None:
            before = await ledger.list_keys()
            key, secret = await ledger.add_key(chosen.name, terms)
            _remember(marker)
            if chosen.json:
                print(json.dumps(asdict(key) | {"secret": secret}))
            else:
                # Standard output holds the secret alone, for programs that read it.
                print(f"{key.id} {key.name}: this is shown once, keep it safe", file=sys.stderr)
                print(secret)
            _tell(before, key)
        elif chosen.step == "revoke":
            key = await ledger.revoke_key(chosen.key)
            print(json.dumps(asdict(key)) if chosen.json else f"revoked {key.id} {key.name}")
        elif chosen.json:
            print(json.dumps([asdict(key) for key in await ledger.list_keys()]))
        else:
            _show(await ledger.list_keys())
    finally:
        await ledger.close()
    return 0


def _remember(marker: Marker) -> None:
    """Should the ledger be lost, keys are asked for all the same."""
    try:
        marker.make()
    except OSError as error:
        what = f"that there are keys cannot be remembered beside the ledger ({error})"
        print(f'outthink keys: {what}; set keys = "required" for the proxy', file=sys.stderr)


def _tell(before: Sequence[StoredKey], key: StoredKey) -> None:
    """What a new key changes for others."""
    if not before:
        change = "this is the first key: from now on every client needs one, those that run already within seconds"
        print(f"outthink keys: {change}", file=sys.stderr)
    now = time.time()
    active = [old for old in (*before, key) if old.revoked is None and (old.terms.expires or now + 1) > now]
    if not any(old.terms.admin for old in active):
        lack = "no key is an admin's, so nobody sees the dashboard, metrics, search and other keys' receipts"
        print(f"outthink keys: {lack}; make one: outthink keys add NAME --admin", file=sys.stderr)


def _terms(chosen: argparse.Namespace) -> Terms:
    from outthink.serving.protocols import Terms

    return Terms(
        admin=chosen.admin,
        metrics=chosen.metrics,
        day=_budget("budget-day", chosen.budget_day),
        month=_budget("budget-month", chosen.budget_month),
        ceiling=_budget("ceiling", chosen.ceiling),
        strategy=_strategy(chosen.strategy),
        models=tuple(chosen.model),
        expires=None if chosen.expires is None else time.time() + age_seconds("--expires", chosen.expires),
    )


def _budget(name: str, text: str | None) -> Budget:
    from outthink.core.request import Budget

    if text is None:
        return Budget()
    try:
        return Budget.parse(text)
    except BadInput as error:
        raise BadInput(f"--{name}: {error.field}", error.value, error.problem, error.remedy) from None


def _strategy(text: str | None) -> str | None:
    from outthink.controller.plugins import load_plugins
    from outthink.serving.chat.question import read_strategy
    from outthink.serving.failure import Failure

    if text is None:
        return None
    load_plugins()  # as the proxy does at its start
    try:
        read_strategy("--strategy", text)
    except Failure:
        raise BadInput("--strategy", text, "is no strategy", "see outthink strategies") from None
    return text


def _show(keys: Sequence[StoredKey]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "state", "day", "month", "ceiling", "strategy", "models", "created", "used"):
        table.add_column(name, no_wrap=name in ("id", "name"))  # what `revoke` wants
    for key in keys:
        terms = key.terms
        cells = (
            key.id,
            key.name,
            _state(key),
            _budget_text(terms.day),
            _budget_text(terms.month),
            _budget_text(terms.ceiling),
            terms.strategy or "",
            " ".join(terms.models),
            _date(key.created),
            _date(key.last_used),
        )
        table.add_row(*(escape(cell) for cell in cells))
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)


def _state(key: StoredKey) -> str:
    if key.revoked is not None:
        return f"revoked {_date(key.revoked)}"
    expires = key.terms.expires
    if expires is not None:
        return f"expired {_date(expires)}" if expires <= time.time() else f"until {_date(expires)}"
    return "admin" if key.terms.admin else "metrics" if key.terms.metrics else "active"


def _budget_text(budget: Budget) -> str:
    # Six digits, the usual, would show 1234567 tokens as 1.23457e+06.
    return ",".join(f"{name}={budget.get(name):.15g}" for name in budget.limited)


def _date(moment: float | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
