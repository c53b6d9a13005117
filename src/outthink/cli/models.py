"""`outthink models`: which models can be named here, and what is known of each.

Knows flags and columns, and that one that cannot be had costs a line and nothing else. Does not know how a model is
opened, or where its parameters are read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.cli.options import chosen_configuration, configuration_arguments
from outthink.core.errors import OutthinkError

if TYPE_CHECKING:
    from outthink.configuration.file import Configuration
    from outthink.configuration.models import ModelChoice

_SECONDS = 5.0
"""That a server may take to list its models."""
_EPILOG = """outthink models                 aliases, the embedded model, and what their servers offer
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

    def json(self) -> dict[str, Any]:
        """Plain values; what is not known is null."""
        return {name: getattr(self, name) for name in self.__slots__}


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("model", nargs="*", metavar="NAME", help="only these: aliases, URLs, files and folders")
    configuration_arguments(parser)
    add("--offline", action="store_true", help="ask no server")
    add("--json", action="store_true", help="print one JSON list")


def run_models(chosen: argparse.Namespace) -> int:
    """List them; what is in the way of one is told in its row."""
    configuration = chosen_configuration(chosen)
    named = chosen.model or _known(configuration)
    rows = asyncio.run(_rows(named, configuration, offline=chosen.offline))
    if chosen.json:
        print(json.dumps([row.json() for row in rows]))
    else:
        _show(rows)
    return 0


def _known(configuration: Configuration) -> list[str]:
    """Every name that means a model here: aliases, the server of the environment, the embedded one."""
    base = configuration.variables.get("OPENAI_BASE_URL")
    return [*configuration.written.models, *([base] if base else []), "embedded"]


async def _rows(named: list[str], configuration: Configuration, *, offline: bool) -> list[ListedModel]:
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


def _show(rows: list[ListedModel]) -> None:
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
