"""`outthink doctor`, `pull`, `cache`, `strategies` and `models`: what is here, and what a server can do.

Knows flags and tables. Does not know how a server is examined, a model fetched or a strategy run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING

from outthink.cli.options import KEY_HELP, chosen_configuration, configuration_arguments
from outthink.core.errors import OutthinkError
from outthink.core.plugins import EXTRAS, install_hint, missing

if TYPE_CHECKING:
    from rich.console import Console

    from outthink.configuration.file import Configuration
    from outthink.configuration.models import ModelChoice
    from outthink.strategies import Strategy


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
    about = f"{report.url} · {report.model} · {report.requests} requests, {report.seconds:.1f} s"
    return about, [(finding.name, str(finding.state), finding.detail) for finding in report.findings]


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
    parser.add_argument("--json", action="store_true", help="print a list of objects, what parameters mean included")


def _parameters(strategy: Strategy, space: str = " ") -> str:
    """`n=16, ties=confidence`; empty where there are none. `space` stands for those within a value."""
    values = ((key, "auto" if value is None else str(value)) for key, value in strategy.defaults.items())
    return ", ".join(f"{key}={value.replace(' ', space)}" for key, value in values)


def markdown() -> str:
    """The table for README and docs."""
    from outthink.strategies import strategies

    lines = ["| strategy | what it does | parameters | needs | source |", "|---|---|---|---|---|"]
    for name, known in strategies().items():
        given = f"`{_parameters(known)}`" if known.defaults else "-"
        lines.append(f"| `{name}` | {known.summary} | {given} | {known.needs} | {known.source} |")
    return "\n".join(lines)


def run_strategies(chosen: argparse.Namespace) -> int:
    """Print the strategies, plugins' included, then the prompt styles that compose with all of them."""
    from rich.console import Console

    from outthink.controller.plugins import load_plugins
    from outthink.strategies import STYLES, strategies

    for _, problem in load_plugins("strategies"):
        if problem:
            print(f"outthink strategies: {problem}", file=sys.stderr)
    if chosen.markdown:
        print(markdown())
        return 0
    if chosen.json:
        print(json.dumps([known.json() for known in strategies().values()], indent=1))
        return 0
    console = Console(highlight=False)
    console.print("[bold]Strategies[/], written NAME or NAME:k=v,...; parameters with their defaults\n")
    for known in strategies().values():
        origin = known.source if known.plugin is None else f"{known.source} (plugin {known.plugin})"
        origin += "" if known.needs == "any engine" else f"; needs {known.needs}"
        given = _parameters(known, space="\N{NO-BREAK SPACE}")
        _print_beside(console, known.name, known.summary or "(no docstring)", given, origin)
    console.print("\n[bold]Prompt styles[/], written ...,style=NAME; added to the prompt of any strategy\n")
    for name, style in STYLES.items():
        _print_beside(console, name, style.instruction, style.source)
    return 0


def _print_beside(console: Console, name: str, *paragraphs: str) -> None:
    """A name, and paragraphs to the right of it, broken between words and never cut."""
    from rich.markup import escape

    width = min(max(console.width, 50), 110)
    spare = " " * 22
    words = TextWrapper(
        width, initial_indent=spare, subsequent_indent=spare, break_long_words=False, break_on_hyphens=False
    )
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for text in paragraphs for line in words.wrap(text)]
    if len(name) >= len(spare):
        lines.insert(0, "")
    rest = "\n".join([lines[0][len(name) :], *lines[1:]])
    console.print(f"[bold]{escape(name)}[/]{escape(rest)}", soft_wrap=True)


# `outthink models`: which models can be named here, and what is known of each; one that cannot be had costs a line.

_SECONDS = 5.0
"""That a server may take to list its models."""
_MODELS_EPILOG = """outthink models                 aliases, the embedded model, and what their servers offer
outthink models FILE|FOLDER|URL a GGUF file, a folder with safetensors or a config.json, or a server"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """One row: a model, or a place that could not tell of one.

    Args:
        named: what `--model` takes for it.
        model: its name there, None where that is not known.
        parameters: weights read per token.
        source: who says so: `alias`, `file`, `name` or `server`.
        trouble: why it cannot be used now.
    """

    named: str
    where: str
    model: str | None = None
    parameters: int | None = None
    source: str | None = None
    price: str | None = None
    context: int | None = None
    trouble: str | None = None


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _MODELS_EPILOG
    add = parser.add_argument
    add("model", nargs="*", metavar="NAME", help="only these: aliases, URLs, files and folders")
    configuration_arguments(parser)
    add("--offline", action="store_true", help="ask no server")
    add("--json", action="store_true", help="print one JSON list")


def run_models(chosen: argparse.Namespace) -> int:
    """List them; what is in the way of one is told in its row."""
    configuration = chosen_configuration(chosen)
    named = chosen.model or _known(configuration)
    rows = asyncio.run(_listed(named, configuration, offline=chosen.offline))
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        _show_models(rows)
    return 0


def _known(configuration: Configuration) -> list[str]:
    """Every name that means a model here: aliases, the server of the environment, the embedded one."""
    base = configuration.variables.get("OPENAI_BASE_URL")
    return [*configuration.written.models, *([base] if base else []), "embedded"]


async def _listed(named: list[str], configuration: Configuration, *, offline: bool) -> list[ListedModel]:
    found = await asyncio.gather(*(_look(name, configuration, offline=offline) for name in named))
    return [row for rows in found for row in rows]


async def _look(named: str, configuration: Configuration, *, offline: bool) -> list[ListedModel]:
    """What is known of one name: a row, or one for each model of a server."""
    from outthink.configuration.models import choose_model
    from outthink.http.errors import masked_url

    alias, path = configuration.written.models.get(named), Path(named)
    row = ListedModel(named=masked_url(named), where=masked_url(named))
    if alias is not None:
        row = replace(
            row,
            where=str(alias.path or alias.url),
            model=alias.name,
            parameters=alias.parameters,
            source=None if alias.parameters is None else "alias",
            price=alias.price,
            context=alias.context,
        )
    elif path.suffix in (".safetensors", ".json") or (path / "config.json").exists():
        return [_of_files(row, path)]  # nothing here runs them, but their weights can be counted
    try:
        choice = choose_model(named, configuration=configuration)
        if choice.where.startswith(("http://", "https://")):
            return [row] if offline else await _of_server(row, choice)
        return [_of_files(row, Path(choice.where))] if choice.where != "embedded" else [_embedded(row)]
    except OutthinkError as error:
        return [replace(row, trouble=str(error))]


def _of_files(row: ListedModel, path: Path) -> ListedModel:
    """A model of this machine, with what its files say."""
    from outthink.engines.weights import read_weights

    row = replace(row, model=row.model or path.name.removesuffix(".gguf"))
    if not path.exists():  # a plugin's
        return row
    try:
        weights = read_weights(path)
    except OutthinkError as error:
        return replace(row, trouble=str(error))
    return row if row.parameters is not None else replace(row, parameters=weights.parameters, source="file")


def _embedded(row: ListedModel) -> ListedModel:
    from outthink.engines.embedded import find_model

    path = find_model()
    return replace(row, trouble="is not here yet: outthink pull") if path is None else _of_files(row, path)


async def _of_server(row: ListedModel, choice: ModelChoice) -> list[ListedModel]:
    """A row for each model that a server lists, or for the one that an alias names."""
    from outthink.core.errors import EngineError
    from outthink.economics.tariff import active_parameters
    from outthink.engines.openai.engine import OpenAIEngine, list_models

    engine = OpenAIEngine(choice.where, api_key=choice.api_key, connect_timeout=_SECONDS, idle_timeout=_SECONDS)
    try:
        async with asyncio.timeout(_SECONDS):
            listed = await list_models(engine.server)
    except TimeoutError:
        return [replace(row, trouble=f"did not list its models within {_SECONDS:g} s")]
    except EngineError as error:
        return [replace(row, trouble=str(error))]
    finally:
        await engine.aclose()
    if choice.name is not None:
        if listed and choice.name not in listed:
            row = replace(row, trouble=f"is not among the models of its server: {', '.join(listed)}"[:200])
        listed = {choice.name: (listed or {}).get(choice.name)}
    rows = []
    for model, told in (listed or {}).items():
        by_name = active_parameters(model)
        parameters, source = (told, "server") if by_name is None else (by_name, "name")
        if row.parameters is not None:
            parameters, source = row.parameters, str(row.source)
        rows.append(replace(row, model=model, parameters=parameters, source=source if parameters else None))
    return rows or [replace(row, trouble="lists no models")]


def _show_models(rows: list[ListedModel]) -> None:
    """A table for people: where each figure comes from stands beside it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("name", "model", "parameters", "price", "where", box=None, header_style="bold")
    for row in rows:
        count = "unknown" if row.parameters is None else f"{row.parameters:,} ({row.source})"
        where = escape(row.where) if row.where != row.named else ""
        table.add_row(escape(row.named), escape(row.model or ""), count, row.price or "", where)
    Console(highlight=False).print(table)
    for row in rows:
        if row.trouble is not None:
            print(f"{row.named}: {row.trouble}")
