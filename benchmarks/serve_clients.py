"""Whether well-known clients work unmodified: each is installed from its registry and runs the proxy's client tests.

Every client gets an environment of its own, so that none decides another's versions; the official Python
client is the one that the tests run with. What they are asked lies in `tests/serving/test_serve_clients.py`
(and `test_serve_openai_client.py`); here it is run once a client, and the checks are counted. A client that
cannot be installed is recorded with the reason, and its target is missed.

    .venv/bin/python benchmarks/serve_clients.py
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, Table, parser, save, show, skip, target
from serve_servers import CACHE

TESTS = ("tests/serving/test_serve_clients.py", "tests/serving/test_serve_openai_client.py")
_LONGEST = 600  # seconds


@dataclass(frozen=True)
class Client:
    """A client and how it is got.

    Args:
        requirement: what is installed, extras included; None for the one beside these tests.
        distribution: whose version is recorded.
        checks: expression that selects its tests.
    """

    name: str
    requirement: str | None
    distribution: str
    checks: str
    node: bool = False


CLIENTS = (
    Client("openai (Python)", None, "openai", "openai"),
    Client("litellm", "litellm[mcp]", "litellm", "litellm"),  # without the extra it fails on any tools
    Client("langchain-openai", "langchain-openai", "langchain-openai", "langchain"),
    Client("lm-eval", "lm-eval[api]", "lm-eval", "lm_eval"),
    Client("openai (Node)", "openai", "openai", "node", node=True),
)


class Missing(Exception):
    """A client cannot be installed here, and why."""


def told(command: list[str]) -> str:
    """What a command prints. Raises Missing with its last line where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    if done.returncode:
        raise Missing((done.stderr or done.stdout).strip().splitlines()[-1][:300])
    return done.stdout


def installed(client: Client, folder: Path) -> tuple[dict[str, str], str]:
    """The environment that the tests find the client by, and its version. Raises Missing."""
    if client.requirement is None:
        try:
            return {}, importlib.metadata.version(client.distribution)
        except importlib.metadata.PackageNotFoundError as error:
            raise Missing(f"{error} is not installed beside the tests") from error
    if client.node:
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise Missing("node and npm are not installed")
        folder.mkdir(parents=True, exist_ok=True)
        told(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), client.requirement])
        package = json.loads((folder / "node_modules" / client.distribution / "package.json").read_text())
        return {"OUTTHINK_CLIENTS_NODE": str(folder)}, str(package["version"])
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    told([str(python), "-m", "pip", "install", "--quiet", "--upgrade", client.requirement])
    asked = f"import importlib.metadata as m; print(m.version({client.distribution!r}))"
    return {"OUTTHINK_CLIENTS_PYTHON": str(python)}, told([str(python), "-c", asked]).strip()


def checked(client: Client, found: dict[str, str]) -> dict[str, str]:
    """The outcome of each of a client's tests: `passed`, `skipped` or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-n0", *TESTS, "-k", client.checks]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTTHINK_CLIENTS_")}
        subprocess.run(
            [*command, f"--junitxml={report}"],
            cwd=ROOT,
            env={**environment, **found},
            capture_output=True,
            timeout=_LONGEST,
            check=False,
        )
        if not report.exists():
            return {"pytest": "no report"}
        return {case.get("name", ""): _outcome(case) for case in ET.parse(report).iter("testcase")}


def _outcome(case: ET.Element) -> str:
    for kind in ("failure", "error", "skipped"):
        if (found := case.find(kind)) is not None:
            return "skipped" if kind == "skipped" else f"{kind}: {(found.get('message') or '')[:200]}"
    return "passed"


def main() -> int:
    """Install, run, save."""
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, default=CACHE.parent / "clients", help="where they are installed")
    options.add_argument("--only", nargs="+", choices=[client.name for client in CLIENTS], help="leave the others out")
    chosen, load = options.parse_args(), os.getloadavg()[0]
    table: Table = []
    details: dict[str, dict[str, str]] = {}
    for client in CLIENTS:
        if chosen.only and client.name not in chosen.only:
            continue
        name = "".join(letter if letter.isalnum() else "-" for letter in client.name).strip("-")
        try:
            found, version = installed(client, chosen.folder / name)
            outcomes = checked(client, found)
        except Missing as error:
            table.append({"client": client.name, "version": None, "passed": 0, "checks": 0, "problem": str(error)})
            continue
        details[client.name] = outcomes
        passed = sum(outcome == "passed" for outcome in outcomes.values())
        problem = next((outcome for outcome in outcomes.values() if outcome != "passed"), None)
        row = {"client": client.name, "version": version, "passed": passed, "checks": len(outcomes), "problem": problem}
        table.append(row | {"installed": client.requirement or client.distribution})
    if not any(row["version"] for row in table):
        return skip("no client could be installed; is there a package registry?")
    show("clients of OpenAI's protocol, only their base URL changed", table)
    if chosen.only:
        return 0
    save(
        "serve_clients",
        settings={"tests": TESTS},
        targets=[
            target(
                f"{row['client']} {row['version'] or ''} works unmodified".replace("  ", " "),
                "all checks",
                f"{row['passed']} of {row['checks']}" if row["version"] else str(row["problem"]),
                bool(row["checks"]) and row["passed"] == row["checks"],
            )
            for row in table
        ],
        load_before=load,
        clients=table,
        checks=details,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
