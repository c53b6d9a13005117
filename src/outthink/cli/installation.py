"""`outthink doctor`, `pull`, `cache` and `strategies`: what is here, and what a server can do.

Knows flags and tables. Does not know how a server is examined, a model fetched or a strategy run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from outthink.cli.options import KEY_HELP, chosen_configuration, configuration_arguments
from outthink.core.plugins import EXTRAS, install_hint, missing


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    about = "an OpenAI-compatible server, by address or alias; none: this installation"
    parser.add_argument("url", nargs="?", metavar="URL|ALIAS", help=about)
    parser.add_argument("--model-name", metavar="NAME", help="which model of the server (default its first)")
    parser.add_argument("--api-key-env", metavar="VAR", help=KEY_HELP)
    configuration_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_doctor(chosen: argparse.Namespace) -> int:
    """Examine and print; what was found is remembered for later calls."""
    about, findings = asyncio.run(_server(chosen)) if chosen.url else _installation(chosen)
    if chosen.json:
        keys = ("name", "state", "detail")
        print(json.dumps({"about": about, "findings": [dict(zip(keys, row, strict=True)) for row in findings]}))
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "finding", "detail", box=None, header_style="bold")
    marks = {"yes": "[green]yes[/]", "no": "[yellow]no[/]", "unknown": "[dim]unknown[/]"}
    for name, state, detail in findings:
        table.add_row(marks[state], name, escape(detail))
    console = Console(highlight=False)
    console.print(f"[bold]{escape(about)}[/]")
    console.print(table)
    return 0


async def _server(chosen: argparse.Namespace) -> tuple[str, list[tuple[str, str, str]]]:
    from outthink.configuration.models import choose_model
    from outthink.engines.openai import OpenAIEngine, examine

    choice = choose_model(
        chosen.url,
        configuration=chosen_configuration(chosen),
        name=chosen.model_name,
        api_key_env=chosen.api_key_env,
    )
    engine = OpenAIEngine(choice.where, choice.name, api_key=choice.api_key)
    try:
        report = await examine(engine)
    finally:
        await engine.aclose()
    rows = [(finding.name, finding.state, finding.detail) for finding in report.findings]
    about = f"{report.url} · {report.model} · {report.requests} requests, {report.seconds:.1f} s"
    return about, [(str(name), str(state), detail) for name, state, detail in rows]


def _installation(chosen: argparse.Namespace) -> tuple[str, list[tuple[str, str, str]]]:
    from outthink.controller.plugins import load_plugins
    from outthink.core import __version__
    from outthink.core.paths import cache_dir

    models = sorted((cache_dir() / "models").glob("*.gguf"))
    rows = [("Python", "yes", sys.version.split()[0]), ("cache folder", "yes", str(cache_dir()))]
    configuration = chosen_configuration(chosen)
    found = f"{configuration.file} ({configuration.named}), {len(configuration.written.models)} models by name"
    nowhere = "none: defaults hold (outthink models --help)"
    rows.append(("configuration", "no", nowhere) if configuration.file is None else ("configuration", "yes", found))
    for extra in EXTRAS:
        absent = missing(extra)
        rows.append((f"extra {extra}", "no" if absent else "yes", install_hint(extra) if absent else ""))
    names = ", ".join(path.name for path in models)
    rows.append(("embedded model", "yes" if models else "no", names or "outthink pull"))
    for plugin, problem in load_plugins():
        rows.append((f"{plugin.field} {plugin.name}", "no" if problem else "yes", problem or plugin.distribution))
    return f"outthink {__version__}", rows


# `outthink pull`: fetch the embedded model, or another GGUF from a hub.


def pull_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument(
        "name", nargs="?", default="embedded", metavar="NAME", help="embedded (default) or hf:OWNER/REPO/FILE.gguf"
    )


def run_pull(chosen: argparse.Namespace) -> int:
    """Fetch, check and print the path."""
    from outthink.engines.embedded import pull, read_gguf

    path = pull(chosen.name, progress=sys.stderr.isatty())
    info = read_gguf(path)
    print(f"{path}  ({info.parameters:,} parameters, context {info.context:,})")
    return 0


# `outthink cache path|clear`: where reused responses lie, and how to drop them.


def cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument("action", choices=("path", "clear"), help="print the path, or delete all cached responses")


def run_cache(chosen: argparse.Namespace) -> int:
    """Print or clear."""
    from outthink.session.store import default_path

    path = default_path()
    if chosen.action == "path":
        print(path)
        return 0
    # SQLite keeps a log beside the file, which may hold responses that the file lacks.
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    print(f"cleared {path}")
    return 0


# `outthink strategies`: the table of strategies, generated from their code.


def strategies_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--json", action="store_true", help="print a list of objects, traits included")


def table() -> list[tuple[str, str, str, str, str]]:
    """Rows of name, summary, parameters with defaults, needs and source."""
    from outthink.strategies import strategies

    return [
        (
            name,
            strategy.summary,
            ", ".join(f"{key}={'auto' if value is None else value}" for key, value in strategy.defaults.items()) or "-",
            strategy.needs,
            strategy.source,
        )
        for name, strategy in strategies().items()
    ]


def markdown() -> str:
    """The table for README and docs."""
    lines = ["| strategy | what it does | parameters | needs | source |", "|---|---|---|---|---|"]
    for name, summary, parameters, needs, source in table():
        lines.append(
            f"| `{name}` | {summary} | {f'`{parameters}`' if parameters != '-' else '-'} | {needs} | {source} |"
        )
    return "\n".join(lines)


def run_strategies(chosen: argparse.Namespace) -> int:
    """Print the strategies, then the prompt styles that compose with all of them."""
    from rich.console import Console
    from rich.table import Table

    from outthink.strategies import STYLES, strategies

    if chosen.markdown:
        print(markdown())
        return 0
    if chosen.json:
        print(json.dumps([known.json() for known in strategies().values()], indent=1))
        return 0
    console = Console()
    shown = Table("strategy", "what it does", "parameters", "needs", "source", box=None, header_style="bold")
    for row in table():
        shown.add_row(*row)
    console.print(shown)
    console.print()
    styles = Table("style=", "instruction added to the prompt", "source", box=None, header_style="bold")
    for name, style in STYLES.items():
        styles.add_row(name, style.instruction, style.source)
    console.print(styles)
    return 0
